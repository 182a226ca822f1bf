"""The messages that qmail-send's mind works on: who is tried when, what came of it, what is next.  Pure.

A message is here from the moment when it is in line until nothing of it is under way.  Deliveries
are started within the limits, fairly (see `fairness`); a host that fails is left alone for a while
(see `destination`); the last deferral becomes a failure; and once nothing is left to try, one bounce
a message is asked for.  What is only waiting for its time is the backlog's.

In the log every recipient is a delivery with a number of its own, as in qmail.  The limits
and the status lines count slots: a transaction with many recipients is one, and a local
delivery whose file is not yet known to be on disk is none any more.
"""

from collections import Counter
from random import Random

from openqmail.core.control.settings import Settings
from openqmail.core.log import (
    Bounced,
    DeliveryEnded,
    DeliveryStarted,
    DestinationAnswers,
    DestinationRests,
    MessageEnded,
    Status,
    TripleBounce,
    Warn,
)
from openqmail.core.queue.store import Change, Due, Stored
from openqmail.core.send.backlog import Backlog
from openqmail.core.send.destination import SLOW
from openqmail.core.send.events import (
    Action,
    BounceFailed,
    Finished,
    Notify,
    NotifyFailed,
    Record,
    Recorded,
    Reported,
    StartLocal,
    StartRemote,
    Taken,
)
from openqmail.core.send.fairness import FairQueue, Item
from openqmail.core.send.message import REPORT, Delivery, Items, Message
from openqmail.core.send.routing import Routes, domain_of, is_verp, sender_for
from openqmail.core.send.tally import Tally
from openqmail.core.send.wishes import LATE
from openqmail.core.values import Outcome, Result
from openqmail.core.values.address import Channel

GROUP = 100
"""Recipients in one remote transaction (RFC 5321 section 4.5.3.1.8: every host takes 100)."""
BOUNCE_AGAIN = 60
"""Seconds until a bounce that could not be submitted is tried again."""

_DEFERRAL, _FAILURE = Outcome.DEFERRAL, Outcome.FAILURE  # an enum's attributes are slow to look up
_NOT_TRIED = b"Sorry, %s is left alone for a while and was not tried now. When it was:\n%s"
_NO_REPORT = Result(Outcome.DEFERRAL, b"There was no report on this recipient.\n")


class Work:
    """`out`: what is to be done, in this order; `now`: seconds UTC.  Both are the manager's to set.
    `pid`: whose the bounces are, in the log."""

    def __init__(self, settings: Settings, pid: int, random: Random, backlog: Backlog) -> None:
        self.settings = settings
        self.now = 0.0
        self.out: list[Action] = []
        self.stopped = False
        """Nothing more is started."""
        self.abandoned = False
        """A deferral says nothing any more."""
        self.active: dict[int, Message] = {}
        self.local = FairQueue(settings.concurrencylocal, settings.concurrencylocal, random)
        self.remote = FairQueue(
            settings.concurrencyremote, settings.concurrencydestination, random, paced=True
        )
        self.tally = Tally()
        self._routes = Routes(settings)
        self._pid = pid
        self._backlog = backlog
        self._last_delivery = 0
        self._deliveries: dict[int, Delivery] = {}
        """In the order in which they began."""
        self.looked = 0.0
        """When those under way were looked at."""
        self._writes = 0

    def reconfigure(self, settings: Settings) -> None:
        """In force from now on; what is in line keeps its route."""
        self.settings = settings
        self._routes = Routes(settings)
        self.local.resize(settings.concurrencylocal, settings.concurrencylocal)
        self.remote.resize(settings.concurrencyremote, settings.concurrencydestination)

    def status(self) -> Status:
        settings = self.settings
        return Status(
            self.local.running,
            settings.concurrencylocal,
            self.remote.running,
            settings.concurrencyremote,
            self.stopped,
        )

    @property
    def idle(self) -> bool:
        """No delivery runs or waits for its result, and no write is under way."""
        return not self._deliveries and not self._writes

    # --- a message gets its place ---------------------------------------------------------

    def activate(self, number: int, stored: Stored, now: float, urgent: bool = False) -> None:
        """Route the recipients that are due by `now` and put them in line; or park the message."""
        if len(stored.envelope.recipients) == 1 and self._start_at_once(number, stored):
            return
        message = self._message(number, stored)
        local, remote = message.sort(self._routes, now)
        if not urgent and not self._backlog.is_recalled(number) and self._park(message, local, remote):
            return
        self.active[number] = message
        for domain, items in local.items():
            message.waiting += len(items)
            self.local.add(number, domain, items, 1)
        group = 1 if is_verp(stored.envelope.sender) else GROUP
        message.running += 1  # it goes on only when all its recipients have their place
        for domain, items in remote.items():
            if self.remote.holds(domain) and not urgent:
                self._hold(message, domain, items)
            else:
                message.waiting += len(items)
                self.remote.add(number, domain, items, group, urgent=urgent)
        message.running -= 1
        if not message.waiting:
            self.advance(message)

    def _start_at_once(self, number: int, stored: Stored) -> bool:
        """An only recipient need not stand in line where nobody does."""
        if stored.progress[0].outcome is not None:
            return False
        routed = self._routes.of(stored, 0)
        channel, domain = routed.channel, routed.domain
        if channel == "local":
            queue = self.local
        else:
            queue = self.remote
            domain += self._routes.mark(stored.envelope.sender)
        if not queue.take_at_once(domain):
            return False
        message = self.active[number] = self._message(number, stored)
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
            if not self.local.congested(domain):
                return False
        for domain in remote:
            if not self.remote.congested(domain):
                return False
        due = sum(map(len, local.values())) + sum(map(len, remote.values()))
        if not due or due < message.left_local + message.left_remote:
            return False
        queue, domains = (self.local, local) if local else (self.remote, remote)
        domain, items = next(iter(domains.items()))
        queue.park(message.number, domain, self._seniority(message, items))
        return True

    def _seniority(self, message: Message, items: list[Item]) -> int:
        """A birth to park it by, so that it is found in time when its host rests: before it is too old, or
        when it is late and its sender is to be told so."""
        early = max(0, self.settings.queuelifetime - LATE) if message.untold(items) else 0
        return message.stored.birth - early

    # --- deliveries start and end -------------------------------------------------------

    def start(self) -> None:
        """Fill the free slots, the channels by turns."""
        local, remote = self.local, self.remote
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
        message = self.active[number]
        message.waiting -= len(items)
        self._start_batch(channel, message, domain, items)

    def _start_batch(self, channel: Channel, message: Message, domain: bytes, items: list[Item]) -> None:
        stored = message.stored
        now = int(self.now)
        first = self._last_delivery + 1
        self._last_delivery += len(items)
        expired = now > stored.birth + self.settings.queuelifetime
        self._deliveries[first] = Delivery(message, channel, domain, items, self.now, expired)
        message.running += 1
        out, number = self.out, message.number
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
            out.append(StartRemote(first, stored, positions, sender, domain_of(domain), addresses))

    def finished(self, event: Finished) -> None:
        delivery = self._deliveries.get(event.delivery)
        if delivery is not None and not delivery.finished:
            delivery.finished = True
            queue = self.local if delivery.channel == "local" else self.remote
            queue.release(delivery.destination)

    def reported(self, event: Reported) -> None:
        delivery = self._deliveries.pop(event.delivery, None)
        if delivery is None:
            return
        message, out = delivery.message, self.out
        recipients = message.stored.envelope.recipients
        message.running -= 1
        counts = self.tally.deliveries[delivery.channel]
        done, answered, failed, why = 0, False, None, ""
        for index, (position, _) in enumerate(delivery.items):
            result = event.results[index] if index < len(event.results) else _NO_REPORT
            outcome, text = result.outcome, result.text
            if self.abandoned and outcome is _DEFERRAL:
                out.append(DeliveryEnded(event.delivery + index, outcome, text[:REPORT], message.number))
                counts[outcome] += 1
                continue
            if delivery.expired or len(text) > REPORT:
                outcome, text = delivery.verdict(result)
            out.append(DeliveryEnded(event.delivery + index, outcome, text, message.number))
            counts[outcome] += 1
            if result.why and result.why != why:  # once, however many recipients it concerns
                why = result.why
                out.append(Warn(f"msg {message.number}: {why}", message.number))
            if result.host:
                failed = result
            elif result.outcome is not _DEFERRAL:  # whatever becomes of a message that is too old
                answered = True
            if outcome is not _DEFERRAL:
                done += 1
            if outcome is _FAILURE or recipients[position].notify:
                elsewhere = event.recorded or result.dsn
                outcome, text = message.note(
                    self._routes, position, outcome, text, delivery.channel, elsewhere, self.now
                )
            if not event.recorded or outcome is not result.outcome:
                message.changes.append(Change(position, outcome, text))
        if delivery.channel == "local":
            message.left_local -= done
            if not delivery.finished:
                self.local.release(delivery.destination)
        else:
            message.left_remote -= done
            if not delivery.finished:
                if failed is not None:
                    self._failed(delivery, failed)
                elif answered:
                    self._succeeded(delivery)
                else:
                    self.remote.answered(delivery.destination)
        out.append(self.status())
        self.advance(message)

    # --- hosts that are slow, and that fail -----------------------------------------------

    def look(self) -> None:
        """What takes long makes its destination slow before it ends."""
        self.looked = now = self.now
        late: Counter[bytes] = Counter()
        first: dict[bytes, float] = {}
        for delivery in self._deliveries.values():
            if now - delivery.began <= SLOW:
                break
            if delivery.channel == "remote":
                late[delivery.destination] += 1
                first.setdefault(delivery.destination, now - delivery.began)
        for name, seconds in first.items():
            self.remote.late(name, late[name], seconds)

    def _succeeded(self, delivery: Delivery) -> None:
        """A remote delivery, which is over, got through to its host."""
        if self.remote.succeeded(delivery.destination, self.now - delivery.began):
            self.out.append(DestinationAnswers(domain_of(delivery.destination)))

    def _failed(self, delivery: Delivery, result: Result) -> None:
        """The whole host of a remote delivery, which is over, has failed."""
        name = delivery.destination
        if self.remote.failed(name, result.text[:REPORT]):
            self._rest(name, delivery.message)
            state = self.remote.state(name)
            if state is not None and state.resting_until is not None:
                seconds = state.resting_until - int(self.now)
                self.out.append(DestinationRests(domain_of(name), seconds, state.failures, result.text))

    def _rest(self, name: bytes, failed: Message) -> None:
        """Leave a destination alone; what was in line for it waits as numbers.  `failed`, whose
        delivery told it, is about to advance anyway."""
        messages = {}
        for number, items in self.remote.rest(name, self.now, failed.number):
            message = messages[number] = self.active[number]
            message.waiting -= len(items)
            message.hold(name, items)
        messages.pop(failed.number, None)
        for message in messages.values():
            if not message.waiting:
                self.advance(message)
        for number in self.remote.born_before(name, int(self.now) - self.settings.queuelifetime):
            self._backlog.add(number, 0)

    def _hold(self, message: Message, domain: bytes, items: list[Item]) -> None:
        """Recipients that are due wait for their destination; but not beyond the message's lifetime, nor
        without a word to a sender who wants to know when they are late: either is a delivery's end."""
        now = int(self.now)
        until, age = self.remote.resting_until(domain), now - message.stored.birth
        expired = age > self.settings.queuelifetime
        if not until or not (expired or (age >= LATE and message.untold(items))):
            message.hold(domain, items)
            return
        first = self._last_delivery + 1
        self._last_delivery += len(items)
        delivery = Delivery(message, "remote", domain, items, self.now, expired, finished=True)
        self._deliveries[first] = delivery
        message.running += 1
        message.tried_remote = now
        for number, (_, address) in enumerate(items, first):
            self.out.append(DeliveryStarted(number, message.number, "remote", address))
        text = _NOT_TRIED % (domain_of(domain), self.remote.last_failure(domain))
        self.reported(Reported(first, (Result(Outcome.DEFERRAL, text),) * len(items)))

    def _set_aside(self, message: Message, due: Due) -> None:
        """All that could be tried was; what else is due waits for destinations that rest."""
        local, remote = due
        if message.left_remote > message.left_held or remote > self.now:
            self._drop(message, min(due))
        elif len(message.held) == 1 and not message.left_local:
            del self.active[message.number]
            destination, items = next(iter(message.held.items()))
            self.remote.park(message.number, destination, self._seniority(message, items))
        else:
            again = self.remote.again(message.held, int(self.now))
            self._drop(message, max(min(again, local) if message.left_local else again, int(self.now) + 1))

    # --- what becomes of a message ------------------------------------------------------

    def advance(self, message: Message) -> None:
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
            due = message.due if self.abandoned else message.next_due()
            if message.changes or due != message.due:
                self._record(message, due, ended=False)
            elif message.left_held and not message.wanted:
                self._set_aside(message, due)
            else:
                self._drop(message, min(due))
        elif not message.failures:
            self._record(message, (0, 0), ended=True)
        elif message.stored.envelope.sender == b"#@[]":
            self.out.append(TripleBounce(message.number))
            self._record(message, (0, 0), ended=True)
        elif message.changes:
            self._record(message, (0, 0), ended=False)
        elif self.stopped or message.wanted:
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
        self.out.append(Record(message.number, changes, due, ended, routed))

    def _notify(self, message: Message) -> None:
        told, changes = tuple(message.told), tuple(message.changes)
        message.told.clear()
        message.changes.clear()
        message.telling = Notify(message.number, told, changes, bool(message.stored.channels))
        message.writing = True
        self._writes += 1
        self.out.append(message.telling)

    def _bounce(self, message: Message) -> None:
        message.ending = message.bounced = message.writing = True
        self._writes += 1
        self.out.append(message.bounce(self.settings))

    def recorded(self, event: Recorded) -> None:
        message = self.active.get(event.number)
        if message is None or not message.writing:
            return
        message.writing = False
        message.telling = None
        self._writes -= 1
        if not message.ending:
            self.advance(message)
            return
        del self.active[event.number]
        if message.bounced:
            self.tally.bounces += 1
            self.out.append(Bounced(event.number, self._pid))
        self.tally.waited(int(self.now) - message.stored.birth)
        self.out.append(MessageEnded(event.number))
        if message.wanted:
            self.out.append(Taken(event.number))

    def bounce_failed(self, event: BounceFailed) -> None:
        message = self.active.get(event.number)
        if message is not None and message.bounced:
            self._writes -= 1
            self._drop(message, int(self.now) + BOUNCE_AGAIN)

    def notify_failed(self, event: NotifyFailed) -> None:
        """What became of the recipients counts for more than that it is told."""
        message = self.active.get(event.number)
        if message is not None and message.telling is not None:
            message.changes[:0] = message.telling.changes
            message.writing = False
            message.telling = None
            self._writes -= 1
            self.advance(message)

    def _drop(self, message: Message, due: int) -> None:
        """Nothing to do until `due`: keep the number, unless it is to be let go."""
        del self.active[message.number]
        if message.wanted:
            self.out.append(Taken(message.number))
        else:
            self._backlog.add(message.number, due)
