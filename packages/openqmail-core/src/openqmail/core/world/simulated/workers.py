"""Workers without threads: each call is made in the loop, at a moment drawn by lot.

Between a call and its answer time passes, too, so whatever may come between comes between in
some seed.  A PowerCut that a call raises is nobody's answer: it ends the simulated process.
"""

from asyncio import AbstractEventLoop, Future
from collections import deque
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from openqmail.core.world.simulated.power import PowerCut
from openqmail.core.world.workers import Then, settle

SLOWEST = 0.02
"""Seconds, virtual, that a call and its answer take at most."""


class SimulatedWorkers:
    """`Workers` of `count` at a time.

    `on_power_cut` is told of a PowerCut that a call raised (by default it is raised in the loop, which
    stops a SimulatedLoop); after
    that nothing is done or told any more."""

    def __init__(
        self,
        loop: AbstractEventLoop,
        random: Random,
        count: int = 1,
        on_power_cut: Callable[[PowerCut], None] | None = None,
    ) -> None:
        self._loop = loop
        self._random = random
        self._free = count
        self._on_power_cut = on_power_cut or _raise
        self._calls: deque[tuple[Then, Callable[..., Any], tuple[Any, ...]]] = deque()
        self._answers: deque[tuple[Then, Any, BaseException | None]] = deque()
        self._given = 0
        self._idle: Future[None] | None = None
        self._state = "open"

    def do(self, then: Then, call: Callable[..., Any], *arguments: Any) -> None:
        if self._state == "closed":
            raise RuntimeError("these workers are closed")
        self._given += 1
        self._calls.append((then, call, arguments))
        self._take()

    def run(self, call: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        future: Future[Any] = self._loop.create_future()
        self.do(partial(settle, future), call, *arguments)
        return future

    async def close(self) -> None:
        while self._given:
            if self._idle is None:
                self._idle = self._loop.create_future()
            await self._idle
        self._state = "closed"

    def _take(self) -> None:
        if self._free and self._calls:
            self._free -= 1
            self._later(self._make, *self._calls.popleft())

    def _make(self, then: Then, call: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        if self._state == "cut":
            return
        result, error = None, None
        try:
            result = call(*arguments)
        except PowerCut as power_cut:
            self._state = "cut"
            self._on_power_cut(power_cut)
            return
        except BaseException as caught:
            error = caught
        self._free += 1
        # Answers come in the order in which the calls ended, as they do from threads.
        self._answers.append((then, result, error))
        self._later(self._tell)
        self._take()

    def _tell(self) -> None:
        if self._state == "cut":
            return
        then, result, error = self._answers.popleft()
        try:
            then(result, error)
        finally:
            self._given -= 1
            if not self._given and self._idle is not None:
                settle(self._idle, None, None)
                self._idle = None

    def _later(self, call: Callable[..., Any], *arguments: Any) -> None:
        """At a moment drawn by lot: often at once, before what is due at the same time."""
        if self._random.random() < 0.3:
            self._loop.call_soon(call, *arguments)
        else:
            self._loop.call_later(self._random.random() * SLOWEST, call, *arguments)


def _raise(power_cut: PowerCut) -> None:
    raise power_cut
