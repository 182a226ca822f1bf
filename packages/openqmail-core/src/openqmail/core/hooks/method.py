"""One method of one hook: how it is called, how long it may take, and what its failure counts as.

A hook that raises, takes longer than its time or answers what makes no sense defers, and the log says
so; with `on_error=pass` it is passed over.  Nothing here raises but what `call` does.
"""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from openqmail.core.log import Alert, Log
from openqmail.core.values import Defer, Reply

TIMEOUT = 60.0
"""Seconds that one hook may take for one step, where its line says nothing else."""

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

    __slots__ = ("_log", "_named", "_step", "call")

    def __init__(self, named: Named, step: str, log: Log) -> None:
        self.call: Callable[..., Any] = getattr(named.hook, step)
        self._named = named
        self._step = step
        self._log = log

    def beside(self, *facts: Any) -> Any:
        """As `call`, where it may read the disk and nobody else should wait for that: in a thread, but for an
        async one, which sees to that itself."""
        if inspect.iscoroutinefunction(self.call):
            return self.call(*facts)
        return asyncio.get_running_loop().run_in_executor(None, self.call, *facts)

    async def awaited(self, answer: Any) -> Any:
        """What it answers in the end, when it waits.  Its failure counts as that."""
        seconds = self._named.timeout
        try:
            async with asyncio.timeout(seconds) as limit:
                return await answer
        except Exception as error:
            if isinstance(error, TimeoutError) and limit.expired():
                return self.failed(f"took more than {seconds:g} seconds at {self._step}")
            return self.failed(error)

    def senseless(self, answer: Any) -> Any:
        """As `failed`, of what it answered."""
        return self.failed(f"answered {answer!r} at {self._step}")

    def failed(self, error: BaseException | str) -> Any:
        """What a hook that did not do its work counts as: `BROKEN` or `PASSED`."""
        passes = self._named.on_error == "pass"
        why = error if isinstance(error, str) else f"failed at {self._step}: {error!r}"
        self._log(Alert(f"hook {self._named.name} {why}; {'passed over' if passes else 'deferred'}"))
        return PASSED if passes else BROKEN


Waiting = tuple[Method, Any]
"""Who has been asked and answers later, and what is to be awaited."""
