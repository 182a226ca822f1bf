"""One method of one hook: how it is called, how long it may take, and what its failure counts as.

A hook that raises, takes longer than its time or answers what makes no sense defers, and the log says
so; with `on_error=pass` it is passed over.  Nothing here raises but what `call` does.

A plain method that reads from the disk is called in one of a few threads of this hook's alone: one that
never returns keeps these, and no other hook and nothing of core waits for it.  A function that it gives
as a new body of a large message is its work as well: it is called in a few more, whoever reads, so that no
message that is read waits for others to be looked at.
"""

import asyncio
import contextlib
import inspect
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, NamedTuple

from openqmail.core.hooks.edits import Edits, Pieces
from openqmail.core.hooks.failure import FAILURES, module_of, told
from openqmail.core.log import Alert, Log
from openqmail.core.values import Defer, Reply, TemporaryFailure

TIMEOUT = 60.0
"""Seconds that one hook may take for one step, where its line says nothing else."""

THREADS = 4
"""In which a hook's plain method is called at once, and as many for functions that give bodies; further calls
wait, in the time that the hook has."""

BROKEN = Defer(Reply(451, b"4.3.0", (b"a check of ours failed; try again later",)))
"""What a hook that failed answers."""

PASSED: Any = object()
"""In place of an answer, of a hook that failed and is passed over."""


class Named(NamedTuple):
    """A hook, and what its line of `control/hooks` says of it."""

    name: str
    hook: object
    timeout: float = TIMEOUT
    on_error: Literal["defer", "pass"] = "defer"


class Method:
    """What a hook has for one step.  `call`: its method itself, with nothing in between."""

    __slots__ = ("_log", "_named", "_pools", "_step", "call")

    def __init__(self, named: Named, step: str, log: Log) -> None:
        self.call: Callable[..., Any] = getattr(named.hook, step)
        self._named = named
        self._step = step
        self._log = log
        self._pools: dict[str, ThreadPoolExecutor] = {}

    async def beside(self, *facts: Any) -> Any:
        """As `call`, where it may read the disk and nobody else should wait for that: in a thread, but for an
        async one, which sees to that itself.  The last of `facts` are its edits: a function among them is
        heard to its end once, so that what fails does so here, where the message can go on without."""
        loop = asyncio.get_running_loop()
        if inspect.iscoroutinefunction(self.call):
            answer = await self.call(*facts)
        else:
            answer = await loop.run_in_executor(self._pool("calls"), self.call, *facts)
        edits: Edits = facts[-1]
        if (called := edits.called()) is not None:
            pieces = called()
            while await loop.run_in_executor(self._pool("bodies"), next, pieces, b""):
                pass
        return answer

    def own(self, called: Pieces) -> Pieces:
        """What a function gives, for who reads it in any thread: each piece is made in a thread of this hook,
        in the time that it has.  Else the log says so, and reading raises TemporaryFailure."""
        loop, threads = asyncio.get_running_loop(), self._pool("bodies")

        def read() -> Iterator[bytes]:
            pieces = called()
            while piece := self._piece(loop, threads, pieces):
                yield piece

        return read

    def _piece(
        self, loop: asyncio.AbstractEventLoop, threads: ThreadPoolExecutor, pieces: Iterator[bytes]
    ) -> bytes:
        seconds = self._named.timeout
        work = threads.submit(next, pieces, b"")
        try:
            return work.result(seconds)
        except FAILURES as error:
            if work.done():
                why = self._raised(error)
            else:
                work.cancel()
                why = f"took more than {seconds:g} seconds for a piece of its new body"
            said = Alert(f"hook {self._named.name} {why}; deferred")
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._log, said)
            raise TemporaryFailure(f"hook {self._named.name} {why}") from error

    def _pool(self, work: Literal["calls", "bodies"]) -> ThreadPoolExecutor:
        if work not in self._pools:
            self._pools[work] = ThreadPoolExecutor(THREADS, f"hook-{self._named.name}-{work}")
        return self._pools[work]

    async def awaited(self, answer: Any) -> Any:
        """What it answers in the end, when it waits.  Its failure counts as that."""
        seconds = self._named.timeout
        try:
            async with asyncio.timeout(seconds) as limit:
                return await answer
        except FAILURES as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise  # it is we who are cancelled
            if isinstance(error, TimeoutError) and limit.expired():
                return self.failed(f"took more than {seconds:g} seconds at {self._step}")
            return self.failed(error)

    def senseless(self, answer: Any) -> Any:
        """As `failed`, of what it answered."""
        return self.failed(f"answered {answer!r} at {self._step}")

    def failed(self, error: BaseException | str) -> Any:
        """What a hook that did not do its work counts as: `BROKEN` or `PASSED`."""
        passes = self._named.on_error == "pass"
        why = error if isinstance(error, str) else self._raised(error)
        self._log(Alert(f"hook {self._named.name} {why}; {'passed over' if passes else 'deferred'}"))
        return PASSED if passes else BROKEN

    def _raised(self, error: BaseException) -> str:
        return f"failed at {self._step}: {told(error, module_of(self._named.hook))}"


Waiting = tuple[Method, Any]
"""Who has been asked and answers later, and what is to be awaited."""
