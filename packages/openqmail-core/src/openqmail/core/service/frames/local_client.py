"""The ports of `local` as the client of many workers, one for each user with mail just now.

The user of a recipient is looked up in users/cdb, and the spawner asked for a worker where
there is none.  At most so many run; when another is wanted, the one that was idle longest goes,
and else what is asked waits, in order.  Files are synced by the worker that wrote them: one
that goes is asked to do so before.  What was under way at a worker, or asked of a spawner, that
was lost is deferred.

Checks go the same way, by a connection of their own and to workers of their own.  One that would
have to wait behind too many, or for a worker that others wait for in vain, and one whose worker or
spawner was lost, says that nobody can tell.
"""

import asyncio
import socket
from asyncio import Future, TimerHandle
from collections import deque
from collections.abc import Sequence
from functools import partial

from openqmail.core.control.assign import CHANGED, Directory, User, local_part, owner_of
from openqmail.core.ports import LocalJob, Written
from openqmail.core.service.frames.local_worker import MOST_FILES, Answer, Key, Verdict, Worker, settle, tell
from openqmail.core.service.frames.results import LOCAL_LOST, LOCAL_SILENT, STOPPED
from openqmail.core.service.frames.spawning import Refused, Spawner, Started
from openqmail.core.values import Outcome, Result

MOST = 32
"""Workers at once."""

KEPT = 60.0
"""Seconds that an idle worker stays; it may be a quarter more."""

SYNCING, DELIVERING = 60.0, 900.0
"""Seconds that a worker may be silent while it syncs, and while it delivers; it may be as much more as
idle ones are looked for.  Then it is killed: its user may have stopped it, or his disk hangs, and
everybody's results wait for a sync."""

CHECKING = 8.0
"""Seconds that a worker may be silent while it checks; then no other check waits for it until it says
something.  It is less than clients wait, so each is kept waiting once and not for each recipient."""

CHECKS = 256
"""Checks that may wait for one worker."""

ALONG = 1000
"""Addresses that may wait with them at one worker, because others wanted to know of them soon."""

CHECKERS = 64
"""Workers that may be waited for, by checks."""


class LocalClient:
    """Serves both ports."""

    def __init__(
        self,
        users: Directory,
        alias: Key,
        own: Key | None = None,
        *,
        most: int = MOST,
        kept: float = KEPT,
        silent: tuple[float, float] = (SYNCING, DELIVERING),
    ) -> None:
        """`alias`: as whom mail is delivered that is no user's; `own`: as whom all of it is, in a
        home that is not root's."""
        self._loop = asyncio.get_running_loop()
        self._users = users
        self._alias = User(b"alias", *alias, b"", b"-", b"")
        self._own = own
        self._most = most
        self._kept = kept
        self._silent = silent
        self._spawner: Spawner | None = None
        self._workers: dict[Key, Worker] = {}
        """Those that take mail: running, asked for, or wanted."""
        self._alive: dict[Worker, Spawner] = {}
        """Those that run or are asked for, and of whom; some are leaving."""
        self._wanted: deque[Worker] = deque()
        self._files = _Files()
        self._timer: TimerHandle | None = None
        self._closed = False

    # --- the ports ----------------------------------------------------------------------

    def deliver(self, job: LocalJob) -> Answer:
        answer: Answer = self._loop.create_future()
        local = local_part(job.recipient)
        key = self._key(local)
        if isinstance(key, Result):
            settle(answer, key)
            return answer
        worker = self._workers.get(key) or self._want(key, local)
        worker.deliver(job, answer)
        if not worker.running:
            self._go_on()
        return answer

    def sync(self, written: Sequence[Written]) -> "Future[tuple[bool, ...]]":
        """All workers are asked at once; a file of one that is gone is not known to be durable."""
        syncing = _Syncing(self._loop, len(written))
        for worker, positions in self._files.divide(written, syncing.flags).items():
            for begin in range(0, len(positions), MOST_FILES):
                some = positions[begin : begin + MOST_FILES]
                worker.sync([written[position] for position in some], syncing.part(some))
        syncing.all_asked()
        return syncing.future

    def check(self, recipients: Sequence[bytes]) -> Verdict:
        """Others come along when the worker of the first is theirs, too, and few do so already; and when
        neither they nor the first would ever get one, so that nobody has to look at them again."""
        verdict: Verdict = self._loop.create_future()
        first = recipients[0]
        local = local_part(first)
        key = self._key(local)
        if isinstance(key, Result):
            known = None if key is STOPPED else key
            tell(verdict, {one: known for one in recipients if self._key(local_part(one)) == key})
            return verdict
        worker = self._workers.get(key)
        if len(self._wanted) >= CHECKERS if worker is None else not self._answers(worker):
            tell(verdict, {first: None})
            return verdict
        worker = worker or self._want(key, local)
        others = recipients[1 : 1 + ALONG - worker.along]
        along = [one for one in others if self._key(local_part(one)) == key]
        worker.check((first, *along), verdict)
        if not worker.running:
            self._go_on()
        return verdict

    def _answers(self, worker: Worker) -> bool:
        """Whether it can be asked for one more check."""
        return worker.checks < CHECKS and not worker.keeps_checks(self._loop.time(), CHECKING)

    # --- life ---------------------------------------------------------------------------

    def attach(self, connection: socket.socket) -> None:
        """A spawner, perhaps of a newer generation: workers come from there now, and the earlier
        ones end what they have; then the earlier spawner is left."""
        if self._closed:
            connection.close()
            return
        older, self._spawner = self._spawner, Spawner(connection, self._spawner_lost)
        for worker in list(self._workers.values()):
            if worker.running:
                self._retire(worker)
        if older is not None and older not in self._alive.values():
            older.close()
        self._go_on()

    async def close(self) -> None:
        """Deliver nothing more; what is under way, or waits, is deferred."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        workers = [*self._alive, *self._wanted]
        spawners = {self._spawner, *self._alive.values()}
        self._workers.clear()
        self._wanted.clear()
        self._alive.clear()
        for worker in workers:
            worker.close(STOPPED)
        for spawner in spawners:
            if spawner is not None:
                spawner.close()

    def _key(self, local: bytes) -> Key | Result:
        """As whom mail for a local part is delivered; or why it is not."""
        if self._closed:
            return STOPPED
        if self._own is not None:
            return self._own
        user = owner_of(local, self._users, self._alias)
        return user if isinstance(user, Result) else (user.uid, user.gid)

    def _want(self, key: Key, local: bytes) -> Worker:
        """A worker that is to be asked for, once it has something to do."""
        worker = self._workers[key] = Worker(self, key, local)
        self._wanted.append(worker)
        return worker

    # --- workers come -------------------------------------------------------------------

    def _go_on(self) -> None:
        """Ask for the workers that are wanted, as far as there is room."""
        while self._wanted and self._spawner is not None:
            if len(self._alive) < self._most:
                worker = self._wanted.popleft()
                self._alive[worker] = self._spawner
                spawner = self._spawner
                number = spawner.start(worker.local, partial(self._started, worker, spawner))
                worker.asked = spawner, number
            elif not self._make_room():
                return

    def _started(
        self,
        worker: Worker,
        spawner: Spawner,
        answer: Started | Refused | None,
        connection: socket.socket | None,
    ) -> None:
        if connection is None or not isinstance(answer, Started) or worker not in self._alive:
            why = Result(Outcome.DEFERRAL, answer.text) if isinstance(answer, Refused) else LOCAL_LOST
        elif (answer.uid, answer.gid) != worker.key:
            why = CHANGED
        else:
            worker.idle_since = self._loop.time()
            worker.begin(connection)
            if spawner is not self._spawner:
                self._retire(worker)
            self._watch()
            self._go_on()
            return
        if connection is not None:
            connection.close()
        self._forget(worker)
        worker.close(why)
        self._go_on()

    def _spawner_lost(self, spawner: Spawner) -> None:
        if self._spawner is spawner:
            self._spawner = None

    # --- workers go ---------------------------------------------------------------------

    def _make_room(self) -> bool:
        """Let the worker go that was idle longest, unless enough are leaving; whether one went."""
        if sum(worker.leaving for worker in self._alive) >= len(self._wanted):
            return False
        idle = [worker for worker in self._workers.values() if worker.running and not worker.busy]
        if not idle:
            return False
        self._retire(min(idle, key=_idle_since))
        return True

    def _retire(self, worker: Worker) -> None:
        """It takes no more, and goes when it has nothing to do."""
        if self._workers.get(worker.key) is worker:
            del self._workers[worker.key]
        worker.leaving = True
        self._wind_up(worker)

    def _wind_up(self, worker: Worker) -> None:
        if worker.busy:
            return
        if not worker.files:
            worker.close()
            self._forget(worker)
            return
        files = list(worker.files.values())
        worker.files.clear()
        for begin in range(0, len(files), MOST_FILES):
            some = files[begin : begin + MOST_FILES]
            worker.sync(some, partial(self._files.settle, worker, some))

    def _forget(self, worker: Worker) -> None:
        if self._workers.get(worker.key) is worker:
            del self._workers[worker.key]
        spawner = self._alive.pop(worker, None)
        if spawner is not None and spawner is not self._spawner and spawner not in self._alive.values():
            spawner.close()

    def _watch(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(self._kept / 4, self._sweep)

    def _sweep(self) -> None:
        """Those go that were idle for long, and those that do not answer."""
        self._timer = None
        now = self._loop.time()
        for worker in [one for one in self._alive if one.silent_for(now, *self._silent)]:
            if worker.asked is not None:
                spawner, number = worker.asked
                spawner.kill(number)
            self._forget(worker)
            worker.close(LOCAL_SILENT)
        self._go_on()
        before = now - self._kept
        for worker in list(self._workers.values()):
            if worker.running and not worker.busy and not worker.files and worker.idle_since <= before:
                self._retire(worker)
        if self._alive:
            self._watch()

    # --- what workers tell (Owner) ------------------------------------------------------

    def wrote(self, worker: Worker, written: tuple[Written, ...]) -> None:
        self._files.add(worker, written)

    def rested(self, worker: Worker) -> None:
        worker.idle_since = self._loop.time()
        if worker.leaving:
            self._wind_up(worker)
        if self._wanted:
            self._go_on()

    def lost(self, worker: Worker) -> None:
        self._forget(worker)
        self._go_on()


class _Files:
    """Who has written a file that is to be synced; or, where that was done before it was asked for,
    what came of it.  A message for one address twice makes one file of one name twice."""

    def __init__(self) -> None:
        self._writers: dict[bytes, list[Worker | bool]] = {}

    def add(self, worker: Worker, written: tuple[Written, ...]) -> None:
        for file in written:
            worker.files[file.path] = file
            self._writers.setdefault(file.path, []).append(worker)

    def divide(self, written: Sequence[Written], flags: list[bool]) -> dict[Worker, list[int]]:
        """Whom to ask for which of these; in `flags`, what is known already."""
        asked: dict[Worker, list[int]] = {}
        writers = self._writers
        for position, file in enumerate(written):
            known = writers.pop(file.path, None)
            if known is None:
                continue
            writer = known[0]
            if isinstance(writer, Worker):
                asked.setdefault(writer, []).append(position)
            else:
                flags[position] = writer
            if len(known) > 1:
                writers[file.path] = known[1:]
            elif isinstance(writer, Worker):
                writer.files.pop(file.path, None)
        return asked

    def settle(self, worker: Worker, written: Sequence[Written], durable: Sequence[bool]) -> None:
        for file, flag in zip(written, durable, strict=True):
            known = self._writers.get(file.path)
            if known is not None:
                self._writers[file.path] = [flag if each is worker else each for each in known]


class _Syncing:
    """One sync, divided among workers."""

    def __init__(self, loop: asyncio.AbstractEventLoop, count: int) -> None:
        self.future: Future[tuple[bool, ...]] = loop.create_future()
        self.flags = [False] * count
        self._open = 1

    def part(self, positions: list[int]) -> "partial[None]":
        """Takes what came of the files at these positions."""
        self._open += 1
        return partial(self._told, positions)

    def all_asked(self) -> None:
        self._close()

    def _told(self, positions: list[int], durable: Sequence[bool]) -> None:
        for position, flag in zip(positions, durable, strict=True):
            self.flags[position] = flag
        self._close()

    def _close(self) -> None:
        self._open -= 1
        if not self._open and not self.future.done():
            self.future.set_result(tuple(self.flags))


def _idle_since(worker: Worker) -> float:
    return worker.idle_since
