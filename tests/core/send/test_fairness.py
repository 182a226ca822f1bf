"""Nobody waits for somebody else's flood."""

from heapq import heappop, heappush
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from openqmail.core.send.destination import FAILURES, OPENING, Destination
from openqmail.core.send.fairness import KEPT, PROBED, WAITING, WAITING_SLOW, FairQueue


def items(count: int) -> list[tuple[int, bytes]]:
    return [(position, b"user%d" % position) for position in range(count)]


def turns(queue: FairQueue, count: int) -> list[bytes]:
    """Whose so many deliveries are, one after the other, each over before the next."""
    found = []
    for _ in range(count):
        batch = queue.take()
        assert batch is not None
        found.append(batch[1])
        queue.release(batch[1])
    return found


def test_a_big_message_lets_a_small_one_pass() -> None:
    queue = FairQueue(limit=1, each=1, random=Random(1))
    queue.add(1, b"a.test", items(2000), 1)
    order = []
    for turn in range(5):
        batch = queue.take()
        assert batch is not None
        order.append(batch[0])
        if turn == 1:
            queue.add(2, b"a.test", items(1), 1)
        queue.release(b"a.test")
    assert order == [1, 1, 1, 2, 1]


def test_a_full_destination_stands_aside() -> None:
    queue = FairQueue(limit=20, each=5, random=Random(1))
    for number in range(100):
        queue.add(number, b"dead.test", items(1), 100)
    queue.add(1000, b"live.test", items(1), 100)
    taken = []
    while (batch := queue.take()) is not None:
        taken.append(batch[1])
    assert taken.count(b"dead.test") == 5
    assert taken.count(b"live.test") == 1
    queue.release(b"dead.test")
    batch = queue.take()
    assert batch is not None and batch[:2] == (5, b"dead.test")


def test_recipients_go_in_groups() -> None:
    queue = FairQueue(limit=20, each=20, random=Random(1))
    queue.add(1, b"a.test", items(250), 100)
    sizes = []
    while (batch := queue.take()) is not None:
        sizes.append(len(batch[2]))
    assert sizes == [100, 100, 50]


def test_new_limits_count_at_once() -> None:
    queue = FairQueue(limit=0, each=1, random=Random(1))
    for number in range(4):
        queue.add(number, b"a.test", items(1), 1)
    assert queue.take() is None
    queue.resize(10, 3)
    assert [queue.take() is not None for _ in range(4)] == [True, True, True, False]
    queue.resize(10, 1)
    queue.release(b"a.test")
    queue.release(b"a.test")
    assert queue.take() is None
    queue.release(b"a.test")
    assert queue.take() is not None


def test_beyond_a_long_line_only_numbers_are_kept_and_come_back_in_order() -> None:
    queue = FairQueue(limit=1, each=1, random=Random(1))
    total = WAITING + 700
    for number in range(total):
        if queue.congested(b"a.test"):
            queue.park(number, b"a.test", 0)
        else:
            queue.add(number, b"a.test", items(1), 1)
    assert queue.parked == 700
    seen = []
    while (batch := queue.take()) is not None:
        seen.append(batch[0])
        queue.release(b"a.test")
        for number, name in queue.recalled:
            queue.add(number, name, items(1), 1)
            queue.arrived(name)
        queue.recalled.clear()
    assert seen == list(range(total))
    assert queue.parked == 0


def test_what_is_withdrawn_leaves_the_others_in_their_order() -> None:
    queue = FairQueue(limit=1, each=1, random=Random(1))
    for number in range(6):
        queue.add(number, b"ab"[number % 2 :][:1] + b".test", items(1), 1)
    queue.add(6, b"c.test", items(1), 1)
    queue.withdraw(frozenset({0, 6, 9}))
    order = []
    while (batch := queue.take()) is not None:
        order.append(batch[0])
        queue.release(batch[1])
    assert order == [2, 1, 4, 3, 5]


def test_withdrawing_a_long_line_brings_those_that_are_parked_behind_it() -> None:
    queue = FairQueue(limit=1, each=1, random=Random(1))
    for number in range(WAITING):
        queue.add(number, b"a.test", items(1), 1)
    queue.park(WAITING, b"a.test", 0)
    queue.park(WAITING + 1, b"a.test", 0)
    queue.withdraw(frozenset(range(WAITING - 1)) | {WAITING})
    assert (queue.recalled, queue.parked) == ([(WAITING + 1, b"a.test")], 0)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 30), st.integers(1, 10)), max_size=20),
    st.integers(1, 6),
    st.integers(1, 4),
    st.randoms(use_true_random=False),
)
@settings(max_examples=100)
def test_each_recipient_once_and_never_over_a_limit(
    messages: list[tuple[int, int, int]], limit: int, each: int, random: object
) -> None:
    queue = FairQueue(limit, each, random=Random(1))
    expected = set()
    for number, (destination, count, group) in enumerate(messages):
        name = b"d%d" % destination
        queue.add(number, name, items(count), group)
        expected |= {(number, name, position) for position in range(count)}
    seen, running = set(), []
    while True:
        batch = queue.take()
        if batch is None:
            if not running:
                break
            queue.release(running.pop(random.randrange(len(running))))  # type: ignore[attr-defined]
            continue
        number, name, taken = batch
        running.append(name)
        assert len(running) <= limit
        assert running.count(name) <= each
        for position, _ in taken:
            assert (number, name, position) not in seen
            seen.add((number, name, position))
    assert seen == expected


def test_withdrawing_what_was_asked_for_asks_for_the_next_that_are_parked() -> None:
    queue = FairQueue(limit=1, each=1, random=Random(1))
    queue.add(0, b"a.test", items(1), 1)
    for number in range(1, 2 * WAITING):
        queue.park(number, b"a.test", 0)
    asked = [number for number, _ in queue.recalled]
    queue.withdraw(frozenset(asked))
    after = [number for number, _ in queue.recalled]
    assert asked and after == [number + len(asked) for number in asked]


def test_strangers_get_a_second_slot_only_while_they_hold_few() -> None:
    queue = FairQueue(limit=20, each=20, random=Random(1), paced=True)
    for destination in range(3):
        for number in range(10):
            queue.add(number, b"d%d" % destination, items(1), 1)
    taken = []
    while (batch := queue.take()) is not None:
        taken.append(batch[1])
    assert sorted(taken) == [b"d0", b"d0", b"d1", b"d1", b"d2"]


def test_one_stranger_alone_gets_what_opens() -> None:
    queue = FairQueue(limit=20, each=20, random=Random(1), paced=True)
    assert [queue.take_at_once(b"a.test") for _ in range(OPENING + 1)] == [True] * OPENING + [False]


def test_the_number_of_destinations_that_are_remembered_is_bounded() -> None:
    queue = FairQueue(limit=20, each=20, random=Random(1), paced=True)
    queue.take_at_once(b"busy.test")
    for number in range(2 * KEPT):
        name = b"d%d" % number
        assert queue.take_at_once(name)
        queue.failed(name, b"no\n")
    assert len(queue._destinations) <= KEPT
    assert queue.state(b"busy.test") is not None


@given(st.lists(st.integers(0, 1000), unique=True, min_size=1), st.randoms(use_true_random=False))
def test_what_is_drawn_by_lot_leaves_the_others_by_age(births: list[int], random: Random) -> None:
    destination = Destination(b"a.test", 1, proven=False)
    for birth in births:
        heappush(destination.parked, birth)
    drawn = [destination.draw(random, -1) for _ in range(len(births) // 2)]
    left = [heappop(destination.parked) for _ in range(len(births) - len(drawn))]
    assert left == sorted(left) and sorted(drawn + left) == sorted(births)


class Paced:
    """A queue of other hosts, beside what must be true of it whatever happens."""

    def __init__(self, limit: int, each: int, random: Random) -> None:
        self.queue, self.limit, self.each, self.random = (
            FairQueue(limit, each, random, paced=True),
            limit,
            each,
            random,
        )
        self.running: list[bytes] = []
        self.left: dict[bytes, int] = {}
        self.now = 0.0

    def take_all(self) -> None:
        held = self.queue.others
        while (batch := self.queue.take()) is not None:
            name = batch[1]
            state = self.queue.state(name)
            assert state is not None and state.resting_until is None, "started though it rests"
            assert state.running == self.running.count(name) + 1 <= min(state.limit, self.each)
            self.running.append(name)
            self.left[name] -= 1
        assert len(self.running) == self.queue.running <= self.limit
        assert 0 <= self.queue.others <= max(1, self.limit - self.limit // 4, held)

    def hang(self) -> None:
        """Some of what is under way to a destination takes long."""
        name = self.random.choice(self.running)
        self.queue.late(name, self.random.randint(1, self.running.count(name)), 60.0)

    def end(self, how: str) -> None:
        name = self.running.pop(self.random.randrange(len(self.running)))
        if how == "fail":
            if self.queue.failed(name, b"no\n"):
                withdrawn = self.queue.rest(name, self.now, -1)
                assert sum(len(waiting) for _, waiting in withdrawn) == self.left[name]
                for number, waiting in withdrawn:  # as the manager does: they wait as numbers
                    for _ in waiting:
                        self.queue.park(number, name, number)
        elif how == "answer":
            self.queue.answered(name)
        else:
            self.queue.succeeded(name, 3.0 if how == "slowly" else 0.01)

    def recall(self) -> None:
        """What is recalled is loaded, and stands in line if it may."""
        while self.queue.recalled:
            number, name = self.queue.recalled.pop()
            if self.queue.holds(name):
                self.queue.park(number, name, number)
            else:
                self.queue.add(number, name, items(1), 1)
            self.queue.arrived(name)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.queue.resume(self.now)


@given(
    st.integers(1, 12),
    st.integers(1, 8),
    st.lists(
        st.sampled_from(["add", "fail", "fail", "answer", "quickly", "slowly", "hang", "wait", "flush"]),
        max_size=120,
    ),
    st.randoms(use_true_random=False),
)
@settings(max_examples=150)
def test_no_order_of_events_breaks_a_limit_and_everything_is_tried_in_the_end(
    limit: int, each: int, steps: list[str], random: Random
) -> None:
    play = Paced(limit, each, random)
    for number, step in enumerate(steps):
        if step == "add":
            name = b"d%d" % random.randrange(5)
            play.left[name] = play.left.get(name, 0) + 1
            if play.queue.holds(name) or play.queue.congested(name):
                play.queue.park(number, name, number)
            else:
                play.queue.add(number, name, items(1), 1)
        elif step == "wait":
            play.pass_time(random.choice([1.0, 100.0, 4000.0]))
        elif step == "flush":
            play.queue.forgive()
        elif play.running:
            play.hang() if step == "hang" else play.end(step)
        play.recall()
        play.take_all()
    for _ in range(20 * len(steps) + 20):
        if play.running:
            play.end("quickly")
        else:
            play.pass_time(4000.0)
        play.recall()
        play.take_all()
    assert not any(play.left.values()), "a destination starves"
    assert play.queue.running == play.queue.others == play.queue.parked == 0


def test_it_takes_failures_in_a_row_to_rest() -> None:
    queue = FairQueue(limit=20, each=20, random=Random(1), paced=True)
    for _ in range(FAILURES - 1):
        queue.take_at_once(b"a.test")
        assert not queue.failed(b"a.test", b"no\n")
    queue.take_at_once(b"a.test")
    queue.succeeded(b"a.test", 0.1)
    queue.take_at_once(b"a.test")
    assert not queue.failed(b"a.test", b"no\n")


def test_strangers_go_before_slow_ones_but_do_not_starve_them() -> None:
    queue = FairQueue(limit=4, each=4, random=Random(1), paced=True)
    queue.take_at_once(b"slow.test")
    queue.succeeded(b"slow.test", 5.0)
    for number in range(40):
        queue.add(number, b"slow.test", items(1), 1)
        queue.add(number, b"d%d" % number, items(1), 1)
    assert turns(queue, 40).count(b"slow.test") == 10


def paced(limit: int = 20, each: int = 20) -> FairQueue:
    return FairQueue(limit=limit, each=each, random=Random(1), paced=True)


def proven(queue: FairQueue, name: bytes, seconds: float = 0.1) -> None:
    """One delivery there has succeeded, in so many seconds."""
    assert queue.take_at_once(name)
    queue.succeeded(name, seconds)


def test_the_window_grows_by_one_for_a_whole_window_of_successes_after_the_last_failure() -> None:
    destination = Destination(b"a.test", OPENING, proven=True)
    limits = []
    for _ in range(OPENING + OPENING + 1):
        destination.succeeded(20, 0.1)
        limits.append(destination.limit)
    assert limits == [OPENING] * (OPENING - 1) + [OPENING + 1] * (OPENING + 1) + [OPENING + 2]
    for _ in range(OPENING + 1):
        destination.succeeded(20, 0.1)
    destination.failed(b"no\n")
    for _ in range(OPENING):
        destination.succeeded(20, 0.1)
    assert destination.limit == OPENING + 1, "successes from before the failure counted"


def test_a_success_at_a_host_that_is_known_ends_its_run_of_failures() -> None:
    queue = paced()
    proven(queue, b"a.test")
    for _ in range(3 * FAILURES):
        queue.take_at_once(b"a.test")
        assert not queue.failed(b"a.test", b"no\n")
        queue.take_at_once(b"a.test")
        queue.succeeded(b"a.test", 0.1)


def slots_of_others(queue: FairQueue, name: bytes) -> int:
    """1 when a delivery to this destination counts among those of strangers and slow ones."""
    assert queue.take_at_once(name)
    found = queue.others
    queue.answered(name)
    return found


def test_one_slow_delivery_makes_no_slow_host_and_one_quick_one_no_quick_host() -> None:
    queue = paced()
    proven(queue, b"a.test")
    proven(queue, b"a.test", 3.0)
    assert slots_of_others(queue, b"a.test") == 0
    for _ in range(10):
        proven(queue, b"a.test", 3.0)
    assert slots_of_others(queue, b"a.test") == 1
    for _ in range(40):
        proven(queue, b"a.test", 0.8)  # quicker than slow, slower than quick: it stays what it was
    assert slots_of_others(queue, b"a.test") == 1
    for _ in range(10):
        proven(queue, b"a.test", 0.1)
    assert slots_of_others(queue, b"a.test") == 0


def test_quick_ones_and_strangers_take_turns() -> None:
    queue = paced(limit=8)
    proven(queue, b"quick.test")
    for number in range(40):
        queue.add(number, b"quick.test", items(1), 1)
        queue.add(number, b"d%d.test" % number, items(1), 1)
    assert [name == b"quick.test" for name in turns(queue, 8)] == [True, False] * 4


def test_who_comes_now_does_not_overtake_who_stands_in_line() -> None:
    queue = paced(limit=2)
    for name in (b"a.test", b"b.test", b"c.test"):
        proven(queue, name)
    queue.add(1, b"a.test", items(1), 1)
    assert not queue.take_at_once(b"b.test")  # a slot is free, and a.test is first
    assert queue.take() is not None
    assert queue.take_at_once(b"b.test")
    strangers = paced()
    strangers.add(1, b"a.test", items(1), 1)
    assert not strangers.take_at_once(b"b.test")


def test_a_stranger_gets_no_second_slot_at_once_either_when_they_hold_many() -> None:
    queue = paced(limit=8)
    assert queue.take_at_once(b"a.test")
    assert queue.take_at_once(b"b.test")
    assert not queue.take_at_once(b"a.test")
    assert queue.take_at_once(b"c.test")


def test_nothing_is_started_at_once_where_the_host_rests() -> None:
    queue = paced()
    queue.take_at_once(b"a.test")
    queue.failed(b"a.test", b"no\n")
    queue.rest(b"a.test", 100.0, 1)
    assert not queue.take_at_once(b"a.test")


def test_the_line_of_a_stranger_is_short_and_that_of_a_quick_host_long() -> None:
    queue = paced()
    proven(queue, b"quick.test")
    for number in range(WAITING_SLOW):
        assert not queue.congested(b"new.test")
        queue.add(number, b"new.test", items(1), 1)
        queue.add(number, b"quick.test", items(1), 1)
    assert queue.congested(b"new.test")
    assert not queue.congested(b"quick.test")


def test_what_somebody_wants_tried_now_stands_first_and_stays_when_its_host_is_left_alone() -> None:
    queue = paced(limit=1)
    queue.take_at_once(b"a.test")
    for number in range(3):
        queue.add(number, b"a.test", items(1), 1)
    queue.add(7, b"a.test", items(1), 1, urgent=True)
    queue.failed(b"a.test", b"no\n")
    withdrawn = queue.rest(b"a.test", 100.0, 99)
    assert [number for number, _ in withdrawn] == [0, 1, 2]
    batch = queue.take()
    assert batch is not None and batch[0] == 7
    waiting = paced(limit=1)
    waiting.add(1, b"b.test", items(1), 1)
    waiting.add(2, b"b.test", items(1), 1, urgent=True)
    batch = waiting.take()
    assert batch is not None and batch[0] == 2


def test_a_message_for_a_host_that_is_being_probed_is_looked_at_when_the_probe_should_be_over() -> None:
    queue = paced()
    queue.take_at_once(b"a.test")
    queue.failed(b"a.test", b"no\n")
    queue.rest(b"a.test", 100.0, 1)
    until = queue.resting_until(b"a.test")
    assert queue.again([b"a.test"], 100) == until > 100 + PROBED
    queue.resume(until)
    queue.add(2, b"a.test", items(1), 1)
    assert queue.take() is not None  # the probe
    assert queue.again([b"a.test"], until) == until + PROBED
    assert queue.again([b"a.test", b"other.test"], until) == until + 1


def test_what_is_parked_at_a_host_that_was_forgiven_is_asked_for() -> None:
    queue = paced()
    queue.take_at_once(b"a.test")
    queue.failed(b"a.test", b"no\n")
    queue.rest(b"a.test", 100.0, 1)
    for number in range(3):
        queue.park(number, b"a.test", 50 + number)
    assert not queue.recalled
    queue.forgive()
    assert sorted(number for number, _ in queue.recalled) == [0, 1, 2]
