"""Group commit: one thread writes and syncs what came together while it was at work.

The loop gathers items; whenever the thread is free it is handed all of them, and it
answers once for all that are settled.  Submissions are synced at once, results within
50 ms.  The `Journal` is the thread's alone until `close` has returned.
"""

from asyncio import AbstractEventLoop, Future, TimerHandle
from collections.abc import Callable
from typing import Any

from openqmail.core.queue.journal import Item, Journal, JournalLost
from openqmail.core.values import TemporaryFailure
from openqmail.core.world import Workers

SYNC_WITHIN = 0.01
"""Seconds until results that came alone are synced; 50 ms with the sync itself are promised."""

RETRY_AFTER = 1.0
"""Seconds until results that found no room are tried again."""


class Committer:
    """`settle` is called in the loop with items that are durable or have failed (`item.error`);
    `lost` once, when nothing can be written any more, before the items are settled."""

    def __init__(
        self,
        loop: AbstractEventLoop,
        workers: Workers,
        journal: Journal,
        settle: Callable[[list[Item]], None],
        lost: Callable[[JournalLost], None],
    ) -> None:
        self._loop = loop
        self._workers = workers
        self._journal = journal
        self._settle = settle
        self._lost = lost
        self._pending: list[Item] = []
        self._outstanding: list[Item] = []
        """Handed to the thread and not settled yet."""
        self._busy = False
        self._scheduled = False
        self._wants_sync = False
        self._wants_drop = False
        self._timer: TimerHandle | None = None
        self._closed: Future[None] | None = None
        self.error: JournalLost | None = None

    def add(self, item: Item) -> None:
        """Have it written after all that were added before."""
        if self.error is not None:
            self._fail([item], self.error)
            return
        self._pending.append(item)
        if item.submission:
            self._wants_sync = True
        if not self._busy and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._hand_over)

    def drop(self) -> None:
        """Have the segments removed that are not needed."""
        self._wants_drop = True
        if not self._busy and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._hand_over)

    def run(self, call: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        """Something else that is to be done with the journal, in its thread."""
        return self._workers.run(call, *arguments)

    async def close(self) -> None:
        """Write and sync everything that was added, and end the journal."""
        if self.error is None and self._closed is None:
            self._closed = self._loop.create_future()
            self._wants_sync = True
            if not self._busy:
                self._hand_over()
        if self._closed is not None:
            await self._closed

    # --- in the loop ------------------------------------------------------------------------

    def _hand_over(self) -> None:
        self._scheduled = False
        if self._busy or self.error is not None:
            return
        batch, self._pending = self._pending, []
        sync, self._wants_sync = self._wants_sync, False
        drop, self._wants_drop = self._wants_drop, False
        self._outstanding.extend(batch)
        if sync and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._busy = True
        self._workers.do(self._done, self._journal.commit, batch, sync, drop)
        if not sync:
            self._sync_in(SYNC_WITHIN)

    def _sync_in(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(seconds, self._sync_now)

    def _sync_now(self) -> None:
        self._timer = None
        self._wants_sync = True
        if not self._busy:
            self._hand_over()

    def _done(self, settled: list[Item], error: BaseException | None) -> None:
        if error is not None:
            self._failed(error)
            return
        self._busy = False
        self._strike(settled)
        if self._pending or self._wants_sync or self._wants_drop:
            self._hand_over()
        elif self._closed is not None:
            self._busy = True
            self._workers.do(self._ended, self._journal.end)
        elif self._journal.held:  # the thread is idle: it has no work
            self._sync_in(RETRY_AFTER)
        self._settle(settled)

    def _strike(self, settled: list[Item]) -> None:
        """They are outstanding no longer; mostly that is all of them, or none."""
        if len(settled) == len(self._outstanding):
            self._outstanding = []
        elif settled:
            struck = set(map(id, settled))
            self._outstanding = [item for item in self._outstanding if id(item) not in struck]

    def _ended(self, settled: list[Item], error: BaseException | None) -> None:
        if error is not None:
            self._failed(error)
            return
        self._strike(settled)
        self._settle(settled)
        self._stop(JournalLost("the queue is closed"))

    def _failed(self, error: BaseException) -> None:
        """Whatever it is, nothing may be promised any more."""
        if not isinstance(error, JournalLost):
            error = JournalLost(f"the queue's journal stopped: {error!r}")
        self._lost(error)
        self._stop(error)

    def _stop(self, error: JournalLost) -> None:
        self.error = error
        items = [*self._outstanding, *self._pending]
        self._outstanding, self._pending = [], []
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._fail(items, error)
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(None)

    def _fail(self, items: list[Item], error: JournalLost) -> None:
        for item in items:
            item.error = TemporaryFailure(str(error))
        self._settle(items)
