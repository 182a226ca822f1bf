"""The journal's writer: segments, batches, syncs, and what happens when the disk refuses.

It blocks, knows neither loop nor thread, and belongs to whoever calls it.  What it
promises: an item is settled only when it is durable or has failed; a failed sync is
never tried again as if it had worked; results are never refused.  A segment is unlinked
only after a synced head has said that it is no longer needed, so that no order in which
unlinks reach the disk brings an ended message back.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Sequence

import msgspec

from openqmail.core.queue.index import Entry, Segment
from openqmail.core.queue.journal.records import (
    BATCH_SIZE,
    HEAD_SIZE,
    MAX_BATCH,
    SegmentHead,
    encode_batch_head,
    encode_segment_head,
    message_key,
)
from openqmail.core.values import OpenqmailError, QueueFull, TemporaryFailure
from openqmail.core.world import Clock, Disk, File

FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
"""Errors that mean: no room now, room perhaps later."""

RESERVE = b"reserve"
_NO_ROOM = "the queue's file system is full"


class JournalLost(OpenqmailError):
    """Nothing can be made durable any more; the process must end."""


class Item(msgspec.Struct, eq=False):
    """Something to be written.  `entry`: the message it adds; `ends`: the one that needs the journal
    no more.  `pins`: it is needed until `Journal.unpin`, in the segment that `pinned` then tells.

    `submission`: may fail, its sender tries again; one with `closes` also has the reserve.
    `settled` is called with it, in the loop, when it is durable or has failed: `error` is why.
    """

    data: bytes
    body: bytes = b""
    entry: Entry | None = None
    ends: Entry | None = None
    pins: bool = False
    pinned: Segment | None = None
    submission: bool = False
    closes: bool = False
    settled: Callable[["Item"], None] | None = None
    error: OpenqmailError | None = None
    offset: int = 0


class Journal:
    """`begin` first, then `commit` as often as there is something, then `end`."""

    def __init__(
        self,
        disk: Disk,
        clock: Clock,
        folder: bytes,
        queue: bytes,
        limit: int,
        reserve: int,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._disk = disk
        self._clock = clock
        self._entropy = entropy
        self._folder = folder
        self._queue = queue
        self._limit = limit
        self.reserve_size = reserve
        self._segments: list[Segment] = []
        self._segment = Segment(b"", 0, b"")
        self._file: File | None = None
        self._end = self._synced = 0
        self._batch = 0
        self._sequence = 1
        self._unsynced: list[Item] = []
        self.held: list[Item] = []
        """Results that found no room; the next commit tries them again."""
        self.reserved = False

    def begin(self, segments: Sequence[Segment], counts: int, sequence: int) -> None:
        """Start a segment after those that are there: of the last one, `counts` bytes hold.

        `sequence`: the next one that is free.  Raises OSError."""
        self._segments = list(segments)
        self._segment = self._segments[-1] if self._segments else self._segment
        self._sequence = sequence
        try:
            self._start_segment(counts)
        except OSError as error:
            if error.errno not in FULL:
                raise
            self.reserved = True  # if it is there
            self._free_reserve()
            self._start_segment(counts)
        self.make_reserve()

    def commit(self, items: Sequence[Item], sync: bool, drop: bool = False) -> list[Item]:
        """Write `items`; the ones that are settled by now (earlier ones too).  `drop`: go on in a new
        segment, if that lets older ones go.

        Raises JournalLost."""
        settled: list[Item] = []
        batch = [*self.held, *items] if self.held else items
        self.held = []
        for run, size in _runs(batch):
            if self.held:  # nothing may stand before what waits for room
                self._hold_back(run, settled)
            else:
                self._write(run, size, settled)
        if sync and self._unsynced:
            self._sync(settled)
        if drop:
            self._drop(settled)
        return settled

    def end(self) -> list[Item]:
        """Sync all, and say in the file that all is synced, so that damage to it shows."""
        settled = self.commit((), True)
        try:
            if not any(segment.live for segment in self._segments):
                self.roll(settled)  # an empty segment is all that stays
            self._append(())
            if self._file is not None:
                self._file.sync()
                self._file.close()
        except OSError:
            pass  # what was promised is durable without that word
        self._file = None
        return settled

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The segments still needed, oldest first; the last one is written to."""
        return tuple(self._segments)

    def unpin(self, segments: Sequence[Segment]) -> None:
        """What pinned these (once for each time that one is named) is durable elsewhere."""
        for segment in segments:
            segment.live -= 1

    # --- a batch ------------------------------------------------------------------------

    def _write(self, batch: Sequence[Item], size: int, settled: list[Item]) -> None:
        try:
            if HEAD_SIZE < self._end > self._limit - BATCH_SIZE - size:
                self.roll(settled)
            self._append(batch)
        except OSError as error:
            if error.errno in FULL:
                self._write_what_must_be(batch, settled)
            else:
                self._unsynced.extend(batch)
                self._renew(settled, error)

    def _append(self, batch: Sequence[Item]) -> None:
        """One batch at the end of the file; on an error the file is as before, or OSError
        of another kind than FULL says that nobody knows."""
        if self._file is None:
            raise OSError(errno.EIO, "no segment is open")
        offset = self._end + BATCH_SIZE
        pieces: list[bytes] = []
        for item in batch:
            item.offset = offset
            data, body = item.data, item.body
            offset += len(data) + len(body)
            pieces.append(data)
            if body:
                pieces.append(body)
        payload = b"".join(pieces)
        head = encode_batch_head(self._segment.nonce, self._batch, payload, self._synced)
        try:
            self._file.append((head, payload))
        except OSError as error:
            if error.errno in FULL:
                try:
                    self._file.truncate(self._end)
                except OSError as worse:
                    raise OSError(errno.EIO, f"a half-written batch stays: {worse.strerror}") from worse
            raise
        self._end = offset
        self._batch += 1
        self._unsynced.extend(batch)

    def _sync(self, settled: list[Item]) -> None:
        try:
            assert self._file is not None
            self._file.sync()
        except OSError as error:
            self._renew(settled, error)
            return
        self._facts(settled)
        if not self.reserved and not self.held:
            self.make_reserve()

    def _facts(self, settled: list[Item]) -> None:
        """All that is in the file is durable."""
        self._synced = self._end
        segment = self._segment
        for item in self._unsynced:
            entry = item.entry
            if entry is not None:
                if not entry.key:
                    entry.key = message_key(segment.nonce, item.offset)
                entry.segment, entry.offset = segment, item.offset
                segment.live += 1
            if item.pins:
                item.pinned = segment
                segment.live += 1
            if item.ends is not None and item.ends.segment is not None:
                item.ends.segment.live -= 1
        settled.extend(self._unsynced)
        self._unsynced = []

    # --- segments -----------------------------------------------------------------------

    def roll(self, settled: list[Item], *, empty: bool = False) -> None:
        """Go on in a new segment; `empty`: even if nothing was written to the old one, as its head says what
        is not so any more.  Raises OSError, and is then still in the old one."""
        if self._unsynced:
            self._sync(settled)
        if empty or self._end > HEAD_SIZE:
            self._start_segment(self._end)

    def _drop(self, settled: list[Item]) -> None:
        """Let the oldest segments go, if they are not needed: even the one that is written to."""
        if self._unsynced:
            self._sync(settled)
        if self._segments[0].live or self._end <= HEAD_SIZE:
            return
        for has_reserve in (self.reserved, False):
            try:
                self.roll(settled)
            except OSError as error:
                if error.errno not in FULL:
                    self._renew(settled, error)
                elif has_reserve:
                    self._free_reserve()
                    continue
            break
        if not self.reserved and not self.held:
            self.make_reserve()

    def _start_segment(self, counts: int) -> None:
        """`counts`: how much of the segment so far holds.  Raises OSError."""
        sequence = self._sequence
        self._sequence += 1
        path = os.path.join(self._folder, b"%016x.seg" % sequence)
        new = Segment(path, sequence, self._entropy(16), self._clock.monotonic())
        needed = next((segment.sequence for segment in self._segments if segment.live), sequence)
        head = SegmentHead(self._queue, new.nonce, sequence, self._segment.sequence, counts, needed)
        file = self._disk.create(new.path)
        try:
            file.append((encode_segment_head(head),))
            file.sync()
            self._disk.sync_folder(self._folder)
        except OSError as error:
            file.close()
            self._withdraw(new.path, error)
            raise
        if self._file is not None:
            self._file.close()
        self._segment, self._file = new, file
        self._end = self._synced = HEAD_SIZE
        self._batch = 0
        for old in self._segments:
            if old.sequence < needed:
                with contextlib.suppress(OSError):  # recovery passes over it, and removes it
                    self._disk.unlink(old.path)
        self._segments = [*(old for old in self._segments if old.sequence >= needed), new]

    def _withdraw(self, path: bytes, cause: OSError) -> None:
        """A segment that could not be started must not come back: its head would cut off
        what is yet to be written to the one before.  Raises OSError, not one of FULL."""
        try:
            self._disk.unlink(path)
            self._disk.sync_folder(self._folder)
        except OSError as error:
            raise OSError(errno.EIO, cause.strerror) from error

    # --- when the disk refuses ------------------------------------------------------------

    def _renew(self, settled: list[Item], cause: OSError) -> None:
        """A sync or write failed: nobody knows what of it is on the disk.  A new segment
        says how much of the old one holds, and has the results again."""
        failed, self._unsynced = self._unsynced, []
        results = [item for item in failed if not item.submission]
        if cause.errno in FULL:
            self._free_reserve()
        try:
            self._start_segment(self._synced)
            if results:
                self._write_again(results, settled)
        except OSError as error:
            raise JournalLost(
                f"the queue's journal cannot be written ({cause.strerror}), nor can a new segment of it "
                f"({error.strerror}); mail that was accepted is safe and is delivered after a restart"
            ) from error
        for item in failed:
            if item.submission:
                item.error = TemporaryFailure(f"the message could not be made durable: {cause.strerror}")
                settled.append(item)

    def _write_again(self, results: list[Item], settled: list[Item]) -> None:
        assert self._file is not None
        runs = [run for run, _ in _runs(results)]
        try:
            while runs:
                self._append(runs[0])
                del runs[0]
        except OSError as error:
            if error.errno not in FULL:
                raise
            self.held[:0] = [item for run in runs for item in run]
        self._file.sync()
        self._facts(settled)

    def _hold_back(self, batch: Sequence[Item], settled: list[Item]) -> None:
        for item in batch:
            if item.submission:
                item.error = QueueFull(_NO_ROOM)
                settled.append(item)
            else:
                self.held.append(item)

    def _write_what_must_be(self, batch: Sequence[Item], settled: list[Item]) -> None:
        """No room: refuse plain submissions, then those with `closes`; keep results."""
        self._free_reserve()
        for closing_too in (False, True):
            for item in batch:
                if item.submission and (closing_too or not item.closes):
                    item.error = QueueFull(_NO_ROOM)
                    settled.append(item)
            batch = [item for item in batch if item.error is None]
            if not batch:
                return
            try:
                self._append(batch)
                return
            except OSError as error:
                if error.errno not in FULL:
                    self._unsynced.extend(batch)
                    self._renew(settled, error)
                    return
        self.held.extend(batch)

    # --- the reserve ------------------------------------------------------------------------

    def make_reserve(self) -> None:
        """Set room aside for results and bounces, when there is enough of it."""
        path = os.path.join(self._folder, RESERVE)
        try:
            file = self._disk.open(path)
            self.reserved = file.size() >= self.reserve_size
            file.close()
        except OSError:
            self.reserved = False
        if self.reserved:
            return
        with contextlib.suppress(OSError):
            self._disk.unlink(path)
        try:
            if self._disk.room(self._folder)[0] < 4 * self.reserve_size:
                return
            file = self._disk.create(path)
            try:
                file.append((self._entropy(self.reserve_size),))  # so that nothing compresses it away
                file.sync()
                self.reserved = True
            finally:
                file.close()
        except OSError:
            with contextlib.suppress(OSError):
                self._disk.unlink(path)

    def _free_reserve(self) -> None:
        if self.reserved:
            self.reserved = False
            with contextlib.suppress(OSError):
                self._disk.unlink(os.path.join(self._folder, RESERVE))


def _runs(batch: Sequence[Item]) -> list[tuple[Sequence[Item], int]]:
    """`batch` in pieces that a batch on the disk may hold, and how many bytes each has."""
    size = 0
    runs: list[tuple[Sequence[Item], int]] = []
    start = 0
    for at, item in enumerate(batch):
        length = len(item.data) + len(item.body)
        if size + length > MAX_BATCH and at > start:
            runs.append((batch[start:at], size))
            start, size = at, 0
        size += length
    if start < len(batch):
        runs.append((batch[start:] if start else batch, size))
    return runs
