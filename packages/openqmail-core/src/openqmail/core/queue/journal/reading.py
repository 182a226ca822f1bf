"""Messages as the journal on the disk has them: read again by their place in it."""

import os

from openqmail.core.queue.body import FileBody
from openqmail.core.queue.index import Entry, Segment
from openqmail.core.queue.journal.records import Submitted, bounce_of, decode_head
from openqmail.core.queue.store import Progress, Stored
from openqmail.core.queue.unreadable import unreadable
from openqmail.core.values import Body, BytesBody, MessageId, QueueDamaged, TemporaryFailure
from openqmail.core.world import Disk

FRESH = Progress()


def stored(disk: Disk, entry: Entry) -> Stored:
    """Raises TemporaryFailure, QueueDamaged."""
    record = read_record(disk, entry)
    progress = entry.progress or {}
    recipients = range(len(record.envelope.recipients))
    return Stored(
        MessageId(entry.number, entry.key),
        entry.birth,
        entry.size,
        record.envelope,
        tuple([progress.get(position, FRESH) for position in recipients]),
        entry.due,
        entry.again,
        (),
        bounce_of(progress),
    )


def body_of(disk: Disk, entry: Entry, mess: bytes) -> Body:
    """Where the body of a message lies: in a file of its own, which is `mess`, or behind its record."""
    if entry.large:
        return FileBody(disk, mess, 0, entry.size, entry.digest)
    return BytesBody(small_body(disk, entry))


def small_body(disk: Disk, entry: Entry) -> bytes:
    """Raises TemporaryFailure."""
    body = entry.body  # the loop may let go of it just now
    if body is not None:
        return body
    assert entry.segment is not None
    return read_slice(disk, entry.segment, entry.offset + entry.head_size, entry.body_size)


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
    """Raises TemporaryFailure."""
    try:
        file = disk.open(segment.path)
        try:
            data = file.read_at(offset, size)
        finally:
            file.close()
    except OSError as error:
        raise TemporaryFailure(unreadable(segment.path, error)) from error
    if len(data) < size:
        raise TemporaryFailure(f"{os.fsdecode(segment.path)} ends at byte {offset + len(data)}")
    return data
