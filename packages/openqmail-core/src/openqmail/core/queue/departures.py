"""Out of the journal: which messages move to qmail's layout, and when that is a fact (rule 8).

Files first, a batch at a time; then the record `moved`; only from its moment on is a message
one of the layout.  A result that comes in between makes the files out of date, and they are
written again; a message that ends in between is withdrawn.
"""

import os
from asyncio import Future
from collections.abc import Callable, Sequence

from openqmail.core.queue.index import Entry, Resident
from openqmail.core.queue.journal import Item
from openqmail.core.queue.journal.commit import Committer
from openqmail.core.queue.journal.records import Moved, encode_record
from openqmail.core.queue.keeper import Keeper
from openqmail.core.queue.layout.mover import Mover
from openqmail.core.queue.layout.outgoing import Departing, Ready, outgoing
from openqmail.core.queue.layout.paths import ITS_OWN
from openqmail.core.queue.pool import Pool
from openqmail.core.queue.room import Room
from openqmail.core.queue.store import Router
from openqmail.core.queue.turns import AGAIN, Turns
from openqmail.core.values import OpenqmailError, TemporaryFailure
from openqmail.core.world import Disk

GATHER = 0.2
"""Seconds in which messages that are to move come together."""

BATCH = 256
BATCH_BYTES = 16 * 1024 * 1024


Went = Ready | OpenqmailError | OSError
"""What became of a message: its files are durable; it could not be read; they could not be written."""


class Departures:
    """`entries`: the store's messages in the journal; `forget`: lets go of what the store keeps of
    one; `room`: tells what moves may take."""

    def __init__(
        self,
        disk: Disk,
        turns: Turns,
        committer: Committer,
        pool: Pool,
        mover: Mover,
        keeper: Keeper,
        entries: dict[int, Entry],
        route: Router,
        forget: Callable[[Entry], None],
        room: Room,
    ) -> None:
        self._disk = disk
        self._turns = turns
        self._committer = committer
        self._pool = pool
        self._mover = mover
        self._keeper = keeper
        self._entries = entries
        self._route = route
        self._forget = forget
        self._room = room
        self._leaving: dict[int, None] = {}
        self._unrecorded: set[int] = set()
        self._waiting: dict[int, list[Future[None]]] = {}
        turns.add(lambda: bool(self._leaving), self._move)
        turns.wait_for(lambda: bool(self._unrecorded))

    def leave(self, numbers: Sequence[int], gather: float = GATHER) -> None:
        """Have these moved to the layout."""
        for number in numbers:
            self._leaving[number] = None
        self._turns.plan(gather)

    def leaves(self, number: int) -> "Future[None]":
        """Have it moved; done when that is durable, or the message has ended.  Raises TemporaryFailure."""
        future: Future[None] = self._turns.loop.create_future()
        if number in self._entries:
            self._waiting.setdefault(number, []).append(future)
            self.leave((number,), 0.0)
        elif number in self._unrecorded:
            self._waiting.setdefault(number, []).append(future)
        else:
            future.set_result(None)
        return future

    def ended(self, entry: Entry) -> None:
        """A message has ended in the journal, durably; its number comes free."""
        entry.gone = True
        self._leaving.pop(entry.number, None)
        self._tell(entry.number, None)
        if entry.moving:
            return  # `_moved` sees to it
        if entry.written or entry.large:
            self._keeper.clear(entry)
        else:
            self._pool.give(entry.number)

    async def all_leave(self) -> None:
        """Have everything moved that can be."""
        while self._entries:
            before = len(self._entries)
            self.leave([number for number, entry in self._entries.items() if not entry.ended], 0.0)
            await self._turns.quiet()
            if len(self._entries) >= before:
                break
        await self._turns.quiet()

    def _move(self) -> None:
        batch: list[Departing] = []
        later: list[int] = []
        size, spare = 0, self._room.spare()
        while self._leaving and len(batch) < BATCH and size < BATCH_BYTES:
            number = next(iter(self._leaving))
            entry = self._entries.get(number)
            if entry is not None and self._room.cost(entry) > spare:
                self._wait_for_room()
                break
            del self._leaving[number]
            if entry is None or entry.ended or entry.moving:
                continue
            if entry.closing:
                later.append(number)
                continue
            batch.append(Departing(entry, dict(entry.progress or {}), entry.due, entry.written))
            entry.moving = entry.written = True
            entry.changed = False
            size += entry.body_size
            spare -= self._room.cost(entry)
        if later:
            self.leave(later)
        if batch:
            self._turns.start(lambda ready, error: self._moved(batch, ready, error), self._write, batch)

    def _wait_for_room(self) -> None:
        """They stay in the journal, where they are as safe."""
        numbers = list(self._leaving)
        self._leaving.clear()
        sentence = f"too little room is left to move mail from the journal to {self._turns.where}"
        self._turns.tell("moves: room", f"{sentence}; will try again")
        for number in numbers:
            self._tell(number, TemporaryFailure(sentence))
        self._turns.loop.call_later(AGAIN, self.leave, numbers)

    def _write(self, batch: Sequence[Departing]) -> list[Went]:
        """In the thread: what became of each.  Raises OSError."""
        ready: list[Went] = []
        for departing in batch:
            try:
                ready.append(self._prepared(departing))
            except OpenqmailError as error:
                ready.append(error)
            except OSError as error:
                if error.errno not in ITS_OWN:
                    raise
                ready.append(error)
        faults = iter(self._mover.write([one.files for one in ready if isinstance(one, Ready)]))
        return [next(faults) or one if isinstance(one, Ready) else one for one in ready]

    def _prepared(self, departing: Departing) -> Ready:
        """Raises OSError, TemporaryFailure, QueueDamaged."""
        ready = outgoing(self._disk, departing, self._route)
        if self._mover.is_taken(ready.files):
            raise TemporaryFailure("a foreign qmail-queue has this number just now")
        return ready

    def _moved(
        self,
        batch: list[Departing],
        ready: list[Went] | None,
        error: BaseException | None,
    ) -> None:
        again = []
        for place, departing in enumerate(batch):
            entry = departing.entry
            entry.moving = False
            one = ready[place] if ready is not None else None
            if entry.gone:
                self._keeper.clear(entry)
            elif isinstance(one, Ready) and not entry.changed and not entry.ended:
                self._resides(entry, one)
            elif not entry.ended:
                if isinstance(one, OpenqmailError):
                    entry.written = departing.again
                if isinstance(one, OpenqmailError | OSError):
                    self._stays(entry.number, one)
                else:
                    again.append(entry.number)
        if error is not None:
            self.leave(again, AGAIN)
            self._turns.fail(f"mail cannot be moved from the journal to {self._turns.where}", error)
            for number in list(self._waiting):
                self._tell(number, TemporaryFailure(str(self._turns.failed)))
        elif again:
            self.leave(again)

    def _stays(self, number: int, error: OpenqmailError | OSError) -> None:
        """Something is wrong with this message alone: others go on.  Of many in one folder one is told."""
        why = what = str(error)
        if isinstance(error, OSError):
            path = os.fsdecode(error.filename or self._turns.where)
            why = f"{path}: {error.strerror}; mend it"
            what = f"{os.path.dirname(path)}: {error.strerror}"
        sentence = f"message {number} cannot be moved from the journal: {why}"
        self._turns.tell(f"moves: {what}", f"{sentence}; will try again")
        self._tell(number, TemporaryFailure(sentence))
        self._turns.loop.call_later(AGAIN, self.leave, (number,))

    def _resides(self, entry: Entry, ready: Ready) -> None:
        """The files are durable: from its record on, the message is in the layout."""
        number = entry.number
        self._forget(entry)
        del self._entries[number]
        self._pool.moved(number)
        due_local, due_remote = ready.files.due
        resident = Resident(
            entry.birth,
            due_local or (entry.birth if ready.left_local else 0),
            due_remote or (entry.birth if ready.left_remote else 0),
            entry.size,
            ready.left_local + ready.left_remote,
            ready.locals,
            entry.key,
            has_remote=bool(ready.files.remote),
            has_bounce=bool(ready.files.bounce),
            begun=bool(entry.progress),
        )
        self._keeper.settles(number, resident, ready.places)
        self._unrecorded.add(number)

        def settled(item: Item) -> None:
            self._unrecorded.discard(number)
            self._tell(number, item.error)
            self._turns.look()

        self._committer.add(Item(encode_record(Moved(number, entry.key)), ends=entry, settled=settled))

    def _tell(self, number: int, error: OpenqmailError | None) -> None:
        for future in self._waiting.pop(number, ()):
            if future.done():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(TemporaryFailure(str(error)))
