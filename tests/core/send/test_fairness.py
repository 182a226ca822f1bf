"""Nobody waits for somebody else's flood."""

from hypothesis import given, settings
from hypothesis import strategies as st

from openqmail.core.send.fairness import WAITING, FairQueue


def items(count: int) -> list[tuple[int, bytes]]:
    return [(position, b"user%d" % position) for position in range(count)]


def test_a_big_message_lets_a_small_one_pass() -> None:
    queue = FairQueue(limit=1, each=1)
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
    queue = FairQueue(limit=20, each=5)
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
    queue = FairQueue(limit=20, each=20)
    queue.add(1, b"a.test", items(250), 100)
    sizes = []
    while (batch := queue.take()) is not None:
        sizes.append(len(batch[2]))
    assert sizes == [100, 100, 50]


def test_new_limits_count_at_once() -> None:
    queue = FairQueue(limit=0, each=1)
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
    queue = FairQueue(limit=1, each=1)
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
    queue = FairQueue(limit=1, each=1)
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
    queue = FairQueue(limit=1, each=1)
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
    queue = FairQueue(limit, each)
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
    queue = FairQueue(limit=1, each=1)
    queue.add(0, b"a.test", items(1), 1)
    for number in range(1, 2 * WAITING):
        queue.park(number, b"a.test", 0)
    asked = [number for number, _ in queue.recalled]
    queue.withdraw(frozenset(asked))
    after = [number for number, _ in queue.recalled]
    assert asked and after == [number + len(asked) for number in asked]
