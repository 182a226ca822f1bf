"""Messages as the journal on the disk has them: read again by their place in it."""

import os
from collections.abc import Iterable

from openqmail.core.ports import LARGE
from openqmail.core.queue.body import FileBody
from openqmail.core.queue.index import Entry, Segment
from openqmail.core.queue.records import Submitted, decode_head
from openqmail.core.queue.recovery import recover
from openqmail.core.queue.store import Progress, Stored
from openqmail.core.values import Body, BytesBody, MessageId, QueueDamaged, TemporaryFailure
from openqmail.core.world import Disk, PosixDisk

FRESH = Progress()


def read(folder: bytes, disk: Disk | None = None) -> Iterable[Stored]:
    """What is in the queue at `folder` while no service has it, oldest first; changes nothing.

    Raises QueueDamaged, OSError."""
    disk = disk or PosixDisk()
    journal = os.path.join(folder, b"journal")
    try:
        disk.names(journal)
    except FileNotFoundError:
        return
    found = recover(disk, journal)
    for number in sorted(found.entries):
        yield stored(disk, found.entries[number])


def stored(disk: Disk, entry: Entry) -> Stored:
    record = read_record(disk, entry)
    progress = entry.progress or {}
    recipients = range(len(record.envelope.recipients))
    return Stored(
        MessageId(entry.number, entry.key),
        entry.birth,
        entry.size,
        record.envelope,
        tuple(progress.get(position, FRESH) for position in recipients),
        entry.due,
        entry.again,
    )


def read_body(folder: bytes, number: int, disk: Disk | None = None) -> Body | None:
    """A message of the queue at `folder` while no service has it; None when it is not there.

    Raises QueueDamaged, OSError, TemporaryFailure."""
    disk = disk or PosixDisk()
    journal = os.path.join(folder, b"journal")
    try:
        disk.names(journal)
    except FileNotFoundError:
        return None
    entry = recover(disk, journal).entries.get(number)
    return None if entry is None else body_of(disk, journal, entry)


def body_of(disk: Disk, journal: bytes, entry: Entry) -> Body:
    """Where the body of a message lies: in a file of its own, or behind its record."""
    if entry.large is not None:
        path = os.path.join(journal, b"large", entry.large.name.encode())
        return FileBody(disk, path, 0, entry.size, entry.large.digest)
    assert entry.segment is not None
    offset = entry.offset + entry.head_size
    if entry.body_size >= LARGE:
        return FileBody(disk, entry.segment.path, offset, entry.body_size)
    return BytesBody(read_slice(disk, entry.segment, offset, entry.body_size))


def read_record(disk: Disk, entry: Entry) -> Submitted:
    """The record of a message, without its body, read again."""
    assert entry.segment is not None
    data = read_slice(disk, entry.segment, entry.offset, entry.head_size)
    try:
        record = decode_head(data)
    except ValueError as error:
        where = f"{os.fsdecode(entry.segment.path)} at byte {entry.offset}"
        raise QueueDamaged(f"{where} is not what was written there: {error}") from error
    if not isinstance(record, Submitted) or record.number != entry.number:
        raise QueueDamaged(f"{os.fsdecode(entry.segment.path)} at byte {entry.offset} is another record")
    return record


def read_slice(disk: Disk, segment: Segment, offset: int, size: int) -> bytes:
    try:
        file = disk.open(segment.path)
        try:
            data = file.read_at(offset, size)
        finally:
            file.close()
    except OSError as error:
        raise TemporaryFailure(f"{os.fsdecode(segment.path)} cannot be read: {error.strerror}") from error
    if len(data) < size:
        raise TemporaryFailure(f"{os.fsdecode(segment.path)} ends at byte {offset + len(data)}")
    return data
