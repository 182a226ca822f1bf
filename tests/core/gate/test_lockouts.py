"""Who is locked out is told to the administrator, who may end it."""

from openqmail.core.gate import Guard
from openqmail.core.gate.guard import LENIENT
from openqmail.core.limits import LOCK
from openqmail.core.ports import LockedOut

HERE, NEAR, ELSEWHERE = "192.0.2.1", "192.0.2.200", "2001:db8::7"
NETWORK, FAR = "192.0.2.0/24", "2001:db8::/64"


def locked(*lockouts):
    """A guard of which somebody has failed so often, here and there."""
    guard = Guard(2)
    guard.succeeded(HERE, b"alice")
    for address, login, times in lockouts:
        for _ in range(times):
            guard.failed(address, login, 0)
    return guard


ALL = (
    (HERE, b"mallory", 3),
    (HERE, b"alice", 2),
    *((f"203.0.{at}.1", b"bob", 1) for at in range(2 * LENIENT)),
)


def test_each_kind_is_told_with_its_failures_and_what_is_left_of_it():
    guard = locked(*ALL)
    assert list(guard.all_locked(100)) == [
        LockedOut(NETWORK, "", 3, LOCK - 100),
        LockedOut("", "bob", 20, LOCK - 100),
        LockedOut(NETWORK, "alice", 2, LOCK - 100),
    ]
    assert guard.counts(100) == (1, 1, 1)
    assert guard.counts(LOCK) == (0, 0, 0)
    assert not list(guard.all_locked(LOCK))


def test_an_address_unlocks_its_network_and_all_who_were_at_home_there():
    guard = locked(*ALL)
    assert guard.unlock(NEAR, 1) == 2
    assert not guard.locked(HERE, b"alice", 1)
    assert not guard.locked(HERE, b"mallory", 1)
    assert guard.locked(ELSEWHERE, b"bob", 1)


def test_a_network_is_unlocked_as_it_is_told():
    guard = locked((ELSEWHERE, b"x", 2))
    [told] = guard.all_locked(1)
    assert told.network == FAR
    assert guard.unlock(told.network, 1) == 1
    assert not guard.locked(ELSEWHERE, b"x", 1)


def test_a_login_is_unlocked_everywhere_however_it_is_spelled_and_no_other():
    guard = locked(*ALL)
    assert guard.unlock("Bob", 1) == 1
    assert not guard.locked(ELSEWHERE, b"bob", 1)
    assert guard.unlock("ALICE", 1) == 1
    assert not guard.locked(HERE, b"alice", 1)
    assert guard.locked(HERE, b"mallory", 1)


def test_who_is_not_locked_is_no_lock_out_and_begins_anew():
    guard = locked((HERE, b"mallory", 1))
    assert guard.unlock(HERE, 1) == 0
    guard.failed(HERE, b"mallory", 1)
    assert not guard.locked(HERE, b"mallory", 1)


def test_a_login_that_ends_like_another_is_not_that():
    guard = locked((HERE, b"alice", 2))
    assert guard.unlock("ice", 1) == guard.unlock("", 1) == 0
    assert guard.unlock("alice", 1) == 1
