"""Going on after damage: what verified moves to a new segment, what did not is set aside.

A crash on the way leaves the damage where it was found, so the same command does it
again; what was carried over by then only overrides itself.
"""

import contextlib
import os

import msgspec

from openqmail.core.queue.index import Entry
from openqmail.core.queue.journal import Item, Journal
from openqmail.core.queue.journal.reading import read_record, read_slice
from openqmail.core.queue.journal.records import (
    MAX_CHANGES,
    Recorded,
    encode_record,
    pack_progress,
    recorded,
    split,
)
from openqmail.core.queue.journal.recovery import Found
from openqmail.core.queue.store import Change, Progress
from openqmail.core.values import HomeError, Outcome
from openqmail.core.world import Disk


def carry_over(disk: Disk, folder: bytes, found: Found, journal: Journal, memory: int) -> None:
    """Write all that was kept anew, about `memory` bytes at a time; then set the damaged aside.

    Raises HomeError, JournalLost, OSError; then it is to be done again from the start."""
    waiting = 0
    for entry in found.entries.values():
        assert entry.segment is not None
        record = read_record(disk, entry)
        body = read_slice(disk, entry.segment, entry.offset + entry.head_size, entry.body_size)
        progress, results = entry.progress or {}, list[Item]()
        if sum(len(one.text) for one in progress.values()) > MAX_CHANGES:
            results = [Item(encode_record(one)) for one in split(_anew(entry, progress))]
            progress = {}
        carried = msgspec.structs.replace(
            record, key=entry.key, closes=None, due=entry.due, progress=pack_progress(progress)
        )
        data = encode_record(carried, len(body))
        entry.head_size = len(data)
        waiting += len(data) + len(body) + sum(len(item.data) for item in results)
        journal.commit([Item(data, body, entry), *results], sync=waiting >= memory)
        waiting = 0 if waiting >= memory else waiting
    journal.commit((), sync=True)
    if journal.held:
        raise HomeError("there is not enough room to salvage the queue; free some and try again")
    for segment in found.segments:
        segment.live = 0
    aside = os.path.join(folder, b"damaged")
    with contextlib.suppress(FileExistsError):
        disk.mkdir(aside)
    for path in found.damaged:
        disk.rename(path, os.path.join(aside, os.path.basename(path)))
    disk.sync_folder(aside)
    disk.sync_folder(folder)
    journal.roll([], empty=True)  # where nothing was kept, too: the head so far asks for what is set aside


def _anew(entry: Entry, progress: dict[int, Progress]) -> Recorded:
    """What is known of many recipients, as of one attempt: it may be too long for the message's record."""
    changes = [Change(at, one.outcome or Outcome.DEFERRAL, one.text) for at, one in progress.items()]
    return recorded(entry.number, tuple(changes), entry.due, False)
