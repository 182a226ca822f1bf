"""An asyncio loop in which time passes only by going on to what is due next.

Nothing waits, so a story of days takes milliseconds, and the same story comes out the same.
Sockets and threads are of the real world and do not belong in it: when only they could go on,
NothingHappens is raised instead of waiting.
"""

import asyncio
import selectors
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple

from openqmail.core.world.clock import SimulatedClock
from openqmail.core.world.simulated.power import PowerCut

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


class NothingHappens(RuntimeError):
    """Everything in the loop waits, and nothing is due."""


class SimulatedLoop(asyncio.SelectorEventLoop):
    """For `asyncio.Runner(loop_factory=lambda: SimulatedLoop(clock))`.

    When a callback raises PowerCut, or `cut` is called (it may be a disk's
    `faults.on_power_cut`), the loop ends with the callback that runs just then: who runs it gets
    the PowerCut raised.  `is_cut` is true from then on; the loop may then be run to clean up,
    and nothing of what that does has happened."""

    def __init__(self, clock: SimulatedClock | None = None) -> None:
        self.clock = clock or SimulatedClock()
        self.is_cut = False
        self._power_cut: PowerCut | None = None
        self._undone: list[asyncio.Handle] = []
        super().__init__(_Next(self.clock))

    def time(self) -> float:
        return self.clock.monotonic()

    def cut(self, power_cut: PowerCut) -> None:
        """The power is cut."""
        if self.is_cut:
            return
        self.is_cut, self._power_cut = True, power_cut
        # stop() lets those go on that are ready: they must not.
        ready: deque[asyncio.Handle] = self._ready  # type: ignore[attr-defined]
        self._undone = list(ready)
        for at in range(len(ready)):
            ready[at] = asyncio.Handle(lambda: None, (), self)
        self.stop()

    def run_forever(self) -> None:
        super().run_forever()
        power_cut, self._power_cut = self._power_cut, None
        if power_cut is not None:
            self._ready.extendleft(reversed(self._undone))  # type: ignore[attr-defined]
            self._undone.clear()
            raise power_cut

    def call_exception_handler(self, context: "asyncio.events._Context") -> None:
        error = context.get("exception")
        if isinstance(error, PowerCut):
            self.cut(error)
        else:
            super().call_exception_handler(context)

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*_Ts], _T], *args: *_Ts
    ) -> asyncio.Future[_T]:
        raise RuntimeError("there are no threads in simulated time: hand the call to SimulatedWorkers")


class _Next(selectors.DefaultSelector):
    """Goes on to the next timer where others wait for it."""

    def __init__(self, clock: SimulatedClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(0)
        if not found:
            if timeout is None:
                raise NothingHappens("everything waits and nothing is due: nothing will ever happen")
            self._clock.advance(max(timeout, 0.0))
        return found
