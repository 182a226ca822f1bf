"""qmail's schedule, and the heap of waiting messages."""

from math import isqrt
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from openqmail.core.send.schedule import DueTimes, next_try

DAY = 86_400


def test_the_first_attempts_of_a_remote_recipient() -> None:
    """qmail-send(8)'s pace: after 400 s, 1600 s, 3600 s, … since the birth."""
    birth, now, times = 1_000_000, 1_000_000, []
    for _ in range(5):
        now = next_try(birth, now, "remote")
        times.append(now - birth)
    assert times == [400, 1600, 3600, 6400, 10_000]
    assert next_try(birth, birth, "local") == birth + 100


def test_a_birth_in_the_future_counts_as_now() -> None:
    assert next_try(2000, 1000, "local") == 2100


@given(st.integers(0, 30 * DAY))
@settings(max_examples=200)
def test_the_formula(age: int) -> None:
    for channel, skip in (("local", 10), ("remote", 20)):
        due = next_try(5, 5 + age, channel)  # type: ignore[arg-type]
        assert due == 5 + (isqrt(age) + skip) ** 2
        assert due > 5 + age


@given(st.lists(st.integers(0, 1000), max_size=50), st.integers(0, 1000))
@settings(max_examples=100)
def test_only_what_is_due_comes_out_and_the_earliest_first(times: list[int], now: int) -> None:
    due = DueTimes(Random(1))
    for number, when in enumerate(times):
        due.add(number, when)
    taken = []
    while (found := due.take(now)) is not None:
        number, all_due = found
        assert all_due == (times[number] == 0)
        taken.append(times[number])
    assert taken == sorted(when for when in times if when <= now)
    assert due.next() == min((when for when in times if when > now), default=None)


def test_a_flush_makes_all_due_in_an_order_drawn_by_lot() -> None:
    due = DueTimes(Random(7))
    for number in range(100):
        due.add(number, 10_000 + number)
    assert due.take(0) is None
    assert due.flush() == 100
    taken = [found for found in (due.take(0) for _ in range(100)) if found is not None]
    assert all(all_due for _, all_due in taken)
    numbers = [number for number, _ in taken]
    assert sorted(numbers) == list(range(100)) and numbers != list(range(100))
    assert not len(due)


def test_what_is_withdrawn_is_not_due_and_the_rest_is_in_its_time() -> None:
    due = DueTimes(Random(1))
    for number in range(20):
        due.add(number, 0 if number < 5 else 1000 - number)
    due.withdraw(frozenset({2, 7, 19, 99}))
    taken = [found[0] for found in (due.take(2000) for _ in range(17)) if found is not None]
    assert taken == [0, 1, 3, 4, *(number for number in range(18, 4, -1) if number != 7)]
    assert not len(due)
