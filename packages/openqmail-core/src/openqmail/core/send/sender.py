"""The shell round the send manager: tells it what happened, does what it asks for.

Serves the port `Submission`.  Events come together in an inbox and are handled once a turn
of the loop, a bounded number at a time, so answers to clients go out first and nothing
waits long.  A local delivery's files become facts at a checkpoint; only then is its result
told to the manager.
"""

import asyncio
import os
from asyncio import AbstractEventLoop, Future
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from openqmail.core.control.settings import Settings
from openqmail.core.hooks import HookChain
from openqmail.core.log import Alert, Log, MessageInfo, Notice
from openqmail.core.ports import (
    DestinationState,
    LargeBody,
    LocalDelivery,
    LocalJob,
    LocalReport,
    RemoteDelivery,
    RemoteJob,
)
from openqmail.core.queue import Checkpoint
from openqmail.core.queue.store import QueueStore, Stored
from openqmail.core.send import events
from openqmail.core.send.manager import SendManager
from openqmail.core.send.notices import Notices
from openqmail.core.send.offspring import Offspring
from openqmail.core.send.tally import Tally
from openqmail.core.send.wishes import passed_on
from openqmail.core.values import (
    Body,
    Envelope,
    MessageId,
    OpenqmailError,
    Origin,
    Outcome,
    Result,
    TemporaryFailure,
)
from openqmail.core.world import Clock

_TURN = 32
"""Events handled before the loop has its turn again."""

_QUIET = 0.1
"""Seconds without any event, after which files are synced without waiting for the second."""

_NOT_KEPT = Result(Outcome.DEFERRAL, b"The disk would not keep the message. (#4.3.0)\n")
_UNREADABLE = Result(Outcome.DEFERRAL, b"Unable to read the message in the queue. (#4.3.0)\n")
_BROKE = Result(Outcome.DEFERRAL, b"The delivery broke. (#4.3.0)\n")

_LONGEST_SLEEP = 60.0
"""Seconds after which the clock is looked at again, should it have been set."""


class Sender:
    """What the queue holds goes out; what comes in goes to the queue."""

    def __init__(
        self,
        manager: SendManager,
        store: QueueStore,
        local: LocalDelivery,
        remote: RemoteDelivery,
        settings: Settings,
        clock: Clock,
        log: Log,
        made: Callable[[int, int, str], object] = lambda number, child, what: None,
        hooks: HookChain | None = None,
    ) -> None:
        """`made` is told that out of a message another one was made, before the events of that: which, and
        whether it is a bounce, a notice or a forward."""
        self._loop: AbstractEventLoop = asyncio.get_running_loop()
        self._manager = manager
        self._store = store
        self._local = local
        self._remote = remote
        self._clock = clock
        self._log = log
        self._checkpoint = Checkpoint(local.sync)
        self._inbox: deque[events.Event] = deque()
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._wake_at = 0.0
        self._turns = 0
        self._watching = False
        self._notices = Notices(store, settings, clock, Origin(os.getuid(), os.getpid()), hooks)
        self._offspring = Offspring(self._notices, self._tell, self._accept, log, made)
        self._ended: Future[None] | None = None
        self._taken: dict[int, Future[None]] = {}
        self._lent: dict[int, Stored | None] = {}
        """Numbers of messages that were taken and not put back yet, and what came in under them since."""

    # --- the port Submission ----------------------------------------------------------

    def large(self) -> LargeBody:
        return self._store.large()

    def submit(self, envelope: Envelope, body: bytes | LargeBody, hold: str = "") -> Future[MessageId]:
        if hold:
            return self._loop.create_task(self._submit_held(envelope, body, hold))
        answer: Future[MessageId] = self._loop.create_future()
        self._store.submit(envelope, body).add_done_callback(partial(self._accepted, answer))
        return answer

    async def _submit_held(self, envelope: Envelope, body: bytes | LargeBody, reason: str) -> MessageId:
        """The manager knows of it when it is released.  One that cannot be held is not taken."""
        stored = await self._store.submit(envelope, body)
        number = stored.id.number
        try:
            await self._store.hold(number, reason)
        except (OSError, KeyError, OpenqmailError) as error:
            await self._store.record(number, (), (0, 0), True)
            raise TemporaryFailure(f"the message could not be held: {error}") from error
        self._log(Notice(f"message {number} is held: {reason}"))
        return stored.id

    def _accepted(self, answer: Future[MessageId], done: Future[Stored]) -> None:
        error = done.exception()
        if error is not None:
            if not answer.cancelled():
                answer.set_exception(error)
            return
        stored = done.result()
        if not answer.cancelled():
            answer.set_result(stored.id)
        self._accept(stored)

    def _accept(self, stored: Stored) -> None:
        """A new message is the manager's; of one whose number is lent it is told when that is put back."""
        if stored.id.number in self._lent:
            self._lent[stored.id.number] = stored
        else:
            self._tell(events.Accepted(stored))

    # --- life -------------------------------------------------------------------------

    def start(self) -> int:
        """Recover the queue and begin; how many messages wait in it."""
        count = 0
        for number, due in self._store.open():
            self._tell(events.Known(number, due))
            count += 1
        self._store.arrivals(self._accept)
        return count

    def flush(self) -> int:
        """Everything is due now, and no host rests; how many messages had waited.  One that fails again
        rests again, and what is for it waits."""
        count = self._manager.waiting
        self._tell(events.Flush())
        return count

    def take(self, numbers: Iterable[int]) -> dict[int, Future[None]]:
        """Start no delivery of these messages any more; each one's future is done when nothing
        of it is under way, and then it is the caller's until it is put back."""
        taken = {number: self._loop.create_future() for number in numbers}
        self._taken |= taken
        self._lent |= dict.fromkeys(taken)
        self._tell(events.Take(frozenset(taken)))
        return taken

    def destination(self, domain: bytes) -> DestinationState | None:
        """What is known of a remote destination: its domain (lower case) and `Routes.mark`; None: nothing."""
        return self._manager.destination(domain)

    def resting(self) -> dict[bytes, int]:
        """The destinations that are left alone as their hosts failed, and until when (seconds UTC)."""
        return self._manager.resting()

    def put_back(self, message: MessageId, due: int | None) -> None:
        """Go on with a message that was taken, when it is due (seconds UTC; 0: all of it now, whatever
        rests); None: there is nothing to go on with.  Or with another one that has its number by now."""
        came = self._lent.pop(message.number, None)
        if came is not None and came.id != message:
            self._tell(events.Accepted(came))
        elif due is not None:
            self._tell(events.Known(message.number, due, urgent=due == 0))

    def reconfigure(self, settings: Settings, hooks: HookChain | None = None) -> None:
        self._notices.hooks = hooks
        self._notices.reconfigure(settings)
        self._manager.reconfigure(settings)
        self._tell(events.Wake())

    def stop(self, *, abandon: bool = False) -> None:
        """Start nothing more.  `abandon`: deliveries under way are about to be broken off."""
        self._tell(events.Stop(abandon))

    async def drain(self) -> None:
        """Start nothing more; returns when what runs has ended and is recorded."""
        self.stop()
        while self._scheduled or not self._manager.idle:
            if not any(self.running):
                self._checkpoint.hurry()
            self._ended = self._loop.create_future()
            await self._ended

    @property
    def tally(self) -> Tally:
        """What has happened so far, counted."""
        return self._manager.tally

    @property
    def running(self) -> tuple[int, int]:
        """Deliveries under way: local, remote."""
        return self._manager.running()

    # --- the inbox --------------------------------------------------------------------

    def _tell(self, event: events.Event) -> None:
        self._inbox.append(event)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        try:
            self._handle_some()
        finally:  # whatever went wrong, what waits is handled
            self._turns += 1
            self._scheduled = bool(self._inbox)
            if self._scheduled:
                self._loop.call_soon(self._turn)
        if self._scheduled:
            return
        if self._checkpoint.busy and not self._watching:
            self._watching = True
            self._loop.call_later(_QUIET, self._if_quiet, self._turns)
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    def _handle_some(self) -> None:
        inbox, handle, now = self._inbox, self._manager.handle, self._clock.now()
        log, action_of = self._log, _ACTIONS.get
        for _ in range(_TURN):
            if not inbox:
                break
            actions: list[Any] = handle(inbox.popleft(), now)
            for action in actions:
                act = action_of(type(action))
                if act is not None:
                    act(self, action)
                else:
                    log(action)

    def _if_quiet(self, turns: int) -> None:
        self._watching = False
        if turns == self._turns:
            self._checkpoint.hurry()
        elif self._checkpoint.busy:
            self._watching = True
            self._loop.call_later(_QUIET, self._if_quiet, self._turns)

    # --- actions ----------------------------------------------------------------------

    def _info(self, event: MessageInfo) -> None:
        self._log(self._offspring.named(event))

    def _load(self, action: events.Load) -> None:
        try:
            stored: Stored | None = self._store.load(action.number)
        except KeyError:
            stored = None
        except (OSError, OpenqmailError) as error:
            why = f"cannot read message {action.number} in the queue: {error}; will try again"
            self._log(Alert(why, action.number))
            self._tell(events.Unreadable(action.number))
            return
        self._tell(events.Loaded(action.number, stored))

    def _body(self, number: int, delivery: int, recipients: int) -> Body | None:
        """What a delivery reads; None when it cannot be read, and the delivery is deferred."""
        try:
            return self._store.body(number)
        except (KeyError, OSError, OpenqmailError) as error:
            self._log(Alert(f"cannot read message {number} in the queue: {error}; deferred", number))
            self._tell(events.Reported(delivery, (_UNREADABLE,) * recipients))
            return None

    def _fault(self, delivery: int, recipients: int, error: BaseException) -> None:
        """A delivery broke in a way that it promised not to: a fault of ours holds no mail up."""
        self._log(Alert(f"delivery {delivery} broke: {error!r}; deferred"))
        self._tell(events.Reported(delivery, (_BROKE,) * recipients))

    def _start_local(self, action: events.StartLocal) -> None:
        stored = action.stored
        body = self._body(stored.id.number, action.delivery, 1)
        if body is None:
            return
        settled = bool(stored.channels)  # it lies in qmail's layout, where no checkpoint covers it
        job = LocalJob(
            action.delivery,
            stored.id,
            stored.birth,
            action.sender,
            action.recipient,
            action.position,
            body,
            action.again or settled,
            synced=settled,
        )
        future = self._local.deliver(job)
        if future.done():  # which spares a turn of the loop
            self._delivered(action, future)
        else:
            future.add_done_callback(partial(self._delivered, action))

    def _delivered(self, action: events.StartLocal, done: Future[LocalReport]) -> None:
        error = done.exception()
        if error is not None:
            self._fault(action.delivery, 1, error)
            return
        report = done.result()
        if not report.written:
            self._settled(action, report)
            return
        self._tell(events.Finished(action.delivery))
        self._checkpoint.cover(report.written).add_done_callback(partial(self._synced, action, report))

    def _synced(self, action: events.StartLocal, report: LocalReport, done: Future[bool]) -> None:
        if not done.result():
            report = LocalReport(_NOT_KEPT)
        self._settled(action, report)

    def _settled(self, action: events.StartLocal, report: LocalReport) -> None:
        """The files are facts; a forward is submitted and the recipient closed in one record."""
        if report.forward is None:
            self._tell(events.Reported(action.delivery, (report.result,)))
            return
        self._offspring.forward(action, report)

    def _start_remote(self, action: events.StartRemote) -> None:
        stored, recipients = action.stored, len(action.recipients)
        envelope = stored.envelope
        body = self._body(stored.id.number, action.delivery, recipients)
        if body is None:
            return
        job = RemoteJob(
            delivery=action.delivery,
            message=stored.id,
            sender=action.sender,
            domain=action.domain,
            recipients=action.recipients,
            body=body,
            smtputf8=envelope.smtputf8,
            envid=envelope.envid,
            ret=envelope.ret,
            dsn=passed_on(envelope, action.positions),
        )
        self._remote.deliver(job).add_done_callback(partial(self._sent, action.delivery, recipients))

    def _sent(self, delivery: int, recipients: int, done: Future[tuple[Result, ...]]) -> None:
        error = done.exception()
        if error is None:
            self._tell(events.Reported(delivery, done.result()))
        else:
            self._fault(delivery, recipients, error)

    def _record(self, action: events.Record) -> None:
        done = self._store.record(action.number, action.changes, action.due, action.ended, action.routed)
        done.add_done_callback(partial(self._recorded, action.number))

    def _recorded(self, number: int, done: Future[None]) -> None:
        # A result is never refused: it fails only when the queue was lost or closed, and then
        # the process ends (the store's `on_fatal`), and recovery decides.
        if done.exception() is None:
            self._tell(events.Recorded(number))

    def _bounce(self, action: events.Bounce) -> None:
        self._offspring.bounce(action)

    def _notify(self, action: events.Notify) -> None:
        self._offspring.notify(action)

    def _let_go(self, action: events.Taken) -> None:
        future = self._taken.pop(action.number, None)
        if future is not None and not future.done():
            future.set_result(None)

    def _wake(self, action: events.WakeAt) -> None:
        self._wake_at = action.when
        if self._timer is not None:
            self._timer.cancel()
        wait = min(max(action.when - self._clock.now(), 0.0), _LONGEST_SLEEP)
        self._timer = self._loop.call_later(wait, self._look_at_clock)

    def _look_at_clock(self) -> None:
        self._timer = None
        if self._clock.now() >= self._wake_at:
            self._tell(events.Wake())
        else:
            self._wake(events.WakeAt(self._wake_at))


_ACTIONS: dict[type, Callable[[Sender, Any], None]] = {
    events.Load: Sender._load,
    events.StartLocal: Sender._start_local,
    events.StartRemote: Sender._start_remote,
    events.Record: Sender._record,
    events.Bounce: Sender._bounce,
    events.Notify: Sender._notify,
    events.Taken: Sender._let_go,
    events.WakeAt: Sender._wake,
    MessageInfo: Sender._info,
}
"""Any other action is an event for the log."""
