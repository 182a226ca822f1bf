"""One thing at a time: whose turn it is in the thread that touches qmail's layout.

Kinds of work take turns, each a batch.  What fails is told, not too often, and tried again
later.  In the loop; it knows nothing of what the work is.
"""

from asyncio import AbstractEventLoop, Future, TimerHandle
from collections.abc import Callable

from openqmail.core.log import Seldom
from openqmail.core.values import TemporaryFailure
from openqmail.core.world import Workers

AGAIN = 5.0
"""Seconds until what failed is tried again."""

TELL_AGAIN = 600.0
"""Seconds until it is told again that something still fails."""

Kind = tuple[Callable[[], bool], Callable[[], None]]
"""Whether there is work of this kind; and what begins a batch of it (by `start`)."""


class Turns:
    """`report` gets a sentence about what fails.  `failed`: that sentence, while it does."""

    def __init__(
        self, loop: AbstractEventLoop, workers: Workers, where: str, report: Callable[[str], None]
    ) -> None:
        self.loop = loop
        self.where = where
        self.report = report
        self.failed: str | None = None
        self._workers = workers
        self._kinds: list[Kind] = []
        self._blocks: list[Callable[[], bool]] = []
        self._turn = 0
        self._busy = self._stopped = False
        self._timer: TimerHandle | None = None
        self._planned = 0.0
        self._seldom = Seldom(TELL_AGAIN)
        self._quiet: list[Future[None]] = []
        self._passing: list[Future[None]] = []

    def add(self, wanted: Callable[[], bool], begin: Callable[[], None]) -> None:
        """One more kind of work."""
        self._kinds.append((wanted, begin))

    def wait_for(self, pending: Callable[[], bool]) -> None:
        """It is not quiet while this is true; `look` is called when it may no longer be."""
        self._blocks.append(pending)

    def plan(self, seconds: float = 0.0) -> None:
        """There is work: begin within so many seconds."""
        if self._busy or self._stopped:
            return
        when = self.loop.time() + seconds
        if self._timer is not None:
            if self._planned <= when:
                return
            self._timer.cancel()
        self._planned = when
        self._timer = self.loop.call_later(seconds, self._go_on)

    def start(self, then: Callable[..., None], call: Callable[..., object], *arguments: object) -> None:
        """Do it in the thread, then tell `then(result, error)`; nothing else begins meanwhile."""
        self._busy = True

        def done(result: object, error: BaseException | None) -> None:
            self._busy = False
            if error is None:
                self.failed = None
            try:
                then(result, error)
            except Exception as fault:  # of ours: the rest is not to suffer
                self.report(f"the queue is at fault, please tell its developers: {fault!r}")
            self._passing = _freed(self._passing)
            if self.failed is None:
                self._go_on()
            else:
                self.plan(AGAIN)
                self._end_quiet()

        self._workers.do(done, call, *arguments)

    def aside(self, then: Callable[..., None], call: Callable[..., object], *arguments: object) -> None:
        """Do it in the thread, in between, whatever else is under way."""
        self._workers.do(then, call, *arguments)

    async def run(self, call: Callable[..., None], *arguments: object) -> None:
        """Do it in the thread, in between.  Raises TemporaryFailure for an OSError."""
        try:
            await self._workers.run(call, *arguments)
        except OSError as error:
            raise TemporaryFailure(f"{self.where}: {error.strerror or error}; try again") from error

    def fail(self, what: str, error: BaseException) -> None:
        """Work has failed, and will be tried again."""
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        self.failed = f"{what}: {why}"
        self.tell(what, f"{self.failed}; will try again")

    def tell(self, what: str, sentence: str) -> None:
        """Report it, unless the same was told not long ago."""
        if self._seldom.may_say(what, self.loop.time()):
            self.report(sentence)

    def quiet(self) -> "Future[None]":
        """Done when there is nothing to do, or nothing that works just now."""
        return self._waits_in(self._quiet)

    def passed(self) -> "Future[None]":
        """Done when one more batch has ended, or it is quiet: where much is done that is never."""
        return self._waits_in(self._passing)

    def _waits_in(self, waiting: "list[Future[None]]") -> "Future[None]":
        future: Future[None] = self.loop.create_future()
        waiting.append(future)
        if not self._busy:
            self.plan()
        return future

    def look(self) -> None:
        """Something that was waited for may have ended."""
        waits = any(wanted() for wanted, _ in self._kinds) or any(pending() for pending in self._blocks)
        if not self._busy and not waits:
            self._end_quiet()

    async def stop(self) -> None:
        """Begin nothing any more; returns when what was begun has ended."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._end_quiet()
        await self._workers.close()

    def _go_on(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._busy or self._stopped:
            return
        count = len(self._kinds)
        for step in range(count):
            wanted, begin = self._kinds[(self._turn + step) % count]
            if wanted():
                self._turn += step + 1
                begin()
                if self._busy:
                    return
        self.look()

    def _end_quiet(self) -> None:
        self._quiet, self._passing = _freed(self._quiet), _freed(self._passing)


def _freed(waiting: "list[Future[None]]") -> "list[Future[None]]":
    """Nobody waits any more."""
    for future in waiting:
        if not future.done():
            future.set_result(None)
    return []
