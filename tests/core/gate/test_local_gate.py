"""The gate of one process."""

import pytest

from openqmail.core.gate import LocalGate


def test_a_limit_is_reached_and_given_back():
    gate = LocalGate({b"connections": 2})
    assert gate.lease(b"connections")
    assert gate.lease(b"connections")
    assert not gate.lease(b"connections")
    gate.release(b"connections")
    assert gate.lease(b"connections")
    assert gate.taken(b"connections") == 2


def test_a_lease_is_whole_or_not_at_all():
    gate = LocalGate({b"x": 3})
    assert not gate.lease(b"x", 4)
    assert gate.lease(b"x", 3)


def test_a_limit_of_zero_refuses_all_and_no_limit_refuses_none():
    gate = LocalGate({b"none": 0})
    assert not gate.lease(b"none")
    assert all(gate.lease(b"other") for _ in range(1000))


def test_giving_back_too_much_is_an_error():
    gate = LocalGate({})
    with pytest.raises(ValueError, match="fewer are leased"):
        gate.release(b"x")


def test_new_limits_keep_what_is_leased():
    gate = LocalGate({b"x": 2})
    assert gate.lease(b"x", 2)
    gate.reconfigure({b"x": 1})
    assert not gate.lease(b"x")
    gate.release(b"x", 2)
    assert gate.lease(b"x")
    assert not gate.lease(b"x")
