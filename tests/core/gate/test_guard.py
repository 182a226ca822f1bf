"""Who is locked out by whose failures."""

import pytest

from openqmail.core.gate import Guard
from openqmail.core.gate.guard import AT_HOME, LENIENT
from openqmail.core.limits import LOCK

HERE, NEAR, ELSEWHERE = "192.0.2.1", "192.0.2.200", "198.51.100.7"


def fail(guard, address, login, times=1, now=0.0):
    for _ in range(times):
        guard.failed(address, login, now)


def test_a_network_that_guesses_is_locked_out_for_all_that_were_never_there():
    guard = Guard(10)
    for number in range(10):
        assert not guard.locked(HERE, b"alice", 0)
        fail(guard, HERE, b"user%d" % number)
    assert guard.locked(NEAR, b"alice", LOCK - 1)
    assert not guard.locked(ELSEWHERE, b"alice", 0)
    assert not guard.locked(HERE, b"alice", LOCK)


def test_who_was_there_before_is_not_locked_out_by_others_of_the_network():
    guard = Guard(3)
    guard.succeeded(HERE, b"alice")
    fail(guard, NEAR, b"mallory", 50)
    assert not guard.locked(HERE, b"alice", 0)
    assert guard.locked(HERE, b"mallory", 0)


def test_an_old_password_locks_out_its_own_login_there_and_nobody_else():
    guard = Guard(3)
    guard.succeeded(HERE, b"alice")
    fail(guard, HERE, b"alice", 3)
    assert guard.locked(NEAR, b"alice", 0)
    assert not guard.locked(HERE, b"bob", 0)
    assert not guard.locked(ELSEWHERE, b"alice", 0)
    guard.succeeded(HERE, b"alice")
    assert not guard.locked(HERE, b"alice", 0)


def test_a_neighbour_who_guesses_at_a_login_locks_it_there_and_nowhere_else():
    guard = Guard(3)
    for place in (HERE, ELSEWHERE):
        guard.succeeded(place, b"alice")
    fail(guard, NEAR, b"alice", 3)
    assert guard.locked(HERE, b"alice", 0)
    assert not guard.locked(ELSEWHERE, b"alice", 0)


def test_strangers_everywhere_lock_a_login_only_where_it_was_never():
    guard = Guard(2)
    guard.succeeded(HERE, b"alice")
    for number in range(2 * LENIENT):
        assert not guard.locked(ELSEWHERE, b"alice", 0)
        fail(guard, f"203.0.{number}.1", b"alice")
    assert guard.locked(ELSEWHERE, b"alice", 0)
    assert not guard.locked(HERE, b"alice", 0)
    assert not guard.locked(ELSEWHERE, b"bob", 0)


def test_failures_without_a_login_are_the_networks_alone():
    guard = Guard(2)
    fail(guard, HERE, b"", 2)
    assert guard.locked(HERE, b"", 0)
    assert not guard.locked(ELSEWHERE, b"", 0)


def test_zero_locks_nobody_and_slows_all_the_same():
    guard = Guard(0)
    assert [guard.failed(HERE, b"a", 0) for _ in range(3)] == [0.5, 1, 2]
    fail(guard, HERE, b"a", 500)
    assert not guard.locked(HERE, b"a", 0)


@pytest.mark.parametrize("at_home", [False, True])
def test_what_is_counted_already_is_kept_back_as_long_and_locks_nobody(at_home):
    guard = Guard(3)
    if at_home:
        guard.succeeded(HERE, b"a")
    assert [guard.failed(HERE, b"a", 0) for _ in range(2)] == [0.5, 1]
    assert [guard.failed(HERE, b"a", 0, again=True) for _ in range(5)] == [1] * 5
    assert not guard.locked(HERE, b"a", 0)


def test_only_so_many_are_remembered(monkeypatch):
    monkeypatch.setattr("openqmail.core.gate.guard.AT_HOME", 2)
    guard = Guard(1)
    for login in (b"a", b"b", b"c"):
        guard.succeeded(HERE, login)
    fail(guard, HERE, b"x")
    assert [guard.locked(HERE, login, 0) for login in (b"a", b"b", b"c")] == [True, False, False]
    assert AT_HOME > 1000


@pytest.mark.parametrize("limit", [1, 4])
def test_a_new_limit_counts_for_what_has_failed(limit):
    guard = Guard(100)
    fail(guard, HERE, b"a", 4)
    guard.reconfigure(limit)
    assert guard.locked(HERE, b"b", 0)
