"""The journal's form on the disk: segment heads, batch heads and records, as pure functions.

A segment is a head of `HEAD_SIZE` bytes and then batches; a batch is a head of
`BATCH_SIZE` bytes and then records; a record is two lengths, a msgpack head and, for a
message, its body as it is.  Bodies are written by strangers, so every digest of a batch
is keyed with its segment's nonce, which no stranger sees: what looks like a batch inside
of a body never verifies.  All numbers are big-endian.  Nothing here touches a disk.
"""

from collections.abc import Callable
from hashlib import blake2b
from struct import Struct
from typing import Any, TypeVar

import msgspec

from openqmail.core.queue.store import Change, Due, Progress
from openqmail.core.values import Envelope, Outcome

MAX_RECORD = 16 * 1024 * 1024
"""No record is longer; a longer body goes through a file of its own."""

MAX_BATCH = 2 * MAX_RECORD
"""No batch is longer, so that reading one never takes more memory than that."""

MAX_CHANGES = 1024 * 1024
"""About how many bytes of changes one record has; more are several records."""

BATCH_MARK = b"\xf1oqB"

_SEGMENT_MARK = b"oqmail\x00\x02"
_SEGMENT_OLD = b"oqmail\x00\x01"
_SEGMENT = Struct(">8s16s16sQQQQ")
_BATCH = Struct(">4sQIQ32s")
_RECORD = Struct(">II")
_MAC = 16

HEAD_SIZE = _SEGMENT.size + 32
BATCH_SIZE = _BATCH.size + _MAC


class TooLong(AssertionError):
    """A batch that recovery would refuse: whoever made it is at fault, and it is not written."""


class SegmentHead(msgspec.Struct, frozen=True, gc=False):
    """The beginning of a segment; durable before anything behind it is written.

    Of the segment before it, `previous` (0: there is none), the first `counts` bytes hold;
    segments below `oldest` are no longer needed.
    """

    queue: bytes
    nonce: bytes
    sequence: int
    previous: int
    counts: int
    oldest: int


class BatchHead(msgspec.Struct, frozen=True, gc=False):
    """What stands before the records that were written together.

    `synced`: up to where this segment was known to be on the disk at that time.
    """

    sequence: int
    length: int
    synced: int
    digest: bytes


class Recorded(msgspec.Struct, frozen=True, array_like=True, tag="R"):
    """What became of recipients: (position, letter, text) of each change.

    `key`: of a message that has ended while files of it may be in the layout: they are to go."""

    number: int
    changes: tuple[tuple[int, str, bytes], ...]
    due: Due
    ended: bool
    key: bytes = b""


class Kept(msgspec.Struct, frozen=True, array_like=True, tag="K"):
    """The same of a message in qmail's layout: (channel, place in its file, letter, text).

    A number comes again, so it applies only where `info` has this `key`.  A `due` of 0 leaves a
    time as it is.  `waits`: `info` could not be read when it should have been applied."""

    number: int
    key: bytes
    changes: tuple[tuple[str, int, str, bytes], ...]
    due: Due
    ended: bool
    waits: bool = False


class Moved(msgspec.Struct, frozen=True, array_like=True, tag="M"):
    """The message is in qmail's layout, durable: from here on that is right."""

    number: int
    key: bytes


class Applied(msgspec.Struct, frozen=True, array_like=True, tag="A"):
    """Every `Kept` up to the one at `offset` of segment `sequence` is in qmail's files, durable, but
    those that wait."""

    sequence: int
    offset: int


class Submitted(msgspec.Struct, frozen=True, array_like=True, tag="S"):
    """A message.  `key` is empty where it follows from the place of the record (`message_key`).

    `digest`: BLAKE2b of a body that has a file of its own.  `progress` (position, letter or "",
    attempts, text) and `due` are there for a message that is carried over from an older segment.
    """

    number: int
    birth: int
    size: int
    envelope: Envelope
    digest: bytes = b""
    closes: Recorded | Kept | None = None
    key: bytes = b""
    progress: tuple[tuple[int, str, int, bytes], ...] = ()
    due: Due = (0, 0)


Record = Submitted | Recorded | Kept | Moved | Applied
Result = TypeVar("Result", Recorded, Kept)

_LETTERS = {outcome: outcome.value.decode() for outcome in Outcome}
_OUTCOMES = {letter: outcome for outcome, letter in _LETTERS.items()}
_encode = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)


def message_key(nonce: bytes, offset: int) -> bytes:
    """The key of a message whose record begins at `offset` of this segment: 24 bytes that never
    occur twice, as numbers do."""
    return nonce + offset.to_bytes(8, "big")


# --- heads ----------------------------------------------------------------------------


def encode_segment_head(head: SegmentHead) -> bytes:
    """The first `HEAD_SIZE` bytes of a segment."""
    data = _SEGMENT.pack(
        _SEGMENT_MARK,
        head.queue,
        head.nonce,
        head.sequence,
        head.previous,
        head.counts,
        head.oldest,
    )
    return data + blake2b(data, digest_size=32).digest()


def decode_segment_head(data: bytes) -> SegmentHead | None:
    """None when it is not a whole and undamaged head."""
    if len(data) < HEAD_SIZE or not data.startswith(_SEGMENT_MARK):
        return None
    fields, digest = data[: _SEGMENT.size], data[_SEGMENT.size : HEAD_SIZE]
    if blake2b(fields, digest_size=32).digest() != digest:
        return None
    return SegmentHead(*_SEGMENT.unpack(fields)[1:])


def is_of_earlier_form(data: bytes) -> bool:
    """Whether a segment was begun by a version from before qmail's layout was there."""
    return data.startswith(_SEGMENT_OLD)


def encode_batch_head(nonce: bytes, sequence: int, payload: bytes, synced: int) -> bytes:
    """The `BATCH_SIZE` bytes before `payload`.  Raises TooLong."""
    if len(payload) > MAX_BATCH:
        raise TooLong(f"a batch of {len(payload)} bytes is longer than {MAX_BATCH} and was not written")
    digest = blake2b(payload, digest_size=32, key=nonce).digest()
    data = _BATCH.pack(BATCH_MARK, sequence, len(payload), synced, digest)
    return data + blake2b(data, digest_size=_MAC, key=nonce).digest()


def decode_batch_head(nonce: bytes, data: bytes) -> BatchHead | None:
    """None when these bytes are no head that this segment's writer made."""
    if len(data) < BATCH_SIZE or not data.startswith(BATCH_MARK):
        return None
    fields, mac = data[: _BATCH.size], data[_BATCH.size : BATCH_SIZE]
    if blake2b(fields, digest_size=_MAC, key=nonce).digest() != mac:
        return None
    _, sequence, length, synced, digest = _BATCH.unpack(fields)
    return BatchHead(sequence, length, synced, digest) if length <= MAX_BATCH else None


def holds(nonce: bytes, head: BatchHead, payload: bytes) -> bool:
    """Whether the payload is the one that the head was made for."""
    if len(payload) != head.length:
        return False
    return blake2b(payload, digest_size=32, key=nonce).digest() == head.digest


# --- records --------------------------------------------------------------------------


def encode_record(record: Record, body_size: int = 0) -> bytes:
    """A record up to where its body of `body_size` bytes begins."""
    head = _encode(record)
    return _RECORD.pack(len(head), body_size) + head


def decode_record(data: bytes, offset: int = 0) -> tuple[Record, int, int]:
    """The record at `offset` of a batch's payload: itself, where its body begins, and the
    body's size.  Raises ValueError when it is not one."""
    if len(data) - offset < _RECORD.size:
        raise ValueError("a record is cut short")
    head_size, body_size = _RECORD.unpack_from(data, offset)
    body = offset + _RECORD.size + head_size
    if body + body_size > len(data):
        raise ValueError("a record is longer than its batch")
    return decode_head(data[offset:body]), body, body_size


def decode_head(data: bytes) -> Record:
    """The record whose two lengths and head these bytes are.  Raises ValueError."""
    try:
        return _decoder.decode(memoryview(data)[_RECORD.size :])
    except msgspec.MsgspecError as error:
        raise ValueError(f"a record is of an unknown form ({error})") from error


# --- changes and progress ---------------------------------------------------------------


def recorded(number: int, changes: tuple[Change, ...], due: Due, ended: bool, key: bytes = b"") -> Recorded:
    """The record of these changes."""
    told = [(change.position, *_told(change)) for change in changes]
    return Recorded(number, tuple(told), due, ended, key)


def kept(
    number: int,
    key: bytes,
    changes: tuple[Change, ...],
    place: Callable[[int], tuple[str, int]],
    due: Due,
    ended: bool,
) -> Kept:
    """The record of changes to a message in qmail's layout; `place`: of a recipient's position, its
    list and its place there."""
    told = [(*place(one.position), *_told(one)) for one in changes]
    return Kept(number, key, tuple(told), due, ended)


def _told(change: Change) -> tuple[str, bytes]:
    """Its letter and text; a NUL in a report would look like a hole in `bounce/N`."""
    return _LETTERS[change.outcome], change.text.replace(b"\0", b"?")


def split(record: Result) -> list[Result]:
    """The same as several of about `MAX_CHANGES` bytes at most, in order; the last one ends the message."""
    if not record.changes:
        return [record]
    runs: list[list[tuple[Any, ...]]] = []
    room = 0
    for change in record.changes:
        room -= len(change[-1]) + 32
        if room < 0 or not runs:
            runs.append([])
            room = MAX_CHANGES - len(change[-1]) - 32
        runs[-1].append(change)
    *before, last = [msgspec.structs.replace(record, changes=tuple(run)) for run in runs]
    return [*(msgspec.structs.replace(one, ended=False) for one in before), last]


def apply_changes(progress: dict[int, Progress], record: Recorded) -> None:
    """Bring the progress of some recipients up to date; failures stand in the order in which
    they occurred."""
    for position, letter, text in record.changes:
        before = progress.pop(position, None)
        attempts = before.attempts + 1 if before else 1
        outcome = _OUTCOMES[letter]
        progress[position] = Progress(None if outcome is Outcome.DEFERRAL else outcome, attempts, text)


def bounce_of(progress: dict[int, Progress]) -> bytes:
    """The paragraphs of all failures."""
    return b"".join([one.text for one in progress.values() if one.outcome is Outcome.FAILURE])


def pack_progress(progress: dict[int, Progress]) -> tuple[tuple[int, str, int, bytes], ...]:
    """Progress as a carried message's record has it."""
    return tuple(
        (position, _LETTERS[one.outcome] if one.outcome else "", one.attempts, one.text)
        for position, one in progress.items()
    )


def unpack_progress(packed: tuple[tuple[int, str, int, bytes], ...]) -> dict[int, Progress]:
    """The reverse."""
    return {
        position: Progress(_OUTCOMES[letter] if letter else None, attempts, text)
        for position, letter, attempts, text in packed
    }
