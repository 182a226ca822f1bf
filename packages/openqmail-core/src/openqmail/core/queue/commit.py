"""Group commit: one thread writes and syncs what came together while it was at work.

The loop gathers items; whenever the thread is free it is handed all of them, and it
answers once for all that are settled.  Submissions are synced at once, results within
50 ms.  The `Journal` is the thread's alone while `start` has been called and `close` has
not returned.
"""

import threading
from asyncio import AbstractEventLoop, Future, TimerHandle
from collections.abc import Callable
from queue import SimpleQueue

from openqmail.core.queue.journal import Item, Journal, JournalLost
from openqmail.core.values import TemporaryFailure

SYNC_WITHIN = 0.04
"""Seconds until results that came alone are synced: 50 ms with the sync itself."""

RETRY_AFTER = 1.0
"""Seconds until results that found no room are tried again."""


class Committer:
    """`settle` is called in the loop with items that are durable or have failed (`item.error`);
    `lost` once, when nothing can be written any more, before the items are settled."""

    def __init__(
        self,
        loop: AbstractEventLoop,
        journal: Journal,
        settle: Callable[[list[Item]], None],
        lost: Callable[[JournalLost], None],
    ) -> None:
        self._loop = loop
        self._journal = journal
        self._settle = settle
        self._lost = lost
        self._pending: list[Item] = []
        self._outstanding: list[Item] = []
        """Handed to the thread and not settled yet."""
        self._queue: SimpleQueue[tuple[list[Item], bool] | None] = SimpleQueue()
        self._busy = False
        self._scheduled = False
        self._wants_sync = False
        self._timer: TimerHandle | None = None
        self._closed: Future[None] | None = None
        self.error: JournalLost | None = None
        self._thread = threading.Thread(target=self._work, name="journal", daemon=True)

    def start(self) -> None:
        self._thread.start()

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

    async def close(self) -> None:
        """Write and sync everything that was added, and end the thread."""
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
        self._outstanding.extend(batch)
        if sync and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._busy = True
        self._queue.put((batch, sync))
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

    def _done(self, settled: list[Item], held: bool) -> None:
        self._busy = False
        self._strike(settled)
        if self._pending or self._wants_sync:
            self._hand_over()
        elif self._closed is not None:
            self._busy = True
            self._queue.put(None)
        elif held:
            self._sync_in(RETRY_AFTER)
        self._settle(settled)

    def _strike(self, settled: list[Item]) -> None:
        """They are outstanding no longer; mostly that is all of them, or none."""
        if len(settled) == len(self._outstanding):
            self._outstanding = []
        elif settled:
            struck = set(map(id, settled))
            self._outstanding = [item for item in self._outstanding if id(item) not in struck]

    def _ended(self, settled: list[Item]) -> None:
        self._strike(settled)
        self._settle(settled)
        self._stop(JournalLost("the queue is closed"))

    def _failed(self, error: JournalLost) -> None:
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

    # --- in the thread ------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while (job := self._queue.get()) is not None:
                settled = self._journal.commit(*job)
                self._loop.call_soon_threadsafe(self._done, settled, bool(self._journal.held))
            settled = self._journal.end()
            self._loop.call_soon_threadsafe(self._ended, settled)
        except JournalLost as error:
            self._tell(error)
        except Exception as error:  # whatever it is, nothing may be promised any more
            self._tell(JournalLost(f"the queue's journal stopped: {error!r}"))

    def _tell(self, error: JournalLost) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._failed, error)
