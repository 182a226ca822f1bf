"""The queue of a home that no service serves, read from the journal; nothing is changed."""

import os
from collections.abc import Iterator
from typing import Any

import msgspec

from openqmail.core.control.home import Home
from openqmail.core.control.reader import read_settings
from openqmail.core.queue import read, read_body
from openqmail.core.send.admin import summarize


def messages(home: Home) -> Iterator[dict[str, Any]]:
    """As a running service tells them, oldest first.  Raises QueueDamaged."""
    settings = read_settings(home)
    for stored in read(os.fsencode(home.queue)):
        yield msgspec.to_builtins(summarize(stored, settings))


def show(home: Home, number: int) -> Iterator[bytes] | None:
    """A message as it is stored, or None when there is none of that number."""
    body = read_body(os.fsencode(home.queue), number)
    return None if body is None else body.chunks()
