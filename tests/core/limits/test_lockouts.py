"""Failures lock a key for a while, and nothing else; the table stays small."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqmail.core.limits.lockouts import LOCK, LONGEST, WINDOW, Lockouts, pause


def failed(table, key, times, now=0.0):
    return [table.failed(key, now) for _ in range(times)][-1]


def test_so_many_failures_lock_a_key_for_a_while_and_no_other():
    table = Lockouts(3)
    failed(table, b"a", 2)
    assert not table.locked(b"a", 1)
    failed(table, b"a", 1, now=2)
    assert table.locked(b"a", 2 + LOCK - 1)
    assert not table.locked(b"a", 2 + LOCK)
    assert not table.locked(b"b", 3)


def test_failures_count_only_within_the_window_of_the_first():
    table = Lockouts(3)
    failed(table, b"a", 2, now=0)
    assert table.failed(b"a", WINDOW) == 1
    assert not table.locked(b"a", WINDOW)


def test_failing_on_while_locked_locks_no_longer():
    table = Lockouts(2)
    failed(table, b"a", 2, now=0)
    failed(table, b"a", 50, now=LOCK / 2)
    assert not table.locked(b"a", LOCK)


def test_what_is_forgiven_counts_no_more():
    table = Lockouts(2)
    failed(table, b"a", 2)
    table.forgive(b"a")
    table.forgive(b"never seen")
    assert not table.locked(b"a", 0)


def test_a_limit_of_zero_locks_nobody_and_a_new_limit_counts_at_once():
    table = Lockouts(0)
    failed(table, b"a", 1000)
    assert not table.locked(b"a", 0)
    table.reconfigure(5)
    assert table.locked(b"a", 0)


@given(st.lists(st.tuples(st.binary(max_size=2), st.floats(0, 10_000)), max_size=300))
def test_the_table_is_bounded_whoever_fails_when(steps):
    table = Lockouts(3, most=16)
    now = 0.0
    for key, later in steps:
        now += later
        table.failed(key, now)
        assert len(table) <= 16


@pytest.mark.parametrize(("failures", "seconds"), [(0, 0), (1, 0.5), (2, 1), (3, 2), (5, 8), (10_000, 8)])
def test_each_failure_is_answered_later_than_the_one_before(failures, seconds):
    assert pause(failures) == seconds <= LONGEST
