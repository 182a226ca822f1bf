"""What the journal on the disk says: read only, and the same however often it is read.

What verifies is true.  Damage behind what any later head attests as synced is a torn
write, which nobody was promised anything about: it is passed over.  Damage before that
stops the reading with `QueueDamaged`; with `salvage`, what verifies is kept, the damaged
file is named for setting aside, and each loss is a sentence in `reports`.
"""

import os
from collections.abc import Iterator
from typing import NoReturn

import msgspec

from openqmail.core.queue.index import Entry, Segment
from openqmail.core.queue.journal.records import (
    BATCH_MARK,
    BATCH_SIZE,
    HEAD_SIZE,
    Applied,
    BatchHead,
    Kept,
    Moved,
    Recorded,
    SegmentHead,
    Submitted,
    apply_changes,
    decode_batch_head,
    decode_record,
    decode_segment_head,
    holds,
    is_of_earlier_form,
    message_key,
    unpack_progress,
)
from openqmail.core.values import HomeError, QueueDamaged
from openqmail.core.world import Disk, File

SUFFIX = b".seg"
_WINDOW = 1024 * 1024


class Found:
    """The journal as it was found.

    `counts`: how much of the last segment holds; `attested`: how much was known to be synced.
    `sequence`: the next free one.  `kept`: results of mail in qmail's layout, in their order, that
    may not be in its files yet.
    `withdrawn`: keys of messages that have ended and may have files in the layout that are to go;
    `ended_large`: size and digest of bodies in files of their own whose messages have ended.
    `discard`: files that are no longer needed; `damaged`: those to be set aside.  Where there
    are `reports`, what was kept must be written anew before anything is set aside.
    """

    def __init__(self) -> None:
        self.queue = b""
        self.segments: list[Segment] = []
        self.entries: dict[int, Entry] = {}
        self.kept: list[Kept] = []
        self.withdrawn: dict[int, bytes] = {}
        self.ended_large: dict[int, tuple[int, bytes]] = {}
        self.counts = 0
        self.attested = 0
        self.sequence = 1
        self.discard: list[bytes] = []
        self.damaged: list[bytes] = []
        self.reports: list[str] = []


class _SegmentFile:
    """A file that is named like a segment."""

    def __init__(self, disk: Disk, path: bytes, sequence: int) -> None:
        self.path, self.sequence = path, sequence
        file = disk.open(path)
        try:
            self.size = file.size()
            start = file.read_at(0, HEAD_SIZE)
            self.head = decode_segment_head(start)
            self.is_of_earlier_form = is_of_earlier_form(start)
        finally:
            file.close()
        if self.head is not None and self.head.sequence != sequence:
            self.head = None

    @property
    def unborn(self) -> bool:
        """Its head never became durable, so nothing was ever written behind it."""
        return self.head is None and self.size <= HEAD_SIZE


def recover(disk: Disk, folder: bytes, salvage: bool = False) -> Found:
    """Read the journal in `folder`.  Raises QueueDamaged, OSError; changes nothing."""
    return _Reader(disk, folder, salvage).read()


class _Reader:
    def __init__(self, disk: Disk, folder: bytes, salvage: bool) -> None:
        self._disk, self._folder, self._salvage = disk, folder, salvage
        self._found = Found()
        self._kept: list[tuple[Kept, tuple[int, int]]] = []

    def read(self) -> Found:
        found = self._found
        files = {file.sequence: file for file in self._files()}
        for file in files.values():
            if file.is_of_earlier_form:
                raise HomeError(
                    f"{os.fsdecode(file.path)} was written by an earlier version; empty the queue with that "
                    "version (openqmail 0.1), then start this one"
                )
        found.sequence = max(files, default=0) + 1
        chain = self._chain(files)
        needed = {file.sequence for file, _, _ in chain}
        found.discard = [file.path for file in files.values() if file.sequence not in needed]
        found.discard = [path for path in found.discard if path not in found.damaged]
        for file, head, counts in chain:
            self._segment(file, head, counts)
        for entry in found.entries.values():
            if entry.segment is not None:
                entry.segment.live += 1
        found.kept = [record for record, _ in self._kept]
        return found

    def _files(self) -> Iterator[_SegmentFile]:
        for name in sorted(self._disk.names(self._folder)):
            stem = name.removesuffix(SUFFIX)
            if name.endswith(SUFFIX) and len(stem) == 16 and not stem.strip(b"0123456789abcdef"):
                yield _SegmentFile(self._disk, os.path.join(self._folder, name), int(stem, 16))

    # --- which segments, and how much of each ---------------------------------------------

    def _chain(self, files: dict[int, _SegmentFile]) -> list[tuple[_SegmentFile, SegmentHead, int | None]]:
        """From the newest back by what each head says of the one before; oldest first."""
        chain: list[tuple[_SegmentFile, SegmentHead, int | None]] = []
        rest = sorted(sequence for sequence, file in files.items() if not file.unborn)
        at = rest[-1] if rest else 0
        counts: int | None = None
        oldest = 0
        while at and at >= oldest:
            file = files.get(at)
            if file is None or file.head is None:
                path = os.path.join(self._folder, b"%016x.seg" % at)
                if file is None:
                    self._damage(path, "is missing")
                else:
                    self._damage(path, "is damaged at byte 0 (its head)", aside=True)
                at = max((sequence for sequence in rest if sequence < at), default=0)
                counts = None
                continue
            head = file.head
            if not chain:
                self._found.queue, oldest = head.queue, head.oldest
            elif head.queue != self._found.queue:
                self._damage(file.path, "belongs to another queue", aside=True)
                break
            chain.append((file, head, counts))
            at, counts = head.previous, head.counts
        chain.reverse()
        return chain

    def _segment(self, file: _SegmentFile, head: SegmentHead, counts: int | None) -> None:
        found = self._found
        segment = Segment(file.path, file.sequence, head.nonce)
        found.segments.append(segment)
        data = self._disk.open(file.path)
        try:
            found.counts = self._batches(data, segment, counts)
        finally:
            data.close()

    def _batches(self, file: File, segment: Segment, counts: int | None) -> int:
        """Apply what verifies; up to where that is."""
        size = file.size()
        end = size if counts is None else counts
        offset, sequence = HEAD_SIZE, 0
        self._found.attested = 0
        while offset < end:
            head, payload = _read_batch(file, segment.nonce, offset, min(end, size))
            if head is not None and head.sequence == sequence:
                self._apply(segment, payload, offset + BATCH_SIZE)
                offset += BATCH_SIZE + head.length
                sequence += 1
                self._found.attested = max(self._found.attested, head.synced)
                continue
            attested = end if counts is not None else _attested(file, segment.nonce, offset, size)
            if attested <= offset:
                return offset
            self._damage(
                segment.path,
                f"is damaged at byte {offset}, and up to byte {attested} it was known to be on the disk",
                aside=True,
            )
            following = _next_batch(file, segment.nonce, offset + 1, min(end, size), sequence)
            if following is None:
                return offset
            offset, sequence = following
        return offset

    # --- what the records say -----------------------------------------------------------------

    def _apply(self, segment: Segment, payload: bytes, base: int) -> None:
        at = 0
        while at < len(payload):
            try:
                record, body, body_size = decode_record(payload, at)
            except ValueError as error:
                self._damage(segment.path, f"cannot be read from byte {base + at} on: {error}", aside=True)
                return
            if isinstance(record, Submitted):
                self._message(record, segment, base + at, body - at, body_size)
            elif isinstance(record, Recorded):
                self._result(record)
            elif isinstance(record, Kept):
                self._result_of_layout(record, (segment.sequence, base + at))
            elif isinstance(record, Moved):
                self._moved(record)
            else:
                self._applied(record)
            at = body + body_size

    def _message(self, record: Submitted, segment: Segment, offset: int, head: int, body: int) -> None:
        entry = Entry(record.number, record.birth, record.size, len(record.envelope.recipients), head, body)
        entry.key = record.key or message_key(segment.nonce, offset)
        entry.segment, entry.offset = segment, offset
        entry.due = record.due
        entry.again = True
        entry.digest = record.digest
        if record.progress:
            entry.progress = unpack_progress(record.progress)
        self._found.entries[record.number] = entry
        if isinstance(record.closes, Recorded):
            self._result(record.closes)
        elif record.closes is not None:
            self._result_of_layout(record.closes, (segment.sequence, offset))

    def _result(self, record: Recorded) -> None:
        if record.key:
            self._found.withdrawn[record.number] = record.key
        entry = self._found.entries.get(record.number)
        if entry is None:
            return  # of a message whose segment was dropped
        if record.ended:
            del self._found.entries[record.number]
            if entry.large:
                self._found.ended_large[record.number] = entry.size, entry.digest
            return
        entry.due = record.due
        entry.progress = {} if entry.progress is None else entry.progress
        apply_changes(entry.progress, record)

    def _result_of_layout(self, record: Kept, place: tuple[int, int]) -> None:
        self._moved(record)  # nothing else has such results, should the word of that be damaged
        if record.waits:  # carried over from an older segment that may be there still
            self._kept = [one for one in self._kept if msgspec.structs.replace(one[0], waits=True) != record]
        self._kept.append((record, place))

    def _moved(self, record: Moved | Kept) -> None:
        self._found.withdrawn.pop(record.number, None)  # by now the files are another message's
        entry = self._found.entries.get(record.number)
        if entry is not None and entry.key == record.key:
            del self._found.entries[record.number]

    def _applied(self, record: Applied) -> None:
        place = record.sequence, record.offset
        self._kept = [kept for kept in self._kept if kept[1] > place or kept[0].waits]

    def _damage(self, path: bytes, what: str, aside: bool = False) -> None:
        if not self._salvage:
            self._stop(path, what)
        self._found.reports.append(f"{os.fsdecode(path)} {what}; kept what verifies")
        if aside and path not in self._found.damaged:
            self._found.damaged.append(path)

    def _stop(self, path: bytes, what: str) -> NoReturn:
        home = os.fsdecode(os.path.dirname(os.path.dirname(self._folder)))
        raise QueueDamaged(
            f"{os.fsdecode(path)} {what}; to set damaged files aside and go on with all that verifies: "
            f"openqmail --home {home} run --salvage"
        )


# --- reading batches ------------------------------------------------------------------------


def _read_batch(file: File, nonce: bytes, offset: int, end: int) -> tuple[BatchHead | None, bytes]:
    head = decode_batch_head(nonce, file.read_at(offset, BATCH_SIZE))
    if head is None or offset + BATCH_SIZE + head.length > end:
        return None, b""
    payload = file.read_at(offset + BATCH_SIZE, head.length)
    return (head, payload) if holds(nonce, head, payload) else (None, b"")


def _heads(file: File, nonce: bytes, offset: int, end: int) -> Iterator[tuple[int, BatchHead]]:
    """Every batch head of this segment's writer that begins in offset..end."""
    while offset < end:
        window = file.read_at(offset, min(_WINDOW, end - offset) + BATCH_SIZE)
        at = window.find(BATCH_MARK)
        while 0 <= at < _WINDOW:
            head = decode_batch_head(nonce, window[at : at + BATCH_SIZE])
            if head is not None:
                yield offset + at, head
            at = window.find(BATCH_MARK, at + 1)
        offset += _WINDOW


def _attested(file: File, nonce: bytes, offset: int, end: int) -> int:
    """Up to where a head behind `offset` says that the segment was synced."""
    return max((head.synced for _, head in _heads(file, nonce, offset, end)), default=0)


def _next_batch(file: File, nonce: bytes, offset: int, end: int, sequence: int) -> tuple[int, int] | None:
    """The next whole batch behind a damaged one: its offset and sequence."""
    for at, head in _heads(file, nonce, offset, end):
        if head.sequence > sequence and _read_batch(file, nonce, at, end)[0] is not None:
            return at, head.sequence
    return None
