"""Token buckets: never more in an hour than twice the rate, all of it after a pause, bounded memory."""

from hypothesis import given
from hypothesis import strategies as st

from openqmail.core.limits import HOUR, Buckets

STEPS = st.lists(st.tuples(st.floats(0, 2 * HOUR), st.integers(1, 5)), max_size=60)


@given(st.integers(1, 1_000_000), STEPS)
def test_no_stretch_of_time_gives_more_than_a_full_bucket_and_what_came_back(rate, steps):
    buckets, now, given_out = Buckets(rate), 0.0, []
    for pause, count in steps:
        now += pause
        if buckets.take(b"k", count, now):
            given_out.append((now, count))
    for first, (begin, _) in enumerate(given_out):
        for last in range(first, len(given_out)):
            passed = given_out[last][0] - begin
            total = sum(count for _, count in given_out[first : last + 1])
            assert total <= rate + rate * passed / HOUR * 1.001 + 0.001


@given(st.integers(1, 2000), st.floats(0, 1e9))
def test_the_whole_rate_is_there_at_once_and_again_after_an_hour(rate, begin):
    buckets = Buckets(rate)
    for now in (begin, begin + HOUR + 1):
        assert [buckets.take(b"k", 1, now) for _ in range(rate + 1)] == [True] * rate + [False]


def test_a_refusal_takes_nothing():
    buckets = Buckets(2)
    assert not buckets.take(b"k", 3, 0.0)
    assert buckets.take(b"k", 2, 0.0)
    assert not any(buckets.take(b"k", 1, 0.0) for _ in range(100))
    assert buckets.take(b"k", 1, HOUR / 2 + 1)


def test_a_rate_of_zero_refuses_none_and_keeps_nothing():
    buckets = Buckets(0)
    assert all(buckets.take(b"k", 1000, 0.0) for _ in range(100))
    assert len(buckets) == 0


def test_a_key_whose_bucket_is_full_again_is_forgotten():
    buckets = Buckets(60)
    for number in range(100):
        buckets.take(b"%d" % number, 1, 0.0)
    assert len(buckets) == 100
    for number in range(100):
        buckets.take(b"later %d" % number, 1, 200.0)
    assert len(buckets) == 100


def test_the_table_is_bounded_and_the_oldest_key_goes_first():
    buckets = Buckets(1, most=10)
    for number in range(11):
        assert buckets.take(b"%d" % number, 1, float(number))
    assert len(buckets) == 10
    assert not buckets.take(b"1", 1, 20.0)
    assert buckets.take(b"0", 1, 20.0), "it was let off"
    assert len(buckets) == 10


def test_a_new_rate_keeps_the_part_that_was_spent():
    buckets = Buckets(10)
    assert buckets.take(b"k", 5, 0.0)
    buckets.reconfigure(100)
    assert buckets.take(b"k", 50, 0.0)
    assert not buckets.take(b"k", 1, 0.0)


@given(st.integers(1, 1_000_000), STEPS)
def test_what_is_told_to_be_there_can_be_taken_and_no_more(rate, steps):
    buckets, now = Buckets(rate), 0.0
    for pause, count in steps:
        now += pause
        buckets.take(b"k", count, now)
        room = buckets.room(b"k", now)
        assert not buckets.take(b"k", room + 1, now)
        if room:
            assert buckets.take(b"k", room, now)
            buckets.give(b"k", room, now)
            assert buckets.room(b"k", now) == room


def test_what_is_given_back_fills_a_bucket_and_no_more():
    buckets = Buckets(10)
    assert buckets.take(b"k", 6, 0.0)
    buckets.give(b"k", 4, 0.0)
    assert buckets.room(b"k", 0.0) == 8
    buckets.give(b"k", 4, 0.0)
    buckets.give(b"unheard of", 4, 0.0)
    assert (buckets.room(b"k", 0.0), len(buckets)) == (10, 0)
    assert Buckets(0).room(b"k", 0.0) is None
