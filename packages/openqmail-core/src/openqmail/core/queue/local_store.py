"""The queue of one host: a `QueueStore` on a local disk, in the folder `queue/`.

Mail lies in the journal, `queue/journal/`, from the moment it is accepted; most of it ends
there within a second.  What stays moves to qmail's layout beside it (`departures`, `keeper`).  In memory
there is one `Entry` or `Resident` a message, and the bodies of fresh small ones up to a budget.
Two stores on one folder at a time are the caller's to prevent.
"""

import asyncio
import os
from asyncio import AbstractEventLoop, Future, TimerHandle
from collections.abc import Callable, Iterable

from openqmail.core.ports import LARGE, LargeBody, QueueTotals
from openqmail.core.queue.body import FileBody
from openqmail.core.queue.departures import Departures
from openqmail.core.queue.index import Entry, Resident
from openqmail.core.queue.intake import Closing, Intake
from openqmail.core.queue.journal import FULL, Item, JournalLost
from openqmail.core.queue.journal.commit import Committer
from openqmail.core.queue.journal.reading import body_of, stored
from openqmail.core.queue.journal.records import (
    Kept,
    Recorded,
    apply_changes,
    encode_record,
    recorded,
    split,
)
from openqmail.core.queue.journal.recovery import recover
from openqmail.core.queue.journal.resuming import resume, write_again
from openqmail.core.queue.keeper import Keeper
from openqmail.core.queue.layout import paths
from openqmail.core.queue.layout.parts import parts
from openqmail.core.queue.layout.syncing import Syncer
from openqmail.core.queue.limits import Limits
from openqmail.core.queue.opening import Opening, check_journal, oldest_first
from openqmail.core.queue.pool import MOST, Pool
from openqmail.core.queue.room import Room
from openqmail.core.queue.store import Change, Closes, Due, Router, Stored
from openqmail.core.queue.turns import Turns
from openqmail.core.queue.unreadable import unreadable
from openqmail.core.values import (
    Body,
    BytesBody,
    Envelope,
    HomeError,
    OpenqmailError,
    QueueFull,
    TemporaryFailure,
)
from openqmail.core.world import Clock, Disk, ThreadWorkers, Workers

TRIES = 3
"""How often what fails is tried at the end, at once: what a sync was to keep is written anew."""


class LocalStore:
    """See `QueueStore`.

    `on_fatal` is called in the loop when nothing can be made durable any more: the process
    should end.  `route`: where a recipient goes.  `salvage`: go on with what verifies of a damaged
    journal.  `report` gets a sentence for each loss, and when the disk is full and when it is not
    any more.  `workers`: makes threads, by count and name; `entropy`: random bytes.
    """

    def __init__(
        self,
        disk: Disk,
        clock: Clock,
        folder: bytes,
        on_fatal: Callable[[OpenqmailError], None],
        *,
        route: Router,
        salvage: bool = False,
        report: Callable[[str], None] = lambda sentence: None,
        limits: Limits | None = None,
        loop: AbstractEventLoop | None = None,
        workers: Callable[[int, str], Workers] | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._disk = disk
        self._clock = clock
        self._queue_folder = folder
        self._folder = os.path.join(folder, b"journal")
        self._on_fatal = on_fatal
        self._route = route
        self._salvage = salvage
        self._report = report
        self._limits = limits or Limits()
        self._given_loop = loop
        self._make_workers = workers
        self._entropy = entropy
        self._entries: dict[int, Entry] = {}
        self._claims: list[Item] = []
        """Large messages that are durable, and whose files are just getting their names."""
        self._residents: dict[int, Resident] = {}
        self._odd: dict[int, str] = {}
        """Messages that cannot be delivered as they lie there, and why."""
        self._unreadable: set[int] = set()
        """Messages, or what was one, that could not be read when they were asked for last."""
        self._swept = float("-inf")
        self._timer: TimerHandle | None = None
        self._threads: list[Workers] = []
        self._loop: AbstractEventLoop
        self._committer: Committer
        self._room: Room
        self._syncers: list[Syncer] = []
        self._layout: paths.Layout
        self._pool: Pool
        self._intake: Intake
        self._turns: Turns
        self._keeper: Keeper
        self._departures: Departures

    # --- opening and closing --------------------------------------------------------------

    def open(self) -> Iterable[tuple[int, int]]:
        """Recover what is there: (number, when it is first due) of every message that is not held,
        oldest first.  Blocks.

        Raises QueueDamaged, HomeError, QueueFull."""
        self._loop = self._given_loop or asyncio.get_running_loop()
        try:
            self._open()
        except (OSError, JournalLost) as error:
            if isinstance(error, OSError) and error.errno in FULL:
                raise QueueFull(
                    f"the queue in {os.fsdecode(self._queue_folder)} cannot be opened: its file system is "
                    "full, the reserve is used up; make room and start again"
                ) from error
            path = getattr(error, "filename", None) or self._queue_folder
            raise HomeError(unreadable(os.fsencode(path), error)) from error
        self._timer = self._loop.call_later(self._limits.look_every, self._look_around)
        entries, residents = self._entries, self._residents
        return (
            (number, min(entries[number].due) or max(entries[number].due))
            if number in entries
            else (number, residents[number].due)
            for number in oldest_first(entries.values(), residents)
            if number in entries or not residents[number].held
        )

    def _open(self) -> None:
        disk, clock, loop = self._disk, self._clock, self._loop
        layout = self._layout = paths.prepare(disk, self._queue_folder)
        found = recover(disk, self._folder, self._salvage)
        write_again(disk, self._folder, found)  # first, as what follows acts on what it says
        if not self._salvage:
            check_journal(disk, self._queue_folder, found)
        found.queue = found.queue or self._entropy(16)
        files = parts(disk, clock, layout, self._route, self._report, self._entropy)
        opened = Opening(disk, layout, files, found, self._salvage).open()
        entries, residents = self._entries, self._residents = found.entries, opened.residents
        odd = self._odd = opened.odd
        syncer = Syncer(disk, clock, self._queue_folder)  # one for each thread that syncs
        self._syncers = [files.syncer, syncer]
        pool = self._pool = Pool(
            disk, layout, syncer, lambda number: number in residents or number in odd, self._limits.numbers
        )
        waiting = [Item(encode_record(record), pins=True) for record in opened.waiting]
        journal = resume(disk, clock, self._folder, found, waiting, self._limits, self._entropy)
        many = self._workers(4, "large")
        reports = opened.reports + pool.open(set(entries), many)
        committer = self._committer = Committer(
            loop, self._workers(1, "journal"), journal, self._settle, self._on_fatal
        )
        where = os.fsdecode(self._queue_folder)
        self._room = Room(disk, clock, self._queue_folder, self._limits, journal, committer, entries)
        turns = self._turns = Turns(loop, self._workers(1, "layout"), where, self._report)
        self._keeper = Keeper(
            disk,
            layout,
            found.queue,
            turns,
            committer,
            journal,
            pool,
            files,
            residents,
            entries.__contains__,
            self._claims,
        )
        for record, item in zip(opened.waiting, waiting, strict=True):
            self._keeper.wait(record, item)
        self._intake = Intake(
            loop,
            disk,
            clock,
            layout,
            self._limits,
            pool,
            many,
            committer,
            entries,
            self._claims,
            self._closing,
            self._closed,
            self._crowded,
            self._make_room,
            self._report,
        )
        self._departures = Departures(
            disk,
            turns,
            committer,
            pool,
            files.mover,
            self._keeper,
            entries,
            self._route,
            self._intake.forget_body,
            self._room,
        )
        self._departures.leave(pool.unreserved, 0.0)  # no stranger may come by such a number
        for sentence in (*found.reports, *reports):
            self._report(sentence)

    def _crowded(self) -> None:
        self._departures.leave(list(self._entries))

    def _workers(self, count: int, name: str) -> Workers:
        made = (
            self._make_workers(count, name) if self._make_workers else ThreadWorkers(self._loop, count, name)
        )
        self._threads.append(made)
        return made

    async def settle(self) -> int:
        """Move everything to where it can stay; how many messages could not be moved."""
        for _ in range(TRIES):
            await self._departures.all_leave()
            if self._turns.failed is None:
                break
        await self._keeper.tidy()
        return self.unsettled()

    def unsettled(self) -> int:
        """How many messages are still on their way there."""
        return len(self._entries) + len(self._claims) + self._keeper.unsettled

    async def close(self) -> None:
        """Write and sync everything, and let go of the disk."""
        if self._timer is not None:
            self._timer.cancel()
        await self._turns.stop()
        await self._committer.close()
        for workers in self._threads[:-1]:
            await workers.close()
        for syncer in self._syncers:
            syncer.close()

    # --- messages in ------------------------------------------------------------------------

    def large(self, closes: bool = False) -> LargeBody:
        return self._intake.large(closes)

    def submit(
        self, envelope: Envelope, body: bytes | LargeBody, closes: Closes | None = None
    ) -> "Future[Stored]":
        return self._intake.submit(envelope, body, closes)

    def _closing(self, closes: Closes) -> Closing:
        number = closes.number
        if number in self._residents:
            return self._keeper.kept(number, closes.changes, (0, 0), closes.ended, closes.routed), None
        parent = self._live(number)
        withdrawn = parent.key if closes.ended and parent.written else b""
        return recorded(number, closes.changes, parent.due, closes.ended, withdrawn), parent

    def _closed(self, closing: Recorded | Kept, changes: tuple[Change, ...], item: Item) -> None:
        if isinstance(closing, Kept):
            self._keeper.seen((closing,), changes)
            self._keeper.settled(closing, item)
            return
        parent = self._entries.get(closing.number)
        if parent is not None:
            self._apply(parent, closing)
            if item.ends is not None:
                parent.pinned = item.pinned if closing.key else None
                self._gone(parent)

    # --- results --------------------------------------------------------------------------

    def record(
        self, number: int, changes: tuple[Change, ...], due: Due, ended: bool, routed: bool = False
    ) -> "Future[None]":
        if number in self._residents:
            return self._keeper.record(number, changes, due, ended, routed)
        entry = self._live(number)
        withdrawn = entry.key if ended and entry.written else b""
        *before, last = records = split(recorded(number, changes, due, ended, withdrawn))
        future: Future[None] = self._loop.create_future()
        for one in records:
            self._apply(entry, one)
        if ended:
            entry.ended = True
        elif any(due):
            self._intake.forget_body(entry)

        def settled(item: Item) -> None:
            if item.error is not None:
                if not future.done():
                    future.set_exception(item.error)
                return
            if ended:
                entry.pinned = item.pinned
                self._gone(entry)
            elif any(due):
                self._departures.leave((number,))
            if not future.done():
                future.set_result(None)

        ends = entry if ended else None
        pins = bool(withdrawn)
        for one in before:
            self._committer.add(Item(encode_record(one)))
        self._committer.add(Item(encode_record(last), b"", None, ends, pins, settled=settled))
        return future

    def _apply(self, entry: Entry, record: Recorded) -> None:
        entry.due = record.due
        entry.changed = True
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
            if item.settled is not None:
                try:
                    item.settled(item)
                except Exception as error:  # a fault of ours: the others are not to suffer
                    self._report(f"the queue is at fault, please tell its developers: {error!r}")

    def _gone(self, entry: Entry) -> None:
        if self._entries.pop(entry.number, None) is None:
            return
        entry.ended = True
        self._intake.forget_body(entry)
        self._departures.ended(entry)

    # --- mail that stays --------------------------------------------------------------------

    def hold(self, number: int, reason: str) -> "Future[None]":
        return self._loop.create_task(self._hold(number, reason))

    async def _hold(self, number: int, reason: str) -> None:
        await self._departures.leaves(number)
        await self._keeper.hold(number, reason)

    def release(self, number: int) -> "Future[None]":
        return self._loop.create_task(self._keeper.release(number))

    def arrivals(self, arrived: Callable[[Stored], None]) -> None:
        self._keeper.arrivals(arrived)

    def look(self) -> None:
        self._keeper.look()

    def _look_around(self) -> None:
        """Room is made; litter goes once a day."""
        self._timer = self._loop.call_later(self._limits.look_every, self._look_around)
        self._make_room()
        self._keeper.look()
        now = self._clock.monotonic()
        if now - self._swept > self._limits.sweep_every:
            self._swept = now
            self._keeper.sweep()

    def _make_room(self) -> None:
        """What pins segments that should go moves out."""
        pinning = self._room.make()
        crowded = self._pool.out > MOST * 3 // 4
        leaving = [
            number
            for number, entry in self._entries.items()
            if crowded or (entry.segment is not None and entry.segment.sequence in pinning)
        ]
        if leaving:
            self._departures.leave(leaving)
        self._keeper.carry(pinning)

    # --- reading ----------------------------------------------------------------------------

    def load(self, number: int) -> Stored:
        """Raises KeyError for a number that is not queued, TemporaryFailure, QueueDamaged."""
        try:
            found = self._load(number)
        except (OSError, OpenqmailError):
            self._unreadable.add(number)
            raise
        if self._unreadable:
            self._unreadable.discard(number)
        return found

    def _load(self, number: int) -> Stored:
        entry = self._entries.get(number)
        if entry is not None:
            return stored(self._disk, entry)
        self._check_odd(number)
        return self._keeper.load(number)

    def _check_odd(self, number: int) -> None:
        if number in self._odd and number not in self._residents:
            raise TemporaryFailure(self._odd[number])

    def body(self, number: int) -> Body:
        """Raises KeyError, TemporaryFailure."""
        entry = self._entries.get(number)
        if entry is None:
            self._check_odd(number)
            return self._resident_body(number)
        if entry.body is not None:
            return BytesBody(entry.body)
        return body_of(self._disk, entry, self._layout.mess(number))

    def _resident_body(self, number: int) -> Body:
        size = self._residents[number].size
        path = self._keeper.files(number).mess
        try:
            if size >= LARGE:
                self._disk.open(path).close()
                return FileBody(self._disk, path, 0, size)
            data = self._disk.contents(path)[0]
        except OSError as error:
            raise TemporaryFailure(unreadable(path, error)) from error
        if len(data) != size:
            raise TemporaryFailure(f"{os.fsdecode(path)} has {len(data)} bytes in place of {size}")
        return BytesBody(data)

    def numbers(self) -> Iterable[int]:
        """Every queued message, oldest first; then those that wait, as they cannot be read."""
        entries, residents = self._entries, self._residents
        odd = [number for number in sorted(self._odd) if number not in entries and number not in residents]
        return oldest_first(entries.values(), residents) + odd

    def journal(self) -> tuple[int, int]:
        """Segments, and the bytes that they take."""
        return self._room.taken()

    def totals(self) -> QueueTotals:
        entries, residents = self._entries.values(), self._residents.values()
        unreadable = {number for number in self._unreadable if number in self._residents}
        return QueueTotals(
            messages=len(entries) + len(residents),
            recipients=sum(entry.left for entry in entries) + sum(one.left for one in residents),
            deferred=sum(entry.deferred for entry in entries) + sum(one.deferred for one in residents),
            held=sum(one.held for one in residents),
            bytes=sum(entry.size for entry in entries) + sum(one.size for one in residents),
            unreadable=len(unreadable.union(self._odd)),
            full=self._intake.full,
        )
