"""The port Gate over a socket: what it promises by a direct call, through frames; batches, limits to the last
one, and gates that come and go."""

import asyncio
import os
import socket
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqmail.core.gate import Limits, LocalGate
from openqmail.core.ports import CONNECTIONS, CONNECTIONS_OF_NETWORK, of
from openqmail.core.service.frames import gate as frames
from openqmail.core.service.frames.codec import PREFACE, Encoder
from openqmail.core.service.frames.gate import GateClient, GateServer, Held, Lease, Release, Spend
from openqmail.core.world import SimulatedClock
from spawned import others_tests


@pytest.fixture
def gates():
    """For the tests of the port."""

    @asynccontextmanager
    async def made(counters, rates=None):
        real = LocalGate(Limits(counters, rates or {}), SimulatedClock())
        # One that leases connections ahead keeps some of them at hand, the other would not get those.
        server, clients = GateServer(real), [GateClient(), GateClient({})]
        for client in clients:
            connect(client, server)
        yield real, *clients
        for client in clients:
            client.close()
        server.close()

    return made


globals().update(others_tests("gate/test_port.py"))


def gate(limit=100, rate=2):
    return LocalGate(Limits({CONNECTIONS: limit, b"other": 3}, {b"perhour": rate}), SimulatedClock())


def connect(client, server):
    ours, theirs = socket.socketpair()
    client.attach(ours)
    server.serve(theirs)


async def turns(count=30):
    for _ in range(count):
        await asyncio.sleep(0)


async def soon(future):
    return await asyncio.wait_for(future, 10)


def story(work):
    before = len(os.listdir("/proc/self/fd"))
    asyncio.run(work())
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("limit", [0, 1, 2, 5, 16, 17, 100])
@pytest.mark.parametrize("batches", [{}, {CONNECTIONS: 16}])
def test_just_as_many_leases_are_had_as_there_are(limit, batches):
    async def work():
        real = gate(limit)
        client, server = GateClient(batches), GateServer(real)
        connect(client, server)
        answers = [await soon(client.lease(CONNECTIONS)) for _ in range(limit + 3)]
        assert answers == [True] * limit + [False] * 3
        for _ in range(limit):
            client.release(CONNECTIONS)
        if limit:
            assert await soon(client.lease(CONNECTIONS))
        client.close()
        await turns()
        assert real.taken(CONNECTIONS) == 0
        server.close()

    story(work)


def test_as_a_rule_a_lease_is_there_at_once():
    async def work():
        real = gate()
        client, server = GateClient(), GateServer(real)
        connect(client, server)
        await turns()
        for _ in range(60):
            answer = client.lease(CONNECTIONS)
            assert answer.done() and answer.result()
            await turns()
        for _ in range(1000):
            client.release(CONNECTIONS)
            answer = client.lease(CONNECTIONS)
            assert answer.done() and answer.result()
        for _ in range(60):
            client.release(CONNECTIONS)
        await turns()
        assert real.taken(CONNECTIONS) <= 32, "what is not needed is given back"
        client.drain()
        await turns()
        assert real.taken(CONNECTIONS) == 0
        assert await soon(client.lease(CONNECTIONS))
        await turns()
        assert real.taken(CONNECTIONS) == 1
        client.close()
        server.close()

    story(work)


def test_without_a_gate_leases_wait_and_those_at_hand_do_not():
    async def work():
        client = GateClient()
        waiting = [client.lease(CONNECTIONS), client.lease(b"other"), client.spend(b"perhour", b"net")]
        await turns()
        assert not any(one.done() for one in waiting)
        real = gate()
        server = GateServer(real)
        connect(client, server)
        assert [await soon(one) for one in waiting] == [True] * 3
        await turns()
        server.close()
        await turns()
        assert client.lease(CONNECTIONS).done()
        late = client.spend(b"perhour", b"net")
        client.close()
        assert not await soon(late)
        assert not await soon(client.lease(CONNECTIONS))

    story(work)


def test_a_gate_that_is_lost_gets_all_back_and_the_next_is_told_what_is_held():
    async def work():
        client, first = GateClient({CONNECTIONS: 4}), gate()
        server = GateServer(first)
        connect(client, server)
        for counter in [CONNECTIONS] * 7 + [b"other"] * 2:
            assert await soon(client.lease(counter))
        await turns()
        assert first.taken(CONNECTIONS) >= 7 and first.taken(b"other") == 2
        server.close()
        assert (first.taken(CONNECTIONS), first.taken(b"other")) == (0, 0)
        await turns()
        client.release(b"other")
        second = gate(limit=5)
        server = GateServer(second)
        connect(client, server)
        await turns()
        assert second.taken(CONNECTIONS) >= 7, "also beyond a limit that is lower now"
        assert second.taken(b"other") == 1
        for _ in range(7):
            client.release(CONNECTIONS)
        client.drain()
        await turns()
        assert second.taken(CONNECTIONS) == 0
        client.close()
        server.close()

    story(work)


def test_a_newer_gate_takes_over_at_once():
    async def work():
        client, gates = GateClient(), [gate(), gate()]
        servers = [GateServer(one) for one in gates]
        connect(client, servers[0])
        assert await soon(client.lease(CONNECTIONS))
        connect(client, servers[1])
        await turns()
        assert gates[0].taken(CONNECTIONS) == 0
        assert gates[1].taken(CONNECTIONS) >= 1
        client.close()
        await turns()
        assert gates[1].taken(CONNECTIONS) == 0
        for one in servers:
            one.close()

    story(work)


def test_two_front_ends_share_a_limit():
    async def work():
        real = gate(limit=3)
        server, clients = GateServer(real), [GateClient({}), GateClient({})]
        for client in clients:
            connect(client, server)
        answers = [await soon(clients[number % 2].lease(CONNECTIONS)) for number in range(4)]
        assert answers == [True, True, True, False]
        clients[0].close()
        await turns()
        assert await soon(clients[1].lease(CONNECTIONS))
        clients[1].close()
        server.close()

    story(work)


def test_rates_are_spent_by_all_together_and_a_lost_connection_gives_none_back():
    async def work():
        server, clients = GateServer(gate(rate=2)), [GateClient(), GateClient()]
        for client in clients:
            connect(client, server)
        assert await soon(clients[0].spend(b"perhour", b"net"))
        clients[0].close()
        assert await soon(clients[1].spend(b"perhour", b"net"))
        assert not await soon(clients[1].spend(b"perhour", b"net"))
        assert await soon(clients[1].spend(b"perhour", b"another"))
        clients[1].close()
        server.close()

    story(work)


def test_a_lease_that_nobody_waits_for_any_more_is_given_back():
    async def work():
        real = gate()
        client, server = GateClient({}), GateServer(real)
        client.lease(b"other").cancel()
        connect(client, server)
        assert await soon(client.lease(CONNECTIONS))
        await turns()
        assert real.taken(b"other") == 0
        client.close()
        server.close()

    story(work)


@pytest.mark.parametrize(
    "message",
    [
        Release(b"connections", 1),
        Lease(1, b"connections", 0),
        Lease(1, b"connections", -5),
        Held(b"connections", -1),
        Spend(1, b"perhour", b"x", -3),
        Lease(1, b"x" * 20_000, 1),
    ],
)
def test_who_makes_no_sense_is_closed_alone(message):
    async def work():
        real = gate()
        client, server = GateClient({}), GateServer(real)
        connect(client, server)
        assert await soon(client.lease(CONNECTIONS))
        ours, theirs = socket.socketpair()
        server.serve(theirs)
        ours.setblocking(False)
        ours.send(PREFACE + Encoder().frame(Lease(9, b"other", 3)) + Encoder().frame(message))
        loop = asyncio.get_running_loop()
        while await asyncio.wait_for(loop.sock_recv(ours, 4096), 10):
            pass
        ours.close()
        assert real.taken(b"other") == 0
        assert real.taken(CONNECTIONS) == 1
        assert await soon(client.lease(CONNECTIONS))
        client.close()
        server.close()

    story(work)


STEPS = st.lists(st.sampled_from(["lease", "release", "turn", "lose", "attach"]), max_size=60)


@given(st.integers(0, 12), st.integers(1, 6), STEPS)
@settings(max_examples=60, deadline=None)
def test_through_any_history_the_gate_knows_what_is_held_and_none_is_refused_below_the_limit(
    limit, size, steps
):
    async def work():
        real = gate(limit)
        client, server = GateClient({CONNECTIONS: size}), GateServer(real)
        waiting, held = [], 0

        def look():
            nonlocal held
            for answer in [one for one in waiting if one.done()]:
                waiting.remove(answer)
                if answer.result():
                    held += 1
                    assert held <= limit
                else:
                    refused.append(held)

        refused = []
        for step in steps:
            if step == "lease":
                waiting.append(client.lease(CONNECTIONS))
            elif step == "release" and held:
                held -= 1
                client.release(CONNECTIONS)
            elif step == "attach":
                connect(client, server)
            elif step == "lose":
                server.close()
            else:
                await turns(5)
            look()
        connect(client, server)
        await turns(60)
        look()
        assert not waiting
        assert real.taken(CONNECTIONS) >= held
        free = limit - held
        for _ in range(free):
            assert await soon(client.lease(CONNECTIONS))
        assert not await soon(client.lease(CONNECTIONS))
        client.close()
        await turns()
        assert real.taken(CONNECTIONS) == 0
        server.close()

    asyncio.run(work())


def network(at):
    return of(CONNECTIONS_OF_NETWORK, b"10.0.%d.0/24" % at)


def by_network(limit):
    return LocalGate(Limits({CONNECTIONS_OF_NETWORK: limit}), SimulatedClock())


@pytest.mark.parametrize("limit", [1, 2, 4, 5, 50])
def test_each_network_has_just_as_many_leases_as_the_limit_says(limit):
    async def work():
        real = by_network(limit)
        client, server = GateClient(), GateServer(real)
        connect(client, server)
        for at in range(3):
            answers = [await soon(client.lease(network(at))) for _ in range(limit + 2)]
            assert answers == [True] * limit + [False] * 2
        client.release(network(1))
        assert await soon(client.lease(network(1)))
        assert not await soon(client.lease(network(1)))
        client.close()
        await turns()
        assert not real._taken
        server.close()

    story(work)


def test_a_network_that_comes_again_costs_no_question(monkeypatch):
    monkeypatch.setattr(frames, "IDLE", 2)

    async def work():
        real = by_network(50)
        client, server = GateClient(), GateServer(real)
        connect(client, server)
        for at in range(5):
            await soon(client.lease(network(at)))
            client.release(network(at))
            again = client.lease(network(at))
            assert again.done() and again.result()
            client.release(network(at))
        await turns()
        assert set(real._taken) - {CONNECTIONS} == {network(3), network(4)}, "only the last two are kept"
        used = client.lease(network(3))
        assert used.done()
        for at in range(10, 15):
            await soon(client.lease(network(at)))
            client.release(network(at))
        await turns()
        assert network(3) in real._taken, "what is used is never given back"
        client.release(network(3))
        client.drain()
        await turns()
        assert not real._taken
        client.close()
        server.close()

    story(work)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=60), st.integers(1, 6), st.integers(0, 3)
)
def test_what_the_gate_counts_is_what_clients_hold_and_a_few_more(steps, limit, idle):
    async def work():
        real = by_network(limit)
        client, server = GateClient(), GateServer(real)
        connect(client, server)
        held = dict.fromkeys(range(4), 0)
        for at, more in steps:
            if more:
                granted = await soon(client.lease(network(at)))
                assert granted is (held[at] < limit)
                held[at] += granted
            elif held[at]:
                client.release(network(at))
                held[at] -= 1
        await turns()
        for at, count in held.items():
            assert count <= real.taken(network(at)) <= limit
        for at, count in held.items():
            if count:
                client.release(network(at), count)
        client.drain()
        await turns()
        assert not [one for one in real._taken if one != CONNECTIONS]
        client.close()
        server.close()

    before, frames.IDLE = frames.IDLE, idle
    try:
        asyncio.run(work())
    finally:
        frames.IDLE = before
