"""A send manager with a queue and deliveries that are played by a test."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from memory_store import applied
from openqmail.core.log import Event as LogEvent
from openqmail.core.log import MemoryLog
from openqmail.core.queue.store import Change, Due, Progress, Stored
from openqmail.core.send.events import (
    Accepted,
    Action,
    Bounce,
    Event,
    Known,
    Load,
    Loaded,
    Notify,
    Record,
    Recorded,
    Reported,
    StartLocal,
    StartRemote,
    Take,
    Taken,
    WakeAt,
)
from openqmail.core.send.manager import SendManager
from openqmail.core.values import Envelope, MessageId, Origin, Outcome, Recipient, Result

BIRTH = 1_700_000_000
ALICE = Origin(8001, 1000)
Start = StartLocal | StartRemote


def make_settings(**changes: Any) -> Any:
    """The settings that the manager looks at, as in the recordings."""
    values = {
        "me": b"mail.example.test",
        "envnoathost": b"mail.example.test",
        "percenthack": frozenset(),
        "locals": frozenset({b"mail.example.test", b"example.test"}),
        "virtualdomains": {},
        "concurrencylocal": 10,
        "concurrencyremote": 20,
        "concurrencydestination": 20,
        "queuelifetime": 604_800,
        "doublebounceto": b"postmaster",
        "doublebouncehost": b"mail.example.test",
        "bouncefrom": b"MAILER-DAEMON",
        "bouncehost": b"mail.example.test",
        "bounceformat": "qmail",
        "bouncemaxbytes": 50_000,
    }
    return SimpleNamespace(**(values | changes))


class Play:
    """Keeps what a queue would keep, and what is asked for until the test answers it."""

    def __init__(self, settings: Any, now: float = BIRTH, pid: int = 99) -> None:
        self.now = now
        self.settings = settings
        self.manager = SendManager(settings, pid, 1)
        self.queue: dict[int, Stored] = {}
        self.ended: set[int] = set()
        self.log = MemoryLog()
        self.starts: dict[int, Start] = {}
        self.writes: dict[int, Record | Bounce | Notify] = {}
        self.bounces: list[Bounce] = []
        self.notices: list[Notify] = []
        self.loads: list[int] = []
        self.wake: float | None = None
        self.away: set[int] = set()
        self.taken: list[int] = []
        self.succeeded: set[tuple[int, int]] = set()

    def take(self, *numbers: int) -> list[int]:
        """Those that are let go at once."""
        before = len(self.taken)
        self.away |= set(numbers)
        self.tell(Take(frozenset(numbers)))
        return sorted(self.taken[before:])

    def _let_go(self, number: int) -> None:
        assert number in self.away and number not in self.taken, "let go unasked, or twice"
        assert number not in self.writes and number not in self.loads
        assert all(start.stored.id.number != number for start in self.starts.values())
        self.taken.append(number)

    def put_back(self, number: int, due: int | None = None, *, urgent: bool = False) -> list[Action]:
        """What was taken is known again, if it is still there; `due`: when it was, by default."""
        self.away.remove(number)
        self.taken.remove(number)
        if number not in self.queue:
            return []
        return self.tell(Known(number, min(self.queue[number].due) if due is None else due, urgent))

    def put_back_all(self) -> None:
        """What a start finds in the queue."""
        for number, stored in self.queue.items():
            self.tell(Known(number, min(stored.due)))
        self.load_all()

    def restart(self) -> None:
        """A crash: what was under way is lost, what is in the queue is found again."""
        self.manager = SendManager(self.settings, 99, 2)
        self.starts.clear()
        self.writes.clear()
        self.loads.clear()
        self.away.clear()
        self.taken.clear()
        self.wake = None

    def tell(self, event: Event) -> list[Action]:
        actions = self.manager.handle(event, self.now)
        for action in actions:
            if isinstance(action, LogEvent):
                self.log(action)
            elif isinstance(action, Start):
                positions = _positions(action)
                assert action.stored.id.number not in self.away, "a delivery of what was taken"
                for other in self.starts.values():
                    if other.stored.id == action.stored.id:
                        assert not positions & _positions(other), "two deliveries to one recipient"
                self.starts[action.delivery] = action
            elif isinstance(action, Record | Bounce | Notify):
                assert action.number not in self.writes
                self.writes[action.number] = action
                if isinstance(action, Notify):
                    self.notices.append(action)
                if isinstance(action, Bounce):
                    self.bounces.append(action)
            elif isinstance(action, WakeAt):
                self.wake = action.when
            elif isinstance(action, Load):
                assert action.number not in self.away, "what was taken is asked for"
                self.loads.append(action.number)
            elif isinstance(action, Taken):
                self._let_go(action.number)
        return actions

    def accept(
        self,
        number: int,
        recipients: Sequence[bytes | Recipient],
        sender: bytes = b"alice@example.test",
        size: int = 256,
        origin: Origin = ALICE,
    ) -> list[Action]:
        envelope = Envelope(sender, tuple(map(_recipient, recipients)), origin)
        key = b"%024d" % number
        progress = tuple(Progress() for _ in recipients)
        stored = Stored(MessageId(number, key), int(self.now), size, envelope, progress)
        self.queue[number] = stored
        return self.tell(Accepted(stored))

    def results(self, start: Start, outcome: Outcome, text: bytes = b"so\n") -> tuple[Result, ...]:
        count = len(start.positions) if isinstance(start, StartRemote) else 1
        return (Result(outcome, text),) * count

    def fail(self, delivery: int, text: bytes = b"no connection\n") -> list[Action]:
        """The whole host failed."""
        start = self.starts.pop(delivery)
        count = len(start.positions) if isinstance(start, StartRemote) else 1
        return self.tell(Reported(delivery, (Result(Outcome.DEFERRAL, text, host=True),) * count))

    def report(self, delivery: int, outcome: Outcome, text: bytes = b"so\n") -> list[Action]:
        start = self.starts.pop(delivery)
        return self.tell(Reported(delivery, self.results(start, outcome, text)))

    def write(self, number: int) -> list[Action]:
        """What was asked for is on disk."""
        action = self.writes.pop(number)
        if isinstance(action, Notify):
            self._apply(number, action.changes, (0, 0))
        elif isinstance(action, Bounce) or action.ended:
            changes = action.changes if isinstance(action, Record) else ()
            self._apply(number, changes, (0, 0))
            self.ended.add(number)
            del self.queue[number]
        else:
            self._apply(number, action.changes, action.due)
        return self.tell(Recorded(number))

    def write_all(self) -> None:
        while self.writes:
            self.write(next(iter(self.writes)))

    def load_all(self) -> None:
        while self.loads:
            number = self.loads.pop(0)
            self.tell(Loaded(number, self.queue.get(number)))

    def _apply(self, number: int, changes: tuple[Change, ...], due: Due) -> None:
        for change in changes:
            if change.outcome is Outcome.SUCCESS:
                assert (number, change.position) not in self.succeeded
                self.succeeded.add((number, change.position))
        self.queue[number] = applied(self.queue[number], changes, due)


def _recipient(address: bytes | Recipient) -> Recipient:
    return Recipient(address) if isinstance(address, bytes) else address


def _positions(start: Start) -> set[int]:
    return set(start.positions) if isinstance(start, StartRemote) else {start.position}


@pytest.fixture
def play() -> Callable[..., Play]:
    """A manager at play; changes to the settings by name."""
    return lambda **changes: Play(make_settings(**changes))


@pytest.fixture
def make() -> Callable[..., Any]:
    """The settings that the manager looks at; changes by name."""
    return make_settings
