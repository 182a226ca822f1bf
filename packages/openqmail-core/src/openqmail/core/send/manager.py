"""qmail-send's mind: told what happened, it says what to do next.

Pure: no clock, no disk, no network.  `handle(event, now)` returns actions (see `events`) and
raises for no order of events; what it does not know it ignores.  It writes qmail-log(5)'s lines and
tries again by qmail's schedule, a message's local and remote recipients each by their own.  What it
works on just now is in `work`; what is only waiting for its time is a number in the `backlog`, and
is loaded when that has come.  A message ends, and is forgotten, only when the queue has recorded it.
"""

from collections.abc import Callable
from math import inf
from random import Random
from typing import Any

from openqmail.core.control.settings import Settings
from openqmail.core.log import (
    MessageInfo,
    NewMessage,
    Status,
)
from openqmail.core.ports import DestinationState
from openqmail.core.send.backlog import Backlog
from openqmail.core.send.destination import SLOW
from openqmail.core.send.events import (
    Accepted,
    Action,
    BounceFailed,
    Event,
    Finished,
    Flush,
    Known,
    Loaded,
    NotifyFailed,
    Recorded,
    Reported,
    Stop,
    Take,
    Taken,
    Unreadable,
    Wake,
)
from openqmail.core.send.tally import Tally
from openqmail.core.send.work import Work

ACTIVE = 20_000
"""Messages with details in memory, beyond which only numbers are kept."""
READ_AGAIN = 60
"""Seconds until a message that could not be read from the queue is asked for again."""


class SendManager:
    """`pid`: whose the bounces are, in the log; `seed`: of what is drawn by lot."""

    def __init__(self, settings: Settings, pid: int, seed: int) -> None:
        random = Random(seed)
        self._backlog = Backlog(random)
        self._work = work = Work(settings, pid, random, self._backlog)
        self._handlers: dict[type, Callable[[Any], None]] = {
            Accepted: self._accepted,
            Known: self._known,
            Loaded: self._loaded,
            Unreadable: self._unreadable,
            Finished: work.finished,
            Reported: work.reported,
            Recorded: work.recorded,
            BounceFailed: work.bounce_failed,
            NotifyFailed: work.notify_failed,
            Take: self._take,
            Wake: self._wake,
            Flush: self._flush,
            Stop: self._stop,
        }

    # --- the face -----------------------------------------------------------------------

    def handle(self, event: Event, now: float) -> list[Action]:
        """What to do about `event`, which happens at `now` (seconds UTC), in this order."""
        work = self._work
        work.now = now
        out = work.out = []
        if work.remote.running and not 0.0 <= now - work.looked < SLOW:  # the clock may have been set
            work.look()
        self._handlers[type(event)](event)
        if not work.stopped:
            local, remote, due = work.local, work.remote, self._backlog.due
            if local.round or remote.round or remote.strange or remote.slow:
                work.start()
            if local.recalled or remote.recalled:
                self._backlog.recall(local)
                self._backlog.recall(remote)
            if due.heap or due.ready or remote.rests:
                self._load()
        return out

    def reconfigure(self, settings: Settings) -> None:
        """New settings (HUP), in force from the next event on; what is in line keeps its route."""
        self._work.reconfigure(settings)

    def running(self) -> tuple[int, int]:
        """Slots in use: local, remote."""
        return self._work.local.running, self._work.remote.running

    def status(self) -> Status:
        return self._work.status()

    def destination(self, domain: bytes) -> DestinationState | None:
        """What is known of a remote destination: its domain (lower case) and `Routes.mark`; None: nothing."""
        return self._work.remote.state(domain)

    def resting(self) -> dict[bytes, int]:
        """The remote destinations that are left alone now, and until when (seconds UTC)."""
        return self._work.remote.resting()

    @property
    def tally(self) -> Tally:
        return self._work.tally

    @property
    def idle(self) -> bool:
        """No delivery runs or waits for its result, and no write is under way."""
        return self._work.idle

    @property
    def messages(self) -> int:
        """How many messages there are in all."""
        return len(self._work.active) + self.waiting

    @property
    def waiting(self) -> int:
        """How many of them wait for their time or for room, known by number only."""
        return len(self._backlog) + self._work.local.parked + self._work.remote.parked

    # --- messages come ------------------------------------------------------------------

    def _accepted(self, event: Accepted) -> None:
        stored = event.stored
        number, envelope = stored.id.number, stored.envelope
        if number in self._work.active:
            return
        origin = envelope.origin
        self._work.tally.accepted += 1
        self._work.out.append(NewMessage(number))
        self._work.out.append(MessageInfo(number, stored.size, envelope.sender, origin.pid, origin.uid))
        if self._work.stopped or len(self._work.active) >= ACTIVE:
            self._backlog.add(number, 0)
        else:
            self._work.activate(number, stored, self._work.now)

    def _known(self, event: Known) -> None:
        if event.number not in self._work.active:
            self._backlog.add(event.number, event.due, urgent=event.urgent)

    def _loaded(self, event: Loaded) -> None:
        number, stored = event.number, event.stored
        came = self._backlog.came(number)
        if came is None:
            return
        if came.wanted:
            self._work.out.append(Taken(number))
        elif stored is not None and stored.held is None and number not in self._work.active:
            if self._work.stopped:
                self._backlog.add(number, 0)
            else:
                self._work.activate(number, stored, inf if came.all_due else self._work.now, came.urgent)
        self._backlog.arrived(number)

    def _unreadable(self, event: Unreadable) -> None:
        number = event.number
        came = self._backlog.came(number)
        if came is None:
            return
        if came.wanted:
            self._work.out.append(Taken(number))
        else:
            self._backlog.add(number, int(self._work.now) + READ_AGAIN, urgent=came.urgent)
        self._backlog.arrived(number)

    # --- messages are taken away --------------------------------------------------------

    def _take(self, event: Take) -> None:
        numbers = event.numbers
        self._backlog.withdraw(numbers)
        self._work.local.withdraw(numbers)
        self._work.remote.withdraw(numbers)
        for number in numbers:
            message = self._work.active.get(number)
            if message is not None:
                message.wanted = True
                message.waiting = 0
                self._work.advance(message)
            elif self._backlog.lets_go(number):
                self._work.out.append(Taken(number))

    # --- time ---------------------------------------------------------------------------

    def _wake(self, event: Wake) -> None:
        self._backlog.woke()
        self._work.remote.resume(self._work.now)

    def _flush(self, event: Flush) -> None:
        self._work.remote.forgive()
        self._backlog.due.flush()

    def _stop(self, event: Stop) -> None:
        if not self._work.stopped:
            self._work.stopped = True
            if any(self.running()):
                self._work.out.append(self._work.status())  # "exitasap", and what is waited for
        self._work.abandoned = self._work.abandoned or event.abandon

    def _load(self) -> None:
        work = self._work
        rests, room = work.remote.rests, ACTIVE - len(work.active)
        work.out += self._backlog.load(work.now, room, work.active, rests[0][0] if rests else None)
