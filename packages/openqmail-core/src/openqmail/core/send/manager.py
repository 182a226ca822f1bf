"""qmail-send's mind: told what happened, it says what to do next.

Pure: no clock, no disk, no network.  `handle(event, now)` returns actions (see `events`) and
raises for no order of events; what it does not know it ignores.  It starts deliveries within
the limits, fairly (see `fairness`); writes qmail-log(5)'s lines; tries again by qmail's
schedule, a message's local and remote recipients each by their own; leaves a host that fails
alone for a while (see `destination`); turns the last deferral into a failure; and asks for one
bounce a message, once nothing is left to try.

A message ends, and is forgotten, only when the queue has recorded it.  What is only waiting
for its time is a number here (see `schedule`), and is loaded when that has come.

In the log every recipient is a delivery with a number of its own, as in qmail.  The limits
and the status lines count slots: a transaction with many recipients is one, and a local
delivery whose file is not yet known to be on disk is none any more.
"""

from collections.abc import Callable
from math import inf
from random import Random
from typing import Any

from openqmail.core.control.settings import Settings
from openqmail.core.log import (
    Bounced,
    DeliveryEnded,
    DeliveryStarted,
    MessageEnded,
    MessageInfo,
    NewMessage,
    Status,
    TripleBounce,
)
from openqmail.core.ports import DestinationState
from openqmail.core.queue.store import Change, Due, Stored
from openqmail.core.send.events import (
    Accepted,
    Action,
    BounceFailed,
    Event,
    Finished,
    Flush,
    Known,
    Load,
    Loaded,
    Notify,
    NotifyFailed,
    Record,
    Recorded,
    Reported,
    StartLocal,
    StartRemote,
    Stop,
    Take,
    Taken,
    Unreadable,
    Wake,
    WakeAt,
)
from openqmail.core.send.fairness import FairQueue, Item
from openqmail.core.send.message import REPORT, Delivery, Items, Message
from openqmail.core.send.routing import Routes, is_verp, sender_for
from openqmail.core.send.schedule import DueTimes
from openqmail.core.send.tally import Tally
from openqmail.core.values import Outcome, Result
from openqmail.core.values.address import Channel

GROUP = 100
"""Recipients in one remote transaction (RFC 5321 section 4.5.3.1.8: every host takes 100)."""
LOADS = 100
"""Messages asked for from the queue at once."""
ACTIVE = 20_000
"""Messages with details in memory, beyond which only numbers are kept."""
READ_AGAIN = 60
"""Seconds until a message that could not be read from the queue is asked for again."""
BOUNCE_AGAIN = 60
"""Seconds until a bounce that could not be submitted is tried again."""

_DEFERRAL, _FAILURE = Outcome.DEFERRAL, Outcome.FAILURE  # an enum's attributes are slow to look up
_NOT_TRIED = b"Sorry, %s is left alone for a while and was not tried now. When it was:\n%s"
_NO_REPORT = Result(Outcome.DEFERRAL, b"There was no report on this recipient.\n")


class SendManager:
    """`pid`: whose the bounces are, in the log; `seed`: of what is drawn by lot."""

    def __init__(self, settings: Settings, pid: int, seed: int) -> None:
        self._settings = settings
        self._routes = Routes(settings)
        self._pid = pid
        self._now = 0.0
        self._out: list[Action] = []
        self._stopped = False
        self._abandoned = False
        self._wake_at: int | None = None
        self._last_delivery = 0
        self._active: dict[int, Message] = {}
        self._deliveries: dict[int, Delivery] = {}
        self._random = Random(seed)
        self._due = DueTimes(self._random)
        self._loading: dict[int, bool] = {}
        """Messages asked for from the queue, and whether all that is left of them is due."""
        self._wanted: set[int] = set()
        """Those among them that are to be let go."""
        self._recalled: dict[int, tuple[FairQueue, bytes]] = {}
        self._urgent: set[int] = set()
        """Those asked for that are tried even where a destination rests."""
        self._writes = 0
        self.tally = Tally()
        self._local = FairQueue(settings.concurrencylocal, settings.concurrencylocal)
        self._remote = FairQueue(settings.concurrencyremote, settings.concurrencydestination, paced=True)

    # --- the face -----------------------------------------------------------------------

    def handle(self, event: Event, now: float) -> list[Action]:
        """What to do about `event`, which happens at `now` (seconds UTC), in this order."""
        self._now = now
        out = self._out = []
        _HANDLERS[type(event)](self, event)
        if not self._stopped:
            local, remote, due = self._local, self._remote, self._due
            if local.round or remote.round or remote.strange or remote.slow:
                self._start()
            if local.recalled or remote.recalled:
                self._recall()
            if due.heap or due.ready or remote.rests:
                self._load()
        return out

    def reconfigure(self, settings: Settings) -> None:
        """New settings (HUP), in force from the next event on; what is in line keeps its route."""
        self._settings = settings
        self._routes = Routes(settings)
        self._local.resize(settings.concurrencylocal, settings.concurrencylocal)
        self._remote.resize(settings.concurrencyremote, settings.concurrencydestination)

    def running(self) -> tuple[int, int]:
        """Slots in use: local, remote."""
        return self._local.running, self._remote.running

    def status(self) -> Status:
        settings = self._settings
        return Status(
            self._local.running,
            settings.concurrencylocal,
            self._remote.running,
            settings.concurrencyremote,
            self._stopped,
        )

    def destination(self, domain: bytes) -> DestinationState | None:
        """What is known of a remote destination (lower case); None: nothing."""
        return self._remote.state(domain)

    def resting(self) -> dict[bytes, int]:
        """The remote destinations that are left alone now, and until when (seconds UTC)."""
        return self._remote.resting()

    @property
    def idle(self) -> bool:
        """No delivery runs or waits for its result, and no write is under way."""
        return not self._deliveries and not self._writes

    @property
    def messages(self) -> int:
        """How many messages there are in all."""
        return len(self._active) + self.waiting

    @property
    def waiting(self) -> int:
        """How many of them wait for their time or for room, known by number only."""
        return len(self._due) + len(self._loading) + self._local.parked + self._remote.parked

    # --- messages come ------------------------------------------------------------------

    def _accepted(self, event: Accepted) -> None:
        stored = event.stored
        number, envelope = stored.id.number, stored.envelope
        if number in self._active:
            return
        origin = envelope.origin
        self.tally.accepted += 1
        self._out.append(NewMessage(number))
        self._out.append(MessageInfo(number, stored.size, envelope.sender, origin.pid, origin.uid))
        if self._stopped or len(self._active) >= ACTIVE:
            self._due.add(number, 0)
        else:
            self._activate(number, stored, self._now)

    def _known(self, event: Known) -> None:
        number = event.number
        if number not in self._active:
            if event.urgent:
                self._urgent.add(number)
            self._due.add(number, event.due)

    def _loaded(self, event: Loaded) -> None:
        number, stored = event.number, event.stored
        all_due = self._loading.pop(number, None)
        if all_due is None:
            return
        urgent = number in self._urgent
        self._urgent.discard(number)
        if number in self._wanted:
            self._let_go(number)
        elif stored is not None and stored.held is None and number not in self._active:
            if self._stopped:
                self._due.add(number, 0)
            else:
                self._activate(number, stored, inf if all_due else self._now, urgent)
        self._arrived(number)

    def _unreadable(self, event: Unreadable) -> None:
        number = event.number
        if self._loading.pop(number, None) is None:
            return
        if number in self._wanted:
            self._let_go(number)
        else:
            self._due.add(number, int(self._now) + READ_AGAIN)
        self._arrived(number)

    def _arrived(self, number: int) -> None:
        """If it was recalled, its destination may recall another."""
        recall = self._recalled.pop(number, None)
        if recall is not None:
            queue, destination = recall
            queue.arrived(destination)

    def _activate(self, number: int, stored: Stored, now: float, urgent: bool = False) -> None:
        """Route the recipients that are due by `now` and put them in line; or park the message."""
        if len(stored.envelope.recipients) == 1 and self._start_at_once(number, stored):
            return
        message = self._message(number, stored)
        local, remote = message.sort(self._routes, now)
        if not urgent and number not in self._recalled and self._park(message, local, remote):
            return
        self._active[number] = message
        for domain, items in local.items():
            message.waiting += len(items)
            self._local.add(number, domain, items, 1)
        group = 1 if is_verp(stored.envelope.sender) else GROUP
        message.running += 1  # it goes on only when all its recipients have their place
        for domain, items in remote.items():
            if self._remote.holds(domain) and not urgent:
                self._hold(message, domain, items)
            else:
                message.waiting += len(items)
                self._remote.add(number, domain, items, group, urgent=urgent)
        message.running -= 1
        if not message.waiting:
            self._advance(message)

    def _start_at_once(self, number: int, stored: Stored) -> bool:
        """An only recipient need not stand in line where nobody does."""
        if stored.progress[0].outcome is not None:
            return False
        routed = self._routes.of(stored, 0)
        channel, domain = routed.channel, routed.domain
        queue = self._local if channel == "local" else self._remote
        if not queue.take_at_once(domain):
            return False
        message = self._active[number] = self._message(number, stored)
        if channel == "local":
            message.left_local = 1
        else:
            message.left_remote = 1
        self._start_batch(channel, message, domain, [(0, routed.address)])
        return True

    def _message(self, number: int, stored: Stored) -> Message:
        message = Message(number, stored, stored.due)
        if stored.bounce:
            message.failures.append(stored.bounce)
        return message

    def _park(self, message: Message, local: Items, remote: Items) -> bool:
        """Keep only the number when there is a long line at each of its destinations, and when
        all that is left is due: all will be tried when it is recalled."""
        for domain in local:
            if not self._local.congested(domain):
                return False
        for domain in remote:
            if not self._remote.congested(domain):
                return False
        due = sum(map(len, local.values())) + sum(map(len, remote.values()))
        if not due or due < message.left_local + message.left_remote:
            return False
        queue, domains = (self._local, local) if local else (self._remote, remote)
        queue.park(message.number, next(iter(domains)), message.stored.birth)
        return True

    # --- deliveries start and end -------------------------------------------------------

    def _start(self) -> None:
        """Fill the free slots, the channels by turns."""
        local, remote = self._local, self._remote
        while local.round or remote.round or remote.strange or remote.slow:
            batch = local.take() if local.round else None
            if batch is not None:
                self._start_waiting("local", *batch)
            other = remote.take()
            if other is not None:
                self._start_waiting("remote", *other)
            elif batch is None:
                return

    def _start_waiting(self, channel: Channel, number: int, domain: bytes, items: list[Item]) -> None:
        message = self._active[number]
        message.waiting -= len(items)
        self._start_batch(channel, message, domain, items)

    def _start_batch(self, channel: Channel, message: Message, domain: bytes, items: list[Item]) -> None:
        stored = message.stored
        now = int(self._now)
        first = self._last_delivery + 1
        self._last_delivery += len(items)
        expired = now > stored.birth + self._settings.queuelifetime
        self._deliveries[first] = Delivery(message, channel, domain, items, self._now, expired)
        message.running += 1
        out, number = self._out, message.number
        for delivery, (_, address) in enumerate(items, first):
            out.append(DeliveryStarted(delivery, number, channel, address))
        out.append(self.status())
        position, address = items[0]
        sender = sender_for(stored.envelope.sender, address)
        if channel == "local":
            message.tried_local = now
            again = stored.again or stored.progress[position].attempts > 0
            out.append(StartLocal(first, stored, position, sender, address, again))
        else:
            message.tried_remote = now
            positions = tuple([position for position, _ in items])
            addresses = tuple([address for _, address in items])
            out.append(StartRemote(first, stored, positions, sender, domain, addresses))

    def _finished(self, event: Finished) -> None:
        delivery = self._deliveries.get(event.delivery)
        if delivery is not None and not delivery.finished:
            delivery.finished = True
            queue = self._local if delivery.channel == "local" else self._remote
            queue.release(delivery.destination)

    def _reported(self, event: Reported) -> None:
        delivery = self._deliveries.pop(event.delivery, None)
        if delivery is None:
            return
        message, out = delivery.message, self._out
        recipients = message.stored.envelope.recipients
        message.running -= 1
        counts = self.tally.deliveries[delivery.channel]
        done, failed = 0, None
        for index, (position, _) in enumerate(delivery.items):
            result = event.results[index] if index < len(event.results) else _NO_REPORT
            outcome, text = result.outcome, result.text
            if self._abandoned and outcome is _DEFERRAL:
                out.append(DeliveryEnded(event.delivery + index, outcome, text[:REPORT], message.number))
                counts[outcome] += 1
                continue
            if delivery.expired or len(text) > REPORT:
                outcome, text = delivery.verdict(result)
            out.append(DeliveryEnded(event.delivery + index, outcome, text, message.number))
            counts[outcome] += 1
            if result.host:
                failed = result
            if outcome is not _DEFERRAL:
                done += 1
            if outcome is _FAILURE or recipients[position].notify:
                elsewhere = event.recorded or result.dsn
                outcome, text = message.note(
                    self._routes, position, outcome, text, delivery.channel, elsewhere, self._now
                )
            if not event.recorded or outcome is not result.outcome:
                message.changes.append(Change(position, outcome, text))
        if delivery.channel == "local":
            message.left_local -= done
            if not delivery.finished:
                self._local.release(delivery.destination)
        else:
            message.left_remote -= done
            if not delivery.finished:
                if failed is not None:
                    self._failed(delivery, failed)
                elif done:
                    self._remote.succeeded(delivery.destination, self._now - delivery.began)
                else:
                    self._remote.answered(delivery.destination)
        out.append(self.status())
        self._advance(message)

    # --- hosts that fail ------------------------------------------------------------------

    def _failed(self, delivery: Delivery, result: Result) -> None:
        """The whole host of a remote delivery, which is over, has failed."""
        if self._remote.failed(delivery.destination, result.text[:REPORT]):
            self._rest(delivery.destination, delivery.message)

    def _rest(self, name: bytes, failed: Message) -> None:
        """Leave a destination alone; what was in line for it waits as numbers.  `failed`, whose
        delivery told it, is about to advance anyway."""
        messages = {}
        for number, recipients in self._remote.rest(name, self._now, self._random):
            message = messages[number] = self._active[number]
            message.waiting -= recipients
            message.hold(name, recipients)
        messages.pop(failed.number, None)
        for message in messages.values():
            if not message.waiting:
                self._advance(message)
        for number in self._remote.born_before(name, int(self._now) - self._settings.queuelifetime):
            self._due.add(number, 0)

    def _hold(self, message: Message, domain: bytes, items: list[Item]) -> None:
        """Recipients that are due wait for their destination; but not beyond the message's lifetime."""
        stored, now = message.stored, int(self._now)
        until = self._remote.resting_until(domain)
        if not until or now <= stored.birth + self._settings.queuelifetime:
            message.hold(domain, len(items))
            return
        first = self._last_delivery + 1
        self._last_delivery += len(items)
        delivery = Delivery(message, "remote", domain, items, self._now, expired=True, finished=True)
        self._deliveries[first] = delivery
        message.running += 1
        message.tried_remote = now
        for number, (_, address) in enumerate(items, first):
            self._out.append(DeliveryStarted(number, message.number, "remote", address))
        text = _NOT_TRIED % (domain, self._remote.last_failure(domain))
        self._reported(Reported(first, (Result(Outcome.DEFERRAL, text),) * len(items)))

    def _set_aside(self, message: Message, due: Due) -> None:
        """All that could be tried was; what else is due waits for destinations that rest."""
        local, remote = due
        if message.left_remote > message.left_held or remote > self._now:
            self._drop(message, min(due))
        elif len(message.held) == 1 and not message.left_local:
            del self._active[message.number]
            self._remote.park(message.number, message.held[0], message.stored.birth)
        else:
            again = self._remote.again(message.held, int(self._now))
            self._drop(message, max(min(again, local) if message.left_local else again, int(self._now) + 1))

    # --- what becomes of a message ------------------------------------------------------

    def _advance(self, message: Message) -> None:
        """The next step of a message, if nothing of it is being written just now."""
        if message.writing:
            return
        if message.waiting or message.running:
            if message.told:
                self._notify(message)
            elif message.changes:
                self._record(message, (0, 0), ended=False)
        elif message.told or message.late:
            message.told += message.late
            message.late.clear()
            self._notify(message)
        elif message.left_local or message.left_remote:
            due = message.due if self._abandoned else message.next_due()
            if message.changes or due != message.due:
                self._record(message, due, ended=False)
            elif message.left_held and not message.wanted:
                self._set_aside(message, due)
            else:
                self._drop(message, min(due))
        elif not message.failures:
            self._record(message, (0, 0), ended=True)
        elif message.stored.envelope.sender == b"#@[]":
            self._out.append(TripleBounce(message.number))
            self._record(message, (0, 0), ended=True)
        elif message.changes:
            self._record(message, (0, 0), ended=False)
        elif self._stopped or message.wanted:
            self._drop(message, 0)
        else:
            self._bounce(message)

    def _record(self, message: Message, due: Due, *, ended: bool) -> None:
        changes = tuple(message.changes)
        message.changes.clear()
        message.due = due
        message.ending = ended
        message.writing = True
        self._writes += 1
        routed = bool(message.stored.channels)
        self._out.append(Record(message.number, changes, due, ended, routed))

    def _notify(self, message: Message) -> None:
        told, changes = tuple(message.told), tuple(message.changes)
        message.told.clear()
        message.changes.clear()
        message.telling = Notify(message.number, told, changes, bool(message.stored.channels))
        message.writing = True
        self._writes += 1
        self._out.append(message.telling)

    def _bounce(self, message: Message) -> None:
        message.ending = message.bounced = message.writing = True
        self._writes += 1
        self._out.append(message.bounce(self._settings))

    def _recorded(self, event: Recorded) -> None:
        message = self._active.get(event.number)
        if message is None or not message.writing:
            return
        message.writing = False
        message.telling = None
        self._writes -= 1
        if not message.ending:
            self._advance(message)
            return
        del self._active[event.number]
        if message.bounced:
            self.tally.bounces += 1
            self._out.append(Bounced(event.number, self._pid))
        self.tally.waited(int(self._now) - message.stored.birth)
        self._out.append(MessageEnded(event.number))
        if message.wanted:
            self._out.append(Taken(event.number))

    def _bounce_failed(self, event: BounceFailed) -> None:
        message = self._active.get(event.number)
        if message is not None and message.bounced:
            self._writes -= 1
            self._drop(message, int(self._now) + BOUNCE_AGAIN)

    def _notify_failed(self, event: NotifyFailed) -> None:
        """What became of the recipients counts for more than that it is told."""
        message = self._active.get(event.number)
        if message is not None and message.telling is not None:
            message.changes[:0] = message.telling.changes
            message.writing = False
            message.telling = None
            self._writes -= 1
            self._advance(message)

    def _drop(self, message: Message, due: int) -> None:
        """Nothing to do until `due`: keep the number, unless it is to be let go."""
        del self._active[message.number]
        if message.wanted:
            self._out.append(Taken(message.number))
        else:
            self._due.add(message.number, due)

    # --- messages are taken away --------------------------------------------------------

    def _take(self, event: Take) -> None:
        numbers = event.numbers
        self._due.withdraw(numbers)
        self._urgent -= numbers
        self._local.withdraw(numbers)
        self._remote.withdraw(numbers)
        for number in numbers:
            message = self._active.get(number)
            if message is not None:
                message.wanted = True
                message.waiting = 0
                self._advance(message)
            elif number in self._loading:
                self._wanted.add(number)
            else:
                self._arrived(number)
                self._out.append(Taken(number))

    def _let_go(self, number: int) -> None:
        """What was being loaded when it was taken."""
        self._wanted.remove(number)
        self._out.append(Taken(number))

    # --- time ---------------------------------------------------------------------------

    def _wake(self, event: Wake) -> None:
        self._wake_at = None
        self._remote.resume(self._now)

    def _flush(self, event: Flush) -> None:
        self._remote.forgive()
        self._due.flush()

    def _stop(self, event: Stop) -> None:
        self._stopped = True
        self._abandoned = self._abandoned or event.abandon

    def _load(self) -> None:
        """Ask for what is due, as far as there is room; else for a call when something is."""
        loading = self._loading
        while len(loading) < LOADS and len(self._active) + len(loading) < ACTIVE:
            due = self._due.take(self._now)
            if due is None:
                break
            number, all_due = due
            if number in self._active:
                self._arrived(number)
            elif number not in loading:
                loading[number] = all_due
                self._out.append(Load(number))
        then, rests = self._due.next(), self._remote.rests
        if rests and (then is None or rests[0][0] < then):
            then = rests[0][0]
        if then is not None and then > self._now and (self._wake_at is None or then < self._wake_at):
            self._wake_at = then
            self._out.append(WakeAt(then))

    def _recall(self) -> None:
        """Parked messages whose turn comes near are due now."""
        for queue in (self._local, self._remote):
            for number, destination in queue.recalled:
                self._recalled[number] = queue, destination
                self._due.add(number, 0)
            queue.recalled.clear()


_HANDLERS: dict[type, Callable[[SendManager, Any], None]] = {
    Accepted: SendManager._accepted,
    Known: SendManager._known,
    Loaded: SendManager._loaded,
    Unreadable: SendManager._unreadable,
    Finished: SendManager._finished,
    Reported: SendManager._reported,
    Recorded: SendManager._recorded,
    BounceFailed: SendManager._bounce_failed,
    NotifyFailed: SendManager._notify_failed,
    Take: SendManager._take,
    Wake: SendManager._wake,
    Flush: SendManager._flush,
    Stop: SendManager._stop,
}
