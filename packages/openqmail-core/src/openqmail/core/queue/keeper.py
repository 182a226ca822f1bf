"""Mail that stays: the messages in qmail's layout, as the loop sees them.

Results are in the journal first and then go into the files; what has ended goes away; held
messages come and go; and what a foreign qmail-queue brought is taken in.  Whatever fails is
tried again: until then the journal has it.
"""

import contextlib
from asyncio import Future
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from openqmail.core.queue.index import Entry, Resident, Segment
from openqmail.core.queue.journal import Item, Journal
from openqmail.core.queue.journal.commit import Committer
from openqmail.core.queue.journal.records import Applied, Kept, encode_record, kept
from openqmail.core.queue.layout import reader
from openqmail.core.queue.layout.arrivals import Arrivals, Arrived
from openqmail.core.queue.layout.held import Held
from openqmail.core.queue.layout.mover import Mover
from openqmail.core.queue.layout.parts import Parts
from openqmail.core.queue.layout.paths import Files, Layout
from openqmail.core.queue.layout.results import Applying, Results
from openqmail.core.queue.pool import Pool
from openqmail.core.queue.store import Change, Due, Stored
from openqmail.core.queue.turns import Turns
from openqmail.core.values import Outcome, TemporaryFailure
from openqmail.core.world import Disk


class _Durable(msgspec.Struct, frozen=True):
    """A result that the journal has, and that the files shall have."""

    record: Kept
    held: bool
    segment: Segment
    offset: int


class Keeper:
    """`queue`: its id; `residents`: the messages in the layout."""

    def __init__(
        self,
        disk: Disk,
        layout: Layout,
        queue: bytes,
        turns: Turns,
        committer: Committer,
        journal: Journal,
        pool: Pool,
        parts: Parts,
        residents: dict[int, Resident],
    ) -> None:
        self._disk = disk
        self._layout = layout
        self._queue = queue
        self._turns = turns
        self._committer = committer
        self._journal = journal
        self._pool = pool
        self._mover: Mover = parts.mover
        self._results: Results = parts.results
        self._held: Held = parts.held
        self._arrivals: Arrivals = parts.arrivals
        self.residents = residents
        self._arrived: Callable[[Stored], None] | None = None
        self._places: dict[int, tuple[tuple[str, int], ...]] = {}
        """Of a message that moved while it was worked on: where each position went."""
        self._pending: dict[int, list[Kept]] = {}
        """Results that are not in the files yet, by message."""
        self._durable: list[_Durable] = []
        self._again = False
        self._ended: deque[tuple[int, bool]] = deque()
        self._withdrawn: deque[Entry] = deque()
        self._touched: set[int] = set()
        self._look = False
        turns.add(lambda: bool(self._durable), self._apply)
        turns.add(lambda: bool(self._ended or self._withdrawn), self._clear)
        turns.add(lambda: self._look, self._take)

    # --- what is there --------------------------------------------------------------------

    def load(self, number: int) -> Stored:
        """Raises KeyError, TemporaryFailure, QueueDamaged."""
        resident = self.residents[number]
        pending = self._pending.get(number, ())
        held = self._held.reason(number).decode("utf-8", "replace") if resident.held else None
        files = self.files(number)
        try:
            stored = reader.read(self._disk, files, number, resident, self._queue, pending, held)
        except OSError as error:
            raise TemporaryFailure(f"message {number} cannot be read: {error}") from error
        resident.key = stored.id.key
        return stored

    def files(self, number: int) -> Files:
        if self.residents[number].held:
            return self._layout.held_files(number)
        return self._layout.files(number)

    # --- results --------------------------------------------------------------------------

    def settles(self, number: int, resident: Resident, places: tuple[tuple[str, int], ...]) -> None:
        """From now on this message is one of the layout; `places`: of a message that is worked on, where
        each recipient went."""
        self.residents[number] = resident
        if places:
            self._places[number] = places

    def record(self, number: int, changes: tuple[Change, ...], due: Due, ended: bool) -> "Future[None]":
        """See `QueueStore.record`.  Raises KeyError, TemporaryFailure, QueueDamaged."""
        record = self.kept(number, changes, due, ended)
        self.seen(record, changes)
        future: Future[None] = self._turns.loop.create_future()

        def settled(item: Item) -> None:
            if item.error is None:
                self.settled(record, item)
            if not future.done():
                if item.error is None:
                    future.set_result(None)
                else:
                    future.set_exception(item.error)

        self._committer.add(Item(encode_record(record), pins=True, settled=settled))
        return future

    def kept(self, number: int, changes: tuple[Change, ...], due: Due, ended: bool) -> Kept:
        """The record of a change to a message.  Raises KeyError, OSError, QueueDamaged."""
        resident = self.residents[number]
        if resident.ended:
            raise KeyError(number)
        if not resident.key:
            info = reader.read_info(self._disk, self.files(number).info, number, self._queue)
            resident.key = info.key
        places = self._places.get(number)
        locals_ = resident.locals

        def place(position: int) -> tuple[str, int]:
            if places is not None:
                return places[position]
            return ("l", position) if position < locals_ else ("r", position - locals_)

        return kept(number, resident.key, changes, place, due, ended)

    def seen(self, record: Kept, changes: tuple[Change, ...]) -> None:
        """From now on it shows."""
        number, due, ended = record.number, record.due, record.ended
        resident = self.residents[number]
        resident.left -= sum(change.outcome is not Outcome.DEFERRAL for change in changes)
        resident.ended = ended
        if any(change.outcome is Outcome.FAILURE for change in changes):
            resident.has_bounce = True
        resident.due_local, resident.due_remote = (
            new or old for new, old in zip(due, (resident.due_local, resident.due_remote), strict=True)
        )
        if ended or any(due):
            self._places.pop(number, None)
        self._pending.setdefault(number, []).append(record)

    def settled(self, record: Kept, item: Item) -> None:
        """It is durable in the journal; now it goes into the files."""
        resident = self.residents.get(record.number)
        held = resident is not None and resident.held
        if record.ended:
            self.residents.pop(record.number, None)
        assert item.pinned is not None
        self._durable.append(_Durable(record, held, item.pinned, item.offset))
        self._turns.plan()

    def _apply(self) -> None:
        batch, self._durable = self._durable, []
        applying = [Applying(one.record, one.held) for one in batch]
        self._turns.start(
            lambda _, error: self._applied(batch, error), self._results.apply, applying, self._again
        )

    def _applied(self, batch: list[_Durable], error: BaseException | None) -> None:
        self._again = error is not None
        if error is not None:
            self._durable[:0] = batch
            self._turns.fail(f"results cannot be written to {self._turns.where}", error)
            return
        last = batch[-1]
        for one in batch:
            number = one.record.number
            pending = self._pending[number]
            pending.remove(one.record)
            if not pending:
                del self._pending[number]
            if one.record.ended:
                self._ended.append((number, one.held))
                self._touched.discard(number)
            elif one.record.changes:
                self._touched.add(number)
        self._committer.add(Item(encode_record(Applied(last.segment.sequence, last.offset))))
        self.unpin([one.segment for one in batch])

    # --- what has ended ---------------------------------------------------------------------

    def clear(self, entry: Entry) -> None:
        """A message has ended in the journal that has files: they go, its number comes free."""
        self._withdrawn.append(entry)
        self._turns.plan()

    def unpin(self, segments: Sequence[Segment]) -> None:
        """What these segments were kept for is durable elsewhere."""
        unpinned = self._committer.run(self._journal.unpin, segments)
        unpinned.add_done_callback(lambda done: done.exception())

    def _clear(self) -> None:
        ended = [(number, held, self._pool.wants) for number, held in self._ended]
        withdrawn = list(self._withdrawn)
        self._ended.clear()
        self._withdrawn.clear()

        def then(free: list[int] | None, error: BaseException | None) -> None:
            self._cleared(withdrawn, free, error)

        self._turns.start(then, self._clear_files, ended, withdrawn)

    def _clear_files(self, ended: Sequence[tuple[int, bool, bool]], withdrawn: Sequence[Entry]) -> list[int]:
        """In the thread: the numbers that are free.  Raises OSError."""
        free = []
        for number, held, wanted in ended:
            with contextlib.suppress(OSError):  # what is left is litter, and swept as such
                if held:
                    self._held.remove(number)
                elif not wanted:
                    self._mover.discard(number)
                elif self._mover.recycle(number):
                    free.append(number)
        self._mover.withdraw_all([entry.number for entry in withdrawn])
        free += [entry.number for entry in withdrawn if self._mover.recycle(entry.number)]
        return free

    def _cleared(self, withdrawn: list[Entry], free: list[int] | None, error: BaseException | None) -> None:
        if error is not None:
            self._withdrawn.extend(withdrawn)
            self._turns.fail(f"what has ended cannot be removed from {self._turns.where}", error)
            return
        self.unpin([entry.pinned for entry in withdrawn if entry.pinned is not None])
        for number in free or ():
            self._pool.give(number)
        for entry in withdrawn:
            self._pool.moved(entry.number)  # unless it is free again

    # --- held mail --------------------------------------------------------------------------

    async def hold(self, number: int, reason: str) -> None:
        """Raises KeyError, TemporaryFailure."""
        await self._in_files(number)
        await self._hold(number, self._turns.run(self._held.hold, number, reason.encode()))

    async def release(self, number: int) -> None:
        """Raises KeyError, TemporaryFailure."""
        await self._in_files(number)
        await self._hold(number, self._turns.run(self._held.release, number))

    async def _in_files(self, number: int) -> None:
        while number in self._pending:
            await self._turns.quiet()
            if self._turns.failed is not None:
                raise TemporaryFailure(self._turns.failed)
        if number not in self.residents:
            raise KeyError(number)

    async def _hold(self, number: int, work: Awaitable[None]) -> None:
        """What went wrong half-way leaves it held or not, and it shows as what it is."""
        resident = self.residents[number]
        try:
            await work
        finally:
            resident.held = self._held.is_held(number)

    # --- what others bring --------------------------------------------------------------------

    def arrivals(self, arrived: Callable[[Stored], None]) -> None:
        self._arrived = arrived
        self.look()

    def look(self) -> None:
        if self._arrived is not None:
            self._look = True
            self._turns.plan()

    def _take(self) -> None:
        self._look = False
        self._turns.start(self._taken, self._arrivals.take)

    def _taken(self, arrived: list[Arrived] | None, error: BaseException | None) -> None:
        if error is not None:
            self._look = True
            self._turns.fail("new mail in todo cannot be taken in", error)
            return
        for one in arrived or ():
            birth = one.birth
            self.residents[one.number] = Resident(
                birth,
                birth if one.local else 0,
                birth if one.remote else 0,
                one.size,
                len(one.local) + len(one.remote),
                len(one.local),
                one.key,
                has_remote=bool(one.remote),
                has_bounce=False,
            )
            if self._arrived is not None:
                self._arrived(self.load(one.number))
        if arrived:
            self.look()

    def sweep(self, alive: Callable[[int], bool]) -> None:
        """Remove what writers left that died.  `alive`: whether the journal has that number."""

        def known(number: int) -> bool:
            return alive(number) or number in self.residents or number in self._pending

        def swept(count: int | None, error: BaseException | None) -> None:
            where = self._turns.where
            if error is not None:
                self._turns.report(f"litter in {where} cannot be removed: {error}")
            elif count:
                self._turns.report(f"{count} files of writers that died were removed from {where}")

        self._turns.aside(swept, self._arrivals.sweep, known)

    async def tidy(self) -> None:
        """Leave the files as qmail-send does at its end.  Nothing that must be."""
        if self._turns.failed is not None or self._durable:
            return
        touched, self._touched = sorted(self._touched), set()
        try:
            await self._turns.run(self._results.tidy, touched)
            await self._turns.run(self._pool.trim)
        except TemporaryFailure as error:
            self._turns.report(str(error))
