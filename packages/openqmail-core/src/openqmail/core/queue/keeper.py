"""Mail that stays: the messages in qmail's layout, as the loop sees them.

Results are in the journal first and then go into the files; what has ended goes away; held
messages come and go; and what a foreign qmail-queue brought is taken in.  Whatever fails is
tried again: until then the journal has it.
"""

import contextlib
import os
from asyncio import Future
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial

import msgspec

from openqmail.core.queue.index import Entry, Resident, Segment
from openqmail.core.queue.journal import Item, Journal
from openqmail.core.queue.journal.commit import Committer
from openqmail.core.queue.journal.records import Applied, Kept, encode_record, kept, split
from openqmail.core.queue.layout import reader
from openqmail.core.queue.layout.arrivals import Arrivals, Arrived
from openqmail.core.queue.layout.held import Held
from openqmail.core.queue.layout.mover import Mover
from openqmail.core.queue.layout.parts import Parts
from openqmail.core.queue.layout.paths import Files, Layout
from openqmail.core.queue.layout.results import Applying, Results
from openqmail.core.queue.pool import Pool
from openqmail.core.queue.store import Change, Due, Stored
from openqmail.core.queue.turns import AGAIN, Turns
from openqmail.core.queue.unreadable import unreadable
from openqmail.core.values import Outcome, TemporaryFailure
from openqmail.core.world import Disk


class _Durable(msgspec.Struct, eq=False):
    """A result that the journal has, and that the files shall have.

    `place`: sequence and offset of its record; `pinned`: the segment that is kept for it, perhaps with
    a copy of that; `carried`: such a copy is being written; `applied`: the files have it."""

    record: Kept
    held: bool
    place: tuple[int, int]
    pinned: Segment
    carried: bool = False
    applied: bool = False


class Keeper:
    """`queue`: its id; `residents`: the messages in the layout; `elsewhere`: whether the journal has a
    number; `claims`: submissions that are durable, and what they close is yet to be told (`settled`)."""

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
        elsewhere: Callable[[int], bool],
        claims: Collection[Item],
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
        self._elsewhere = elsewhere
        self._claims = claims
        self._arrived: Callable[[Stored], None] | None = None
        self._places: dict[int, tuple[tuple[str, int], ...]] = {}
        """Of a message that moved in this life: where each recipient went, if not in its order."""
        self._pending: dict[int, list[Kept]] = {}
        """Results that are not in the files yet, by message."""
        self._durable: list[_Durable] = []
        self._latest = (0, 0)
        """The place of the latest result that the files have."""
        self._stuck: list[_Durable] = []
        """Those of messages whose own files are not as they should be."""
        self._waiting: list[_Durable] = []
        """Those that were found like that at the opening: their messages wait for the next one."""
        self._try_stuck = False
        self._ended: deque[tuple[int, bool]] = deque()
        self._withdrawn: list[Entry] = []
        self._touched: set[int] = set()
        self._look = False
        self._torn: set[int] = set()
        """Messages that were to be held or released, which failed half-way."""
        turns.add(lambda: bool(self._durable) or self._try_stuck, self._apply)
        turns.add(lambda: bool(self._ended or self._withdrawn), self._clear)
        turns.add(lambda: self._look, self._take)
        turns.add(lambda: bool(self._torn), self._mend)
        turns.wait_for(lambda: any(number not in self._stuck_numbers() for number in self._pending))

    # --- what is there --------------------------------------------------------------------

    def load(self, number: int) -> Stored:
        """Raises KeyError, TemporaryFailure, QueueDamaged."""
        resident = self.residents[number]
        if number in self._torn:
            raise TemporaryFailure(f"message {number} is being put right in {self._turns.where}")
        pending = self._pending.get(number, ())
        held = self._held.reason(number).decode("utf-8", "replace") if resident.held else None
        files = self.files(number)
        try:
            stored = reader.read(self._disk, files, number, resident, self._queue, pending, held)
        except OSError as error:
            path = os.fsencode(error.filename or files.info)
            raise TemporaryFailure(unreadable(path, error)) from error
        resident.key = stored.id.key
        return stored

    def files(self, number: int) -> Files:
        if self.residents[number].held:
            return self._layout.held_files(number)
        return self._layout.files(number)

    # --- results --------------------------------------------------------------------------

    def settles(self, number: int, resident: Resident, places: tuple[tuple[str, int], ...]) -> None:
        """From now on this message is one of the layout; `places`: where each recipient went,
        as they were accepted."""
        self.residents[number] = resident
        if any(place != _usual(position, resident.locals) for position, place in enumerate(places)):
            self._places[number] = places

    def record(
        self, number: int, changes: tuple[Change, ...], due: Due, ended: bool, routed: bool
    ) -> "Future[None]":
        """See `QueueStore.record`.  Raises KeyError, TemporaryFailure, QueueDamaged."""
        records = split(self.kept(number, changes, due, ended, routed))
        self.seen(records, changes)
        future: Future[None] = self._turns.loop.create_future()

        def settled(one: Kept, item: Item) -> None:
            if item.error is None:
                self.settled(one, item)
            if one is records[-1] and not future.done():
                if item.error is None:
                    future.set_result(None)
                else:
                    future.set_exception(item.error)

        for one in records:
            self._committer.add(Item(encode_record(one), pins=True, settled=partial(settled, one)))
        return future

    def kept(self, number: int, changes: tuple[Change, ...], due: Due, ended: bool, routed: bool) -> Kept:
        """The record of a change to a message.  Raises KeyError, TemporaryFailure, QueueDamaged."""
        resident = self.residents[number]
        if resident.ended:
            raise KeyError(number)
        if not resident.key:
            path = self.files(number).info
            try:
                resident.key = reader.read_info(self._disk, path, number, self._queue).key
            except OSError as error:
                raise TemporaryFailure(unreadable(path, error)) from error
        places = None if routed else self._places.get(number)
        locals_ = resident.locals

        def place(position: int) -> tuple[str, int]:
            return places[position] if places is not None else _usual(position, locals_)

        return kept(number, resident.key, changes, place, due, ended)

    def seen(self, records: Sequence[Kept], changes: tuple[Change, ...]) -> None:
        """From now on it shows."""
        number, due, ended = records[-1].number, records[-1].due, records[-1].ended
        resident = self.residents[number]
        resident.left -= sum(change.outcome is not Outcome.DEFERRAL for change in changes)
        resident.ended = ended
        resident.begun = resident.begun or bool(changes)
        if any(change.outcome is Outcome.FAILURE for change in changes):
            resident.has_bounce = True
        resident.due_local, resident.due_remote = (
            new or old for new, old in zip(due, (resident.due_local, resident.due_remote), strict=True)
        )
        if ended or any(due):
            self._places.pop(number, None)
        self._pending.setdefault(number, []).extend(records)

    def settled(self, record: Kept, item: Item) -> None:
        """It is durable in the journal; now it goes into the files."""
        resident = self.residents.get(record.number)
        held = resident is not None and resident.held
        if record.ended:
            self.residents.pop(record.number, None)
        self._durable.append(_durable(record, held, item))
        self._turns.plan()

    def _apply(self) -> None:
        batch, self._durable = [*self._stuck, *self._durable], []
        self._stuck, self._try_stuck = [], False

        def then(wrong: list[OSError | None] | None, error: BaseException | None) -> None:
            self._applied(batch, wrong, error)

        applying = [Applying(one.record, one.held) for one in batch]
        self._turns.start(then, self._results.apply, applying)

    def _applied(
        self, batch: list[_Durable], wrong: list[OSError | None] | None, error: BaseException | None
    ) -> None:
        if error is not None or wrong is None:
            self._durable[:0] = batch
            self._turns.fail(f"results cannot be written to {self._turns.where}", error or OSError())
            return
        for one, fault in zip(batch, wrong, strict=True):
            if fault is None:
                self._is_applied(one)
            else:
                self._stuck.append(one)
                where = os.fsdecode(fault.filename or self._turns.where)
                what = f"{where}: the result of message {one.record.number} cannot be written there"
                self._turns.tell(what, f"{what}: {fault.strerror}; mend it")
        if self._stuck:
            self._turns.loop.call_later(AGAIN, self._again_stuck)
        else:
            self._tell_recovery()
        self._turns.look()
        self.unpin([one.pinned for one in batch if one.applied])

    def _tell_recovery(self) -> None:
        """It passes over all up to the latest result, unless an older one is on its way here: then it does
        them once more."""
        claims = [(item.pinned.sequence, item.offset) for item in self._claims if item.pinned is not None]
        if all(place > self._latest for place in (*claims, *(one.place for one in self._durable))):
            self._committer.add(Item(encode_record(Applied(*self._latest))))

    def _is_applied(self, one: _Durable) -> None:
        number = one.record.number
        one.applied = True
        self._latest = max(self._latest, one.place)
        pending = self._pending[number]
        pending.remove(one.record)
        if not pending:
            del self._pending[number]
        if one.record.ended:
            self._ended.append((number, one.held))
            self._touched.discard(number)
        elif one.record.changes:
            self._touched.add(number)

    def _again_stuck(self) -> None:
        self._try_stuck = True
        self._turns.plan()

    def wait(self, record: Kept, item: Item) -> None:
        """A result that the opening could not bring into the files."""
        if item.pinned is not None:  # else there was no room for it: all segments stay
            self._waiting.append(_durable(record, False, item))

    def carry(self, sequences: Collection[int]) -> None:
        """If what cannot be brought into the files pins one of these segments, all of it is written
        anew, in its order, so that they can go; not for the one that is written to, where the copy would
        lie, too."""
        stuck = [*self._waiting, *self._stuck]
        sequences = {*sequences} - {self._journal.segments[-1].sequence}
        if any(one.carried for one in stuck):
            return
        if any(one.pinned.sequence in sequences for one in stuck):
            for one in stuck:
                one.carried = True
                data = encode_record(msgspec.structs.replace(one.record, waits=True))
                self._committer.add(Item(data, pins=True, settled=partial(self._carried, one)))

    def _carried(self, one: _Durable, item: Item) -> None:
        one.carried = False
        if item.error is not None or item.pinned is None:
            return
        needless = item.pinned
        if not one.applied:
            needless, one.pinned = one.pinned, needless
        self.unpin((needless,))

    def _stuck_numbers(self) -> set[int]:
        return {one.record.number for one in (*self._stuck, *self._waiting)}

    @property
    def unsettled(self) -> int:
        """Messages whose files do not say what the journal says: of results, or that they have ended."""
        ended = [entry.number for entry in self._withdrawn]
        return len({*self._pending, *self._stuck_numbers(), *self._torn, *ended})

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
            self._turns.fail(f"what has ended cannot be removed from {self._turns.where}", error)
            return
        del self._withdrawn[: len(withdrawn)]
        self.unpin([entry.pinned for entry in withdrawn if entry.pinned is not None])
        for number in free or ():
            self._pool.give(number)
        for entry in withdrawn:
            self._pool.moved(entry.number)  # unless it is free again

    # --- held mail --------------------------------------------------------------------------

    async def hold(self, number: int, reason: str) -> None:
        """Raises KeyError, TemporaryFailure."""
        await self._in_files(number)
        await self._hold(number, True, self._turns.run(self._held.hold, number, reason.encode()))

    async def release(self, number: int) -> None:
        """Raises KeyError, TemporaryFailure."""
        await self._in_files(number)
        await self._hold(number, False, self._turns.run(self._release, number))

    def _release(self, number: int) -> None:
        """In the thread.  Raises OSError, TemporaryFailure."""
        try:
            self._held.release(number)
        except FileExistsError as error:
            raise TemporaryFailure(f"{error.strerror}; restart, then this one gets a new number") from error

    async def _in_files(self, number: int) -> None:
        while number in self._pending:
            await self._turns.passed()
            if self._turns.failed is not None or number in self._stuck_numbers():
                why = self._turns.failed or "what became of it cannot be written to its files"
                raise TemporaryFailure(f"message {number}: {why}")
        if number not in self.residents:
            raise KeyError(number)

    async def _hold(self, number: int, held: bool, work: Awaitable[None]) -> None:
        """What goes wrong half-way is mended later, and until then nobody reads the message."""
        resident = self.residents[number]
        self._torn.add(number)
        try:
            await work
        except BaseException:
            self._turns.plan()
            raise
        self._torn.discard(number)
        resident.held = held

    def _mend(self) -> None:
        numbers = sorted(self._torn)

        def then(held: list[bool] | None, error: BaseException | None) -> None:
            if error is not None:
                self._turns.fail(f"held mail in {self._turns.where} cannot be put right", error)
            for number, is_held in zip(numbers, held or (), strict=False):
                self._torn.discard(number)
                if number in self.residents:
                    self.residents[number].held = is_held

        self._turns.start(then, lambda: [self._held.mend_one(number) for number in numbers])

    # --- what others bring --------------------------------------------------------------------

    def arrivals(self, arrived: Callable[[Stored], None]) -> None:
        self._arrived = arrived
        self.look()

    def _is_busy(self, number: int) -> bool:
        """Whether the number is a message's of ours (asked in the thread)."""
        known = number in self.residents or number in self._pending or self._elsewhere(number)
        return known or any(one.record.number == number for one in self._waiting)

    def look(self) -> None:
        if self._arrived is not None:
            self._look = True
            self._turns.plan()

    def _take(self) -> None:
        self._look = False
        self._turns.start(self._taken, self._arrivals.take, self._is_busy)

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
            for one in arrived or ():
                self._arrived(one.stored())
        if arrived:
            self.look()

    def sweep(self) -> None:
        """Remove what writers left that died."""

        def swept(count: int | None, error: BaseException | None) -> None:
            where = self._turns.where
            if error is not None:
                why = error.strerror if isinstance(error, OSError) else error
                self._turns.report(f"litter in {where} cannot be removed: {why}")
            elif count:
                self._turns.report(f"{count} files of writers that died were removed from {where}")

        self._turns.aside(swept, self._arrivals.sweep, self._is_busy)

    async def tidy(self) -> None:
        """Leave the files as qmail-send does at its end.  Nothing that must be."""
        if self._turns.failed is not None or self._durable or self._stuck:
            return
        touched, self._touched = sorted(self._touched), set()
        try:
            await self._turns.run(self._results.tidy, touched)
            await self._turns.run(self._pool.trim)
        except TemporaryFailure as error:
            self._turns.report(str(error))


def _durable(record: Kept, held: bool, item: Item) -> _Durable:
    assert item.pinned is not None
    return _Durable(record, held, (item.pinned.sequence, item.offset), item.pinned)


def _usual(position: int, locals_: int) -> tuple[str, int]:
    """The list of a recipient, and its place there: first those in `local`, then those in `remote`."""
    return ("l", position) if position < locals_ else ("r", position - locals_)
