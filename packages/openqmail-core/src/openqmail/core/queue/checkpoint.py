"""From "written" to "a fact": which of the files that deliveries have renamed are durable.

About once a second the list of files so far is handed to `sync` (local's), one list at a
time; what it says of a delivery's files is told to the delivery.  It syncs nothing by
itself and keeps no clock of its own but the loop's timers.
"""

import asyncio
from asyncio import AbstractEventLoop, Future, TimerHandle
from collections.abc import Callable, Sequence

from openqmail.core.ports import Written

Sync = Callable[[Sequence[Written]], "Future[tuple[bool, ...]]"]


class Checkpoint:
    """`sync`: makes files durable, and says for each whether it is."""

    def __init__(self, sync: Sync, interval: float = 1.0, loop: AbstractEventLoop | None = None) -> None:
        self._sync = sync
        self._interval = interval
        self._loop = loop or asyncio.get_running_loop()
        self._waiting: list[tuple[tuple[Written, ...], Future[bool]]] = []
        self._timer: TimerHandle | None = None
        self._running = False
        self._hurried = False

    def cover(self, written: tuple[Written, ...]) -> "Future[bool]":
        """Done when the next checkpoint has covered these files: True when all of them are
        durable; False when any could not be made so, and is to be written anew."""
        future: Future[bool] = self._loop.create_future()
        self._waiting.append((written, future))
        if self._timer is None and not self._running:
            self._timer = self._loop.call_later(self._interval, self._begin)
        return future

    def hurry(self) -> None:
        """Nothing else runs: do not wait for the second to pass."""
        if not self._waiting:
            return
        if self._running:
            self._hurried = True
        else:
            self._begin()

    @property
    def busy(self) -> bool:
        """Whether anything waits to become a fact."""
        return self._running or bool(self._waiting)

    def _begin(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        taken, self._waiting = self._waiting, []
        self._running, self._hurried = True, False
        try:
            syncing = self._sync([file for written, _ in taken for file in written])
        except Exception:
            self._end(taken, None)
            return
        syncing.add_done_callback(lambda done: self._end(taken, done))

    def _end(
        self, taken: list[tuple[tuple[Written, ...], Future[bool]]], done: "Future[tuple[bool, ...]] | None"
    ) -> None:
        self._running = False
        failed = done is None or done.cancelled() or done.exception() is not None
        durable = () if failed or done is None else done.result()
        at = 0
        for written, future in taken:
            mine = durable[at : at + len(written)]
            at += len(written)
            if not future.done():
                future.set_result(len(mine) == len(written) and all(mine))
        if self._waiting and self._timer is None and not self._running:
            if self._hurried:
                self._begin()
            else:
                self._timer = self._loop.call_later(self._interval, self._begin)
