"""What the port Gate promises; run once more through frames (tests/core/service/frames/test_gate_port.py).

`gates(limits)` gives the gate itself, and two who ask it.
"""

import asyncio
from contextlib import asynccontextmanager

import pytest

from openqmail.core.gate import Limits, LocalGate
from openqmail.core.ports import CONNECTIONS
from openqmail.core.world import SimulatedClock


@pytest.fixture
def gates():
    @asynccontextmanager
    async def made(counters, rates=None):
        gate = LocalGate(Limits(counters, rates or {}), SimulatedClock())
        yield gate, gate, gate

    return made


def run(story):
    asyncio.run(asyncio.wait_for(story(), 20))


async def taken(port, counter, count=1):
    return await port.lease(counter, count)


@pytest.mark.parametrize("counter", [CONNECTIONS, b"other"])
@pytest.mark.parametrize("limit", [0, 1, 5, 40])
def test_just_as_many_are_leased_as_there_are_and_again_when_they_are_given_back(gates, counter, limit):
    async def story():
        async with gates({counter: limit}) as (_, port, _):
            for _ in range(3):
                assert [await taken(port, counter) for _ in range(limit + 2)] == [True] * limit + [False] * 2
                for _ in range(limit):
                    port.release(counter)

    run(story)


def test_a_counter_without_a_limit_refuses_nobody(gates):
    async def story():
        async with gates({}) as (_, port, _):
            assert all([await taken(port, b"free") for _ in range(200)])

    run(story)


def test_several_are_leased_together_or_not_at_all(gates):
    async def story():
        async with gates({b"other": 3}) as (_, port, _):
            assert not await taken(port, b"other", 4)
            assert await taken(port, b"other", 3)
            assert not await taken(port, b"other")
            port.release(b"other", 2)
            assert await taken(port, b"other", 2)

    run(story)


def test_whoever_asks_shares_the_limit_with_all_others(gates):
    async def story():
        async with gates({b"other": 3}) as (_, one, another):
            answers = [await taken(port, b"other") for port in (one, another, one, another, one)]
            assert answers == [True, True, True, False, False]

    run(story)


def test_a_rate_is_spent_by_key_by_all_together_and_no_rate_is_no_limit(gates):
    async def story():
        async with gates({}, {b"perhour": 2, b"none": 0}) as (_, one, another):
            assert [await port.spend(b"perhour", b"net") for port in (one, another, one)] == [
                True,
                True,
                False,
            ]
            assert await another.spend(b"perhour", b"other net")
            assert all(
                [await one.spend(rate, b"net") for rate in (b"none", b"unheard of") for _ in range(50)]
            )
            assert not await one.spend(b"perhour", b"third net", 3)

    run(story)


def test_new_limits_count_what_is_leased(gates):
    async def story():
        async with gates({b"other": 3}) as (gate, port, _):
            assert await taken(port, b"other", 3)
            gate.reconfigure(Limits({b"other": 2}))
            port.release(b"other")
            assert not await taken(port, b"other")
            port.release(b"other")
            assert await taken(port, b"other")

    run(story)
