"""Threads, as a seam: what blocks is done off the event loop, its answer comes in the loop.

With one thread the calls run one after the other, in the order in which they were given, and
their answers come in that order.  Everything here is called in the loop.
"""

from asyncio import AbstractEventLoop, Future
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, Protocol

Then = Callable[[Any, BaseException | None], None]
"""Takes a result and None, or None and what was raised."""


class Workers(Protocol):
    """Who does what blocks."""

    def do(self, then: Then, call: Callable[..., Any], *arguments: Any) -> None:
        """Run `call(*arguments)` off the loop, then `then(result, None)` or `then(None, error)` in it."""
        ...

    def run(self, call: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        """The same with a future; who cancels it gives up the answer, not the call."""
        ...

    async def close(self) -> None:
        """Returns when all that was given, and what its answers gave, is done and told."""
        ...


class ThreadWorkers:
    """Threads of their own.  A process that ends does not wait for them (they are daemons).

    Answers for a loop that has been closed are dropped."""

    def __init__(self, loop: AbstractEventLoop, count: int, name: str) -> None:
        self._loop = loop
        self._given = 0
        self._idle: Future[None] | None = None
        # Not concurrent.futures: a batch of the queue would pay for two futures and their locks.
        self._calls: SimpleQueue[tuple[Then, Callable[..., Any], tuple[Any, ...]] | None] = SimpleQueue()
        self._threads = [Thread(target=self._work, name=f"{name}-{at}", daemon=True) for at in range(count)]
        for thread in self._threads:
            thread.start()

    def do(self, then: Then, call: Callable[..., Any], *arguments: Any) -> None:
        if not self._threads:
            raise RuntimeError("these workers are closed")
        self._given += 1
        self._calls.put((then, call, arguments))

    def run(self, call: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        future: Future[Any] = self._loop.create_future()
        self.do(partial(settle, future), call, *arguments)
        return future

    async def close(self) -> None:
        while self._given:
            if self._idle is None:
                self._idle = self._loop.create_future()
            await self._idle
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _tell(self, then: Then, result: Any, error: BaseException | None) -> None:
        try:
            then(result, error)
        finally:
            self._given -= 1
            if not self._given and self._idle is not None:
                settle(self._idle, None, None)
                self._idle = None

    def _work(self) -> None:
        while (given := self._calls.get()) is not None:
            then, call, arguments = given
            result, error = None, None
            try:
                result = call(*arguments)
            except BaseException as caught:
                error = caught
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._tell, then, result, error)
            del given, then, call, arguments, result, error  # a body may hang on it until the next call


class UnwaitedThreads(ThreadPoolExecutor):
    """A loop's default executor, where somebody else's code may hand it what never returns: a process that
    ends does not wait for that."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait=False, cancel_futures=True)


def settle(future: "Future[Any]", result: Any, error: BaseException | None) -> None:
    """The `Then` of a future."""
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
