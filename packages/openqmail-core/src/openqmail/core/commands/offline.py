"""The queue of a home that no service serves, read from the journal; nothing is changed."""

import os
from collections.abc import Iterator
from typing import Any

import msgspec

from openqmail.core.control.home import Home
from openqmail.core.control.reader import read_settings
from openqmail.core.queue import FileBody, read
from openqmail.core.queue.recovery import recover
from openqmail.core.send.admin import summarize
from openqmail.core.world import PosixDisk


def messages(home: Home) -> Iterator[dict[str, Any]]:
    """As a running service tells them, oldest first.  Raises QueueDamaged."""
    settings = read_settings(home)
    for stored in read(os.fsencode(home.queue)):
        yield msgspec.to_builtins(summarize(stored, settings))


def show(home: Home, number: int) -> Iterator[bytes] | None:
    """A message as it is stored, or None when there is none of that number."""
    disk = PosixDisk()
    journal = os.path.join(os.fsencode(home.queue), b"journal")
    if not os.path.isdir(journal):
        return None
    entry = recover(disk, journal).entries.get(number)
    if entry is None:
        return None
    if entry.large is not None:
        path = os.path.join(journal, b"large", os.fsencode(entry.large))
        return FileBody(disk, path, 0, entry.size).chunks()
    if entry.segment is None:
        return None
    return FileBody(disk, entry.segment.path, entry.offset + entry.head_size, entry.body_size).chunks()
