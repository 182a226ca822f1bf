"""A message of the journal as qmail's files: which goes where, and what stands in each."""

import msgspec

from openqmail.core.queue.index import Entry
from openqmail.core.queue.journal.reading import read_record, small_body
from openqmail.core.queue.journal.records import bounce_of
from openqmail.core.queue.layout.forms import Listed, encode_info, encode_recipients
from openqmail.core.queue.layout.mover import Outgoing
from openqmail.core.queue.layout.reader import FRESH, extra_of
from openqmail.core.queue.store import Due, Progress, Router, Stored
from openqmail.core.values import MessageId
from openqmail.core.world import Disk


class Departing(msgspec.Struct, frozen=True):
    """A message that is to move, with its state at that moment; `again`: an earlier attempt may have
    left files."""

    entry: Entry
    progress: dict[int, Progress]
    due: Due
    again: bool


class Ready(msgspec.Struct, frozen=True):
    """`places`: of each position, its list and its place there.  `locals`: how many `local` lists;
    `left_local`, `left_remote`: recipients not done with."""

    files: Outgoing
    places: tuple[tuple[str, int], ...]
    locals: int
    left_local: int
    left_remote: int


def outgoing(disk: Disk, departing: Departing, route: Router) -> Ready:
    """Reads the message again; blocks.  Raises TemporaryFailure, QueueDamaged."""
    entry, progress = departing.entry, departing.progress
    envelope = read_record(disk, entry).envelope
    lists: dict[str, list[Listed]] = {"l": [], "r": []}
    places: list[tuple[str, int]] = []
    for position, recipient in enumerate(envelope.recipients):
        channel, address = route(recipient.address)
        name = "l" if channel == "local" else "r"
        outcome = progress.get(position, FRESH).outcome
        places.append((name, len(lists[name])))
        lists[name].append(Listed(outcome is not None, address))
    all_of_it = tuple([progress.get(position, FRESH) for position in range(len(envelope.recipients))])
    stored = Stored(
        MessageId(entry.number, entry.key), entry.birth, entry.size, envelope, all_of_it, departing.due
    )
    left = {name: sum(not one.done for one in listed) for name, listed in lists.items()}
    files = Outgoing(
        entry.number,
        entry.birth,
        departing.due,
        encode_info(envelope.sender, extra_of(stored, places)),
        encode_recipients(lists["l"]) if left["l"] else b"",
        encode_recipients(lists["r"]) if left["r"] else b"",
        bounce_of(progress),
        None if entry.large else small_body(disk, entry),
        departing.again,
    )
    locals_ = len(lists["l"]) if left["l"] else 0
    return Ready(files, tuple(places), locals_, left["l"], left["r"])
