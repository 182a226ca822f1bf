"""The queue at work: store, sender, administrator's verbs, trigger and record, made and ended together.

The same in a process of its own and in one that does everything: what differs is who delivers,
which is behind the ports.
"""

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from openqmail.core.control.home import Home
from openqmail.core.control.settings import Settings
from openqmail.core.hooks import load_chain
from openqmail.core.log import Alert, Log, Notice
from openqmail.core.log.history import History
from openqmail.core.ports import LocalDelivery, RemoteDelivery
from openqmail.core.queue import LocalStore, Trigger
from openqmail.core.send import Routes, Sender, SendManager, StoredQueue
from openqmail.core.service.figures import CHANNELS
from openqmail.core.values import Outcome
from openqmail.core.values.address import Channel
from openqmail.core.world import Clock, Disk

T = TypeVar("T")

_OUTCOMES = (Outcome.SUCCESS, Outcome.DEFERRAL, Outcome.FAILURE)
"""As figures.py has them."""

_SELDOM = 500


class Ending:
    """How long an end may take: until a time of the loop's clock, or until told to end at once."""

    def __init__(self, seconds: float, hurried: asyncio.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._until = self._loop.time() + seconds
        self._hurried = hurried

    @property
    def at_once(self) -> bool:
        return self._hurried.is_set()

    async def wait(self, work: Coroutine[Any, Any, T]) -> T | None:
        """What the work gives; None when there was no time for it, and it was broken off."""
        task = self._loop.create_task(work)
        hurried = self._loop.create_task(self._hurried.wait())
        left = max(self._until - self._loop.time(), 0.0)
        await asyncio.wait((task, hurried), timeout=left, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if task.done():
            return task.result()
        task.cancel()
        return None


class QueueFigures:
    """What the queue's process counts (see figures.py).  What takes a look at every message is looked for
    again only after so long that it takes a five-hundredth of the time."""

    def __init__(self, queueing: "Queueing") -> None:
        self._queueing = queueing
        self._look_again = 0.0
        self._totals = (0,) * 5
        self._resting = 0

    def numbers(self) -> Mapping[str, Sequence[int]]:
        began = time.monotonic()
        sender, tally = self._queueing.sender, self._queueing.sender.tally
        if began >= self._look_again:
            totals = self._queueing.store.totals()
            self._totals = (totals.messages, totals.recipients, totals.deferred, totals.held, totals.bytes)
            self._resting = len(sender.resting())
            self._look_again = began + (time.monotonic() - began) * _SELDOM
        messages, recipients, deferred, held, size = self._totals
        segments, journal = self._queueing.store.journal()
        deliveries = tally.deliveries
        return {
            "queue_messages": (messages,),
            "queue_recipients": (recipients,),
            "queue_deferred_messages": (deferred,),
            "queue_held_messages": (held,),
            "destinations_resting": (self._resting,),
            "queue_bytes": (size,),
            "journal_bytes": (journal,),
            "journal_segments": (segments,),
            "deliveries_running": sender.running,
            "deliveries_total": tuple(
                deliveries[channel][outcome] for channel in CHANNELS for outcome in _OUTCOMES
            ),
            "queued_messages_total": (tally.accepted,),
            "bounces_total": (tally.bounces,),
            "time_in_queue_seconds": (*tally.in_queue, tally.seconds),
        }


class Queueing:
    """`fatal`: told when the queue cannot be written to any more, after which it must be ended."""

    def __init__(
        self,
        home: Home,
        settings: Settings,
        disk: Disk,
        clock: Clock,
        log: Log,
        local: LocalDelivery,
        remote: RemoteDelivery,
        fatal: Callable[[BaseException], None],
        salvage: bool,
    ) -> None:
        self._settings = settings
        self._history = History(log, os.path.join(home.queue, "history"), clock, settings.historydays)
        self._log = log = self._history
        self._fatal = fatal
        self._routes = Routes(settings)
        self._folder = os.fsencode(home.queue)
        self.store = LocalStore(
            disk, clock, self._folder, self._lost, route=self._place, salvage=salvage, report=self._report
        )
        manager = SendManager(settings, os.getpid(), int.from_bytes(os.urandom(8)))
        self._clock = clock
        hooks = load_chain(settings, log, clock, "send")
        self.sender = Sender(manager, self.store, local, remote, settings, clock, log, log.made, hooks)
        self.admin = StoredQueue(self.store, lambda: self._settings, self.sender, clock, log)
        self._trigger: Trigger | None = None

    def start(self) -> str:
        """Recover the queue and begin; what was found, in words, empty for an empty queue.

        Raises QueueDamaged, HomeError."""
        count = self.sender.start()
        self._history.reconfigure(self._settings.historydays)
        self._trigger = Trigger(self._folder, asyncio.get_running_loop(), self.store.look)
        held = self.store.totals().held
        count += held
        found = f"{count} message{'s' * (count != 1)} in the queue" if count else ""
        return found + (f", {held} of them held" if held else "")

    def reconfigure(self, settings: Settings) -> None:
        """Raises ControlError for a hook that cannot be made; then all is as before."""
        hooks = load_chain(settings, self._log, self._clock, "send")
        self._settings = settings
        self._routes = Routes(settings)
        self.sender.reconfigure(settings, hooks)
        self._history.reconfigure(settings.historydays)

    async def drained(self) -> bool:
        """When every delivery under way has ended and is recorded; nothing new is begun."""
        await self.sender.drain()
        return True

    async def close(self, ending: Ending, *, settle: bool) -> bool:
        """What stays goes to qmail's layout, if it is to; whether everything did."""
        if self._trigger is not None:
            self._trigger.close()
        self.sender.stop()
        await ending.wait(self.admin.close())
        if settle and not ending.at_once:
            await ending.wait(self.store.settle())
        left = self.store.unsettled() if settle else 0
        if left:
            stay, them = ("messages stay", "them") if left > 1 else ("message stays", "it")
            self._log(Notice(f"{left} {stay} in the journal; 'openqmail queue settle' moves {them}"))
        await self.store.close()
        await ending.wait(self._history.close())
        return not left

    # --- for the store --------------------------------------------------------------------

    def _place(self, recipient: bytes) -> tuple[Channel, bytes]:
        """By the settings of the moment."""
        return self._routes.place(recipient)

    def _report(self, sentence: str) -> None:
        self._log(Alert(sentence))

    def _lost(self, error: BaseException) -> None:
        self._log(Alert(f"the queue cannot be written to: {error}; ending"))
        self._fatal(error)
