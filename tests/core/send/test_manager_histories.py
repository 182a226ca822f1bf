"""Random histories: whatever happens in whatever order, the promises hold."""

from collections.abc import Callable
from random import Random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memory_store import applied
from openqmail.core.log import DeliveryStarted
from openqmail.core.queue.store import Change
from openqmail.core.send.events import (
    Bounce,
    BounceFailed,
    Finished,
    Flush,
    Known,
    Loaded,
    Notify,
    NotifyFailed,
    Recorded,
    Reported,
    StartRemote,
    Wake,
)
from openqmail.core.values import Outcome, Recipient, Result

ADDRESSES = [b"a@far.test", b"b@far.test", b"c@near.test", b"bob@example.test", b"joe@virt.test", b"noat"]
NOTIFY = [b"", b"", b"NEVER", b"SUCCESS", b"DELAY", b"SUCCESS,FAILURE,DELAY"]
SENDERS = [b"alice@example.test", b"", b"#@[]", b"list-@example.test-@[]"]
LIMITS = {"concurrencylocal": 2, "concurrencyremote": 3, "concurrencydestination": 1, "queuelifetime": 20_000}


class History:
    """Plays one history; each step is drawn, each promise is checked after it."""

    def __init__(self, world: Any, random: Random) -> None:
        self.world, self.random = world, random
        self.next_number = 0
        self.finished: set[int] = set()

    def run(self, steps: int) -> None:
        moves = [
            self.accept,
            self.finish,
            self.report,
            self.report,
            self.write,
            self.write,
            self.bounce_fails,
            self.notice_fails,
            self.load,
            self.load,
            self.pass_time,
            self.flush,
            self.take,
            self.put_back,
            self.put_back,
            self.crash,
            self.noise,
        ]
        for _ in range(steps):
            self.random.choice(moves)()
            self.check_limits()

    def accept(self) -> None:
        count = self.random.randrange(5)
        self.world.accept(
            self.next_number,
            [Recipient(self.random.choice(ADDRESSES), self.random.choice(NOTIFY)) for _ in range(count)],
            sender=self.random.choice(SENDERS),
        )
        self.next_number += 1

    def finish(self) -> None:
        if self.world.starts:
            delivery = self.random.choice(list(self.world.starts))
            self.finished.add(delivery)
            self.world.tell(Finished(delivery))

    def report(self, outcomes: tuple[Outcome, ...] = tuple(Outcome)) -> None:
        if self.world.starts:
            delivery = self.random.choice(list(self.world.starts))
            start = self.world.starts.pop(delivery)
            count = len(start.positions) if isinstance(start, StartRemote) else 1
            results = tuple(self.result(self.random.choice(outcomes)) for _ in range(count))
            self.world.tell(Reported(delivery, results))
            self.world.tell(Reported(delivery, results))

    def result(self, outcome: Outcome) -> Result:
        """Half of the deferrals are the whole host's."""
        host, dsn = (self.random.random() < 0.5 for _ in range(2))
        return Result(outcome, b"so\n", host=outcome is Outcome.DEFERRAL and host, dsn=dsn)

    def write(self) -> None:
        if self.world.writes:
            self.world.write(self.random.choice(list(self.world.writes)))

    def bounce_fails(self) -> None:
        for number, action in list(self.world.writes.items()):
            if isinstance(action, Bounce):
                del self.world.writes[number]
                self.world.tell(BounceFailed(number))
                return

    def notice_fails(self) -> None:
        for number, action in list(self.world.writes.items()):
            if isinstance(action, Notify):
                del self.world.writes[number]
                self.world.tell(NotifyFailed(number))
                return

    def load(self) -> None:
        if self.world.loads:
            number = self.world.loads.pop(self.random.randrange(len(self.world.loads)))
            self.world.tell(Loaded(number, self.world.queue.get(number)))

    def pass_time(self) -> None:
        self.world.now += self.random.choice([1, 100, 2000, 10_000])
        self.world.tell(Wake())

    def flush(self) -> None:
        self.world.tell(Flush())

    def take(self) -> None:
        """Some of the messages, whatever they are at, and one that nobody knows."""
        some = [number for number in self.world.queue if self.random.random() < 0.3]
        self.world.take(*(number for number in (*some, 20_000_000) if number not in self.world.away))

    def put_back(self) -> None:
        """As it was, to be tried at once, deleted, or given back to its sender."""
        if not self.world.taken:
            return
        number, act = self.random.choice(self.world.taken), self.random.randrange(4)
        stored = self.world.queue.get(number)
        if stored is not None and act == 0:
            del self.world.queue[number]
            self.world.ended.add(number)
        elif stored is not None and act == 1:
            left = [at for at, one in enumerate(stored.progress) if one.outcome is None]
            given = tuple(Change(at, Outcome.FAILURE, b"<x>:\nno\n\n") for at in left)
            self.world.queue[number] = applied(stored, given, (0, 0))
        self.world.put_back(number, 0 if act in (1, 2) else None, urgent=act == 2)

    def crash(self) -> None:
        if self.random.random() < 0.3:
            self.world.restart()
            for number, stored in self.world.queue.items():
                self.world.tell(Known(number, min(stored.due)))

    def noise(self) -> None:
        number = self.random.randrange(self.next_number + 1)
        for event in (Finished(10_000 + number), Reported(10_000 + number, ()), Known(10_000_000, 2**40)):
            self.world.tell(event)
        if number not in self.world.writes:
            self.world.tell(Recorded(number))

    def check_limits(self) -> None:
        local, remote = self.world.manager.running()
        assert 0 <= local <= LIMITS["concurrencylocal"]
        assert 0 <= remote <= LIMITS["concurrencyremote"]
        domains = [
            start.domain
            for delivery, start in self.world.starts.items()
            if isinstance(start, StartRemote) and delivery not in self.finished
        ]
        assert len(domains) == len(set(domains)), "more than one transaction to a destination"

    def settle(self) -> None:
        """From now on everything works: every message must come to its end."""
        outcomes = (Outcome.SUCCESS, Outcome.FAILURE)
        for _ in range(10_000):
            if not self.world.queue:
                break
            if self.world.starts:
                self.report(outcomes)
            elif self.world.writes:
                self.world.write_all()
            elif self.world.loads:
                self.world.load_all()
            elif self.world.away:
                assert set(self.world.taken) == self.world.away, "a message is never let go"
                self.world.put_back(self.world.taken[0])
            else:
                assert self.world.wake is not None, "a message has neither work nor a time"
                self.world.now = max(self.world.now, self.world.wake)
                self.world.tell(Wake())
        assert not self.world.queue
        assert self.world.manager.idle
        assert self.world.manager.running() == (0, 0)


@given(st.integers(0, 2**32), st.integers(0, 150))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_history_ends_well(play: Callable[..., Any], seed: int, steps: int) -> None:
    world = play(virtualdomains={b"virt.test": b"bob-v"}, **LIMITS)
    history = History(world, Random(seed))
    history.run(steps)
    history.settle()
    assert world.ended == set(range(history.next_number))


@given(st.integers(0, 2**32))
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_without_a_crash_no_delivery_number_comes_twice(play: Callable[..., Any], seed: int) -> None:
    world = play(virtualdomains={b"virt.test": b"bob-v"}, **LIMITS)
    history = History(world, Random(seed))
    history.crash = lambda: None  # type: ignore[method-assign]
    history.run(100)
    history.settle()
    numbers = [event.delivery for event in world.log.events if isinstance(event, DeliveryStarted)]
    assert numbers == list(range(1, len(numbers) + 1))
