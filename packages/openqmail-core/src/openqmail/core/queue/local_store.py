"""The queue of one host: a `QueueStore` on a local disk, in the folder `queue/`.

Mail lies in the journal, `queue/journal/`, from the moment it is accepted until it has
ended; a large body in a file beside it.  In memory there is one `Entry` a message, and
the bodies of fresh small ones up to a budget.  Two stores on one folder at a time are
the caller's to prevent.
"""

import asyncio
import contextlib
import os
from asyncio import AbstractEventLoop, Future
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import msgspec

from openqmail.core.ports import LARGE, LargeBody, QueueTotals
from openqmail.core.queue.commit import Committer
from openqmail.core.queue.index import Entry
from openqmail.core.queue.journal import Item, Journal, JournalLost
from openqmail.core.queue.large import LargeFolder, LargeWriter
from openqmail.core.queue.reading import FRESH, body_of, stored
from openqmail.core.queue.records import (
    MAX_RECORD,
    LargeFile,
    Recorded,
    Submitted,
    apply_changes,
    encode_record,
    recorded,
)
from openqmail.core.queue.recovery import Found, recover
from openqmail.core.queue.salvage import carry_over
from openqmail.core.queue.store import Change, Stored
from openqmail.core.values import (
    Body,
    BytesBody,
    Envelope,
    HomeError,
    MessageId,
    OpenqmailError,
    PermanentFailure,
    QueueFull,
)
from openqmail.core.world import Clock, Disk

Closes = tuple[int, tuple[Change, ...], bool]

_MIB = 1024 * 1024


class Limits(msgspec.Struct, frozen=True):
    """What the store keeps to.  `segment` and `reserve` in bytes; smaller on a small disk."""

    segment: int = 64 * _MIB
    reserve: int = 4 * _MIB
    memory: int = 32 * _MIB
    watermark: float = 0.10
    room_every: float = 1.0


class LocalStore:
    """See `QueueStore`.

    `on_fatal` is called in the loop when nothing can be made durable any more: the process
    should end.  `salvage`: go on with what verifies of a damaged journal.  `report` gets a
    sentence for each loss, and when the disk is full and when it is not any more.
    """

    def __init__(
        self,
        disk: Disk,
        clock: Clock,
        folder: bytes,
        on_fatal: Callable[[OpenqmailError], None],
        *,
        salvage: bool = False,
        report: Callable[[str], None] = lambda sentence: None,
        limits: Limits | None = None,
        loop: AbstractEventLoop | None = None,
    ) -> None:
        self._disk = disk
        self._clock = clock
        self._queue_folder = folder
        self._folder = os.path.join(folder, b"journal")
        self._on_fatal = on_fatal
        self._salvage = salvage
        self._report = report
        self._limits = limits or Limits()
        self._given_loop = loop
        self._entries: dict[int, Entry] = {}
        self._next = 1
        self._memory = 0
        self._room_at = float("-inf")
        self._is_full = False
        self._loop: AbstractEventLoop
        self._committer: Committer
        self._large: LargeFolder
        self._threads: ThreadPoolExecutor

    # --- opening and closing --------------------------------------------------------------

    def open(self) -> Iterable[tuple[int, int]]:
        """Recover what is there: (number, due) of every message, oldest first.  Blocks.

        Raises QueueDamaged, HomeError."""
        self._loop = self._given_loop or asyncio.get_running_loop()
        try:
            self._make_folders()
            found = recover(self._disk, self._folder, self._salvage)
            journal = self._start(found)
        except (OSError, JournalLost) as error:
            why = error.strerror if isinstance(error, OSError) else error
            where = os.fsdecode(self._queue_folder)
            raise HomeError(
                f"the queue in {where} cannot be opened: {why}; mend its modes, or make room"
            ) from error
        self._entries = found.entries
        self._next = found.number
        self._threads = ThreadPoolExecutor(4, "large")
        large = os.path.join(self._folder, b"large")
        self._large = LargeFolder(self._disk, large, self._loop, self._threads, self._full)
        self._large.sweep({entry.large.name for entry in found.entries.values() if entry.large})
        self._committer = Committer(self._loop, journal, self._settle, self._on_fatal)
        self._committer.start()
        return [(number, self._entries[number].due) for number in self.numbers()]

    async def close(self) -> None:
        """Write and sync everything, and let go of the disk."""
        await self._committer.close()
        await self._loop.run_in_executor(None, self._threads.shutdown)

    def _make_folders(self) -> None:
        try:
            self._disk.names(self._queue_folder)
        except FileNotFoundError:
            where = os.fsdecode(self._queue_folder)
            raise HomeError(f"there is no queue at {where}; make a home with: openqmail init") from None
        for folder in (self._folder, os.path.join(self._folder, b"large")):
            with contextlib.suppress(FileExistsError):
                self._disk.mkdir(folder)
            self._disk.sync_folder(os.path.dirname(folder))

    def _start(self, found: Found) -> Journal:
        """A journal that goes on where the one that was found ends."""
        total = self._disk.room(self._folder)[1]
        limit = min(self._limits.segment, max(total // 16, _MIB))
        journal = Journal(
            self._disk,
            self._folder,
            found.queue or os.urandom(16),
            limit,
            min(self._limits.reserve, limit // 4),
        )
        if found.reports:
            for segment in found.segments:
                segment.live += 1  # none may go before what it holds is carried over
        journal.begin(found.segments, found.counts, found.sequence, found.number)
        if found.reports:
            carry_over(self._disk, self._folder, found, journal, self._limits.memory)
            for sentence in found.reports:
                self._report(sentence)
        for path in found.discard:
            with contextlib.suppress(OSError):
                self._disk.unlink(path)
        return journal

    # --- messages in ------------------------------------------------------------------------

    def large(self) -> LargeBody:
        return LargeWriter(self._large)

    def submit(
        self, envelope: Envelope, body: bytes | LargeBody, closes: Closes | None = None
    ) -> "Future[Stored]":
        future: Future[Stored] = self._loop.create_future()
        if isinstance(body, bytes):
            self._submit(future, envelope, body, len(body), None, None, closes)
        elif isinstance(body, LargeWriter):
            writer = body
            sealing = writer.finish()
            sealing.add_done_callback(lambda done: self._sealed(future, envelope, writer, done, closes))
        else:
            raise TypeError("a large body comes from this store's large()")
        return future

    def _sealed(
        self,
        future: "Future[Stored]",
        envelope: Envelope,
        writer: LargeWriter,
        done: "Future[LargeFile]",
        closes: Closes | None,
    ) -> None:
        error = done.exception()
        if error is None:
            self._submit(future, envelope, b"", writer.size, done.result(), writer, closes)
        elif not future.done():
            future.set_exception(error)

    def _submit(
        self,
        future: "Future[Stored]",
        envelope: Envelope,
        body: bytes,
        size: int,
        large: LargeFile | None,
        writer: LargeWriter | None,
        closes: Closes | None,
    ) -> None:
        if closes is None and self._full():
            self._refuse(future, writer, QueueFull("the queue's file system has too little room left"))
            return
        closing: Recorded | None = None
        ends: Entry | None = None
        if closes is not None:
            parent = self._live(closes[0])
            closing = recorded(closes[0], closes[1], parent.due, closes[2])
            ends = parent if closes[2] else None
        number = self._next
        self._next += 1
        birth = int(self._clock.now())
        data = encode_record(Submitted(number, birth, size, envelope, large, closing), len(body))
        if len(data) + len(body) > MAX_RECORD:
            why = f"the message is longer in the queue than {MAX_RECORD} bytes; have it streamed"
            self._refuse(future, writer, PermanentFailure(why))
            return
        entry = Entry(number, birth, size, len(envelope.recipients), len(data), len(body))
        if large is not None:
            entry.large = large
        elif len(body) < LARGE and self._memory + len(body) <= self._limits.memory:
            entry.body = body
            self._memory += len(body)
        context = (future, envelope, writer, closing)
        self._committer.add(Item(data, body, entry, ends, True, closing is not None, context))

    def _refuse(self, future: "Future[Stored]", writer: LargeWriter | None, error: OpenqmailError) -> None:
        if writer is not None:
            writer.discard()
        if not future.done():
            future.set_exception(error)

    def _full(self) -> bool:
        """Whether the watermark is reached; looks at the disk at most once a second."""
        now = self._clock.monotonic()
        if now - self._room_at >= self._limits.room_every:
            self._room_at = now
            with contextlib.suppress(OSError):
                free, total = self._disk.room(self._folder)
                self._note_room(free, free < total * self._limits.watermark)
        return self._is_full

    def _note_room(self, free: int, full: bool) -> None:
        if full != self._is_full:
            self._is_full = full
            what = "new mail is refused (452) until there is more" if full else "new mail is taken again"
            where = os.fsdecode(self._queue_folder)
            self._report(f"{free // _MIB} MiB are free on the file system of {where}: {what}")

    # --- results --------------------------------------------------------------------------

    def record(self, number: int, changes: tuple[Change, ...], due: int, ended: bool) -> "Future[None]":
        entry = self._live(number)
        record = recorded(number, changes, due, ended)
        future: Future[None] = self._loop.create_future()
        self._apply(entry, record)
        if ended:
            entry.ended = True
        elif due:
            self._forget_body(entry)
        item = Item(encode_record(record), b"", None, entry if ended else None, context=future)
        self._committer.add(item)
        return future

    def _apply(self, entry: Entry, record: Recorded) -> None:
        entry.due = record.due
        if record.changes:
            if entry.progress is None:
                entry.progress = {}
            apply_changes(entry.progress, record)

    def _live(self, number: int) -> Entry:
        entry = self._entries[number]
        if entry.ended:
            raise KeyError(number)
        return entry

    # --- what the journal says ----------------------------------------------------------------

    def _settle(self, items: list[Item]) -> None:
        """Items are durable, or have failed."""
        for item in items:
            if item.submission:
                self._settle_submission(item)
                continue
            future: Future[None] = item.context
            if item.error is not None:
                if not future.done():
                    future.set_exception(item.error)
                continue
            if item.ends is not None:
                self._gone(item.ends)
            if not future.done():
                future.set_result(None)

    def _settle_submission(self, item: Item) -> None:
        future, envelope, writer, closing = item.context
        entry = item.entry
        assert entry is not None
        if item.error is not None:
            self._forget_body(entry)
            # When the journal is lost its file may yet hold the message: recovery decides.
            self._refuse(future, writer if self._committer.error is None else None, item.error)
            return
        self._entries[entry.number] = entry
        if closing is not None:
            parent = self._entries.get(closing.number)
            if parent is not None:
                self._apply(parent, closing)
                if item.ends is not None:
                    self._gone(parent)
        if not future.done():
            progress = (FRESH,) * len(envelope.recipients)
            message = MessageId(entry.number, entry.key)
            future.set_result(Stored(message, entry.birth, entry.size, envelope, progress))

    def _gone(self, entry: Entry) -> None:
        if self._entries.pop(entry.number, None) is None:
            return
        entry.ended = True
        self._forget_body(entry)
        if entry.large is not None:
            self._large.remove(entry.large.name)

    def _forget_body(self, entry: Entry) -> None:
        if entry.body is not None:
            self._memory -= len(entry.body)
            entry.body = None

    # --- reading ----------------------------------------------------------------------------

    def load(self, number: int) -> Stored:
        """Raises KeyError for a number that is not queued, TemporaryFailure, QueueDamaged."""
        return stored(self._disk, self._entries[number])

    def body(self, number: int) -> Body:
        """Raises KeyError, TemporaryFailure."""
        entry = self._entries[number]
        return BytesBody(entry.body) if entry.body is not None else body_of(self._disk, self._folder, entry)

    def numbers(self) -> Iterable[int]:
        """Every queued message, oldest first."""
        return sorted(self._entries)

    def totals(self) -> QueueTotals:
        entries = self._entries.values()
        return QueueTotals(
            messages=len(entries),
            recipients=sum(entry.recipients for entry in entries),
            deferred=sum(entry.due > 0 for entry in entries),
            held=0,
            bytes=sum(entry.size for entry in entries),
        )
