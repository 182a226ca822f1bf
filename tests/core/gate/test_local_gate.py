"""The gate itself: counters, rates, and what a new limit does to what is out already."""

import asyncio

import pytest

from openqmail.core.gate import Limits, LocalGate
from openqmail.core.world import SimulatedClock


def gate(rates=None, clock=None, **counters):
    return LocalGate(Limits({name.encode(): limit for name, limit in counters.items()}, rates or {}), clock)


def test_a_limit_is_reached_and_given_back():
    made = gate(connections=2)
    assert made.take(b"connections")
    assert made.take(b"connections")
    assert not made.take(b"connections")
    made.release(b"connections")
    assert made.take(b"connections")
    assert made.taken(b"connections") == 2


def test_the_port_answers_at_once():
    async def story():
        made = gate(rates={b"perhour": 1}, x=1)
        answers = [
            made.lease(b"x"),
            made.lease(b"x"),
            made.spend(b"perhour", b"a"),
            made.spend(b"perhour", b"a"),
        ]
        assert [answer.done() and answer.result() for answer in answers] == [True, False, True, False]

    asyncio.run(story())


def test_a_lease_is_whole_or_not_at_all():
    made = gate(x=3)
    assert not made.take(b"x", 4)
    assert made.take(b"x", 3)


def test_a_limit_of_zero_refuses_all_and_no_limit_refuses_none():
    made = gate(none=0)
    assert not made.take(b"none")
    assert all(made.take(b"other") for _ in range(1000))


def test_giving_back_too_much_is_an_error():
    made = gate()
    with pytest.raises(ValueError, match="fewer are leased"):
        made.release(b"x")


def test_new_limits_keep_what_is_leased():
    made = gate(x=2)
    assert made.take(b"x", 2)
    made.reconfigure(Limits({b"x": 1}))
    assert not made.take(b"x")
    made.release(b"x", 2)
    assert made.take(b"x")
    assert not made.take(b"x")


def test_what_is_held_already_counts_beyond_the_limit():
    made = gate(x=2)
    made.hold(b"x", 3)
    assert not made.take(b"x")
    made.release(b"x", 2)
    assert made.take(b"x")


def test_each_key_has_its_own_hour_and_no_rate_is_no_limit():
    clock = SimulatedClock()
    made = gate(rates={b"messages": 2, b"free": 0}, clock=clock)
    assert [made.charge(b"messages", b"a") for _ in range(3)] == [True, True, False]
    assert made.charge(b"messages", b"b")
    clock.advance(1800)
    assert [made.charge(b"messages", b"a") for _ in range(2)] == [True, False]
    assert all(made.charge(name, b"a") for name in (b"free", b"unheard of") for _ in range(100))


def test_what_is_spent_stays_spent_under_a_new_rate():
    made = gate(rates={b"messages": 2}, clock=SimulatedClock())
    assert made.charge(b"messages", b"a", 2)
    made.reconfigure(Limits({}, {b"messages": 10}))
    assert not made.charge(b"messages", b"a")
    made.reconfigure(Limits({}, {b"messages": 0}))
    assert made.charge(b"messages", b"a")
