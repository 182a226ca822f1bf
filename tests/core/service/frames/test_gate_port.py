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
from openqmail.core.service.frames.codec import PREFACE, Encoder
from openqmail.core.service.frames.gate import GateClient, GateServer, recalls
from openqmail.core.service.frames.gate import client as asking
from openqmail.core.service.frames.gate import server as answering
from openqmail.core.service.frames.gate.messages import Held, Lease, Recalled, Release, Spend
from openqmail.core.world import SimulatedClock
from spawned import others_tests


@pytest.fixture
def gates():
    """For the tests of the port."""

    @asynccontextmanager
    async def made(counters, rates=None):
        real = LocalGate(Limits(counters, rates or {}), SimulatedClock())
        server, clients = GateServer(real), [GateClient(), GateClient()]
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


@pytest.mark.parametrize("batches", [None, {}])
def test_two_front_ends_share_a_limit(batches):
    async def work():
        real = gate(limit=3)
        server, clients = GateServer(real), [GateClient(batches), GateClient(batches)]
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


@pytest.mark.parametrize("many", [2, 14, 16])
@pytest.mark.parametrize("limit", [1, 20, 200])
def test_one_of_many_front_ends_has_all_that_the_others_do_not_use(many, limit):
    async def work():
        real = gate(limit)
        server, clients = GateServer(real), [GateClient() for _ in range(many)]
        for client in clients:
            connect(client, server)
        await turns()
        for client in (clients[-1], clients[0]):
            answers = await asyncio.gather(*(soon(client.lease(CONNECTIONS)) for _ in range(limit)))
            assert all(answers)
            assert not await soon(clients[1].lease(CONNECTIONS))
            for _ in range(limit):
                client.release(CONNECTIONS)
            await turns()
        for client in clients:
            client.close()
        server.close()

    story(work)


def test_what_a_front_end_keeps_of_a_network_is_another_s_when_it_wants_it():
    async def work():
        real = by_network(4)
        server, clients = GateServer(real), [GateClient() for _ in range(3)]
        for client in clients:
            connect(client, server)
        for client in clients:
            assert all([await soon(client.lease(network(1))) for _ in range(4)])
            assert not await soon(client.lease(network(1)))
            for _ in range(4):
                client.release(network(1))
        for client in clients:
            client.close()
        await turns()
        assert not real._taken
        server.close()

    story(work)


def silent(server, amount):
    """A front end that has leased some, which it does not use, and reads nothing."""
    ours, theirs = socket.socketpair()
    server.serve(theirs)
    ours.send(PREFACE + Encoder().frame(Held(CONNECTIONS, amount)))
    return ours


def test_who_is_silent_when_called_holds_nobody_up(monkeypatch):
    monkeypatch.setattr(recalls, "PATIENCE", 0.01)

    async def work():
        real = gate(limit=5)
        server, client = GateServer(real), GateClient()
        other = silent(server, 3)
        await turns()
        connect(client, server)
        answers = await asyncio.gather(*(soon(client.lease(CONNECTIONS)) for _ in range(4)))
        assert answers == [True, True, False, False]
        monkeypatch.setattr(recalls, "PATIENCE", 1000)
        assert not await soon(client.lease(CONNECTIONS)), "nobody waits for him a second time"
        other.close()
        await turns()
        assert all([await soon(client.lease(CONNECTIONS)) for _ in range(3)]), "what he had came back"
        client.close()
        server.close()

    story(work)


def test_who_is_called_later_than_another_has_all_his_time(monkeypatch):
    monkeypatch.setattr(recalls, "PATIENCE", 0.01)

    async def work():
        server, clients = GateServer(gate(limit=5)), [GateClient() for _ in range(2)]
        never = silent(server, 5)
        await turns()
        for client in clients:
            connect(client, server)
        first = clients[0].lease(CONNECTIONS)
        await turns()
        monkeypatch.setattr(recalls, "PATIENCE", 1000)
        late = silent(server, 2)
        await turns()
        second = clients[1].lease(CONNECTIONS)
        await turns()
        over = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.02, over.set_result, None)  # behind the timer of the first
        await over
        await turns()
        assert not first.done() and not second.done(), "the second was called just now"
        late.send(Encoder().frame(Recalled(CONNECTIONS)))
        assert not await soon(first) and not await soon(second), "he uses all that he has"
        for one in (never, late, *clients):
            one.close()
        server.close()

    story(work)


def test_who_is_lost_while_he_is_called_holds_nobody_up():
    async def work():
        real = gate(limit=5)
        server, clients = GateServer(real), [GateClient() for _ in range(2)]
        other = silent(server, 5)
        await turns()
        for client in clients:
            connect(client, server)
        waiting = [client.lease(CONNECTIONS) for client in clients]
        await turns()
        assert not any(one.done() for one in waiting)
        clients[1].close()
        other.close()
        assert await soon(waiting[0])
        clients[0].close()
        await turns()
        assert not real._taken
        server.close()

    story(work)


def test_who_asks_before_he_hears_that_he_is_called_keeps_nothing_that_nobody_can_call_back():
    async def work():
        real = gate(limit=20)
        server, many, one = GateServer(real), GateClient({}), GateClient({})
        ours, theirs = socket.socketpair()
        server.serve(theirs)
        connect(many, server)
        connect(one, server)

        async def says(*messages):
            ours.send(b"".join(Encoder().frame(message) for message in messages))
            await turns()

        ours.send(PREFACE)
        await says(Lease(1, CONNECTIONS, 1, 6))
        all_of_it = [many.lease(CONNECTIONS) for _ in range(20 - real.taken(CONNECTIONS))]
        assert all([await soon(lease) for lease in all_of_it])
        wanted = one.lease(CONNECTIONS)
        await turns()
        assert not wanted.done(), "what the first keeps is called back"
        many.release(CONNECTIONS, 15)
        assert await soon(wanted)
        kept = real.taken(CONNECTIONS)
        await says(Lease(2, CONNECTIONS, 1, 6), Release(CONNECTIONS, 3), Recalled(CONNECTIONS))
        assert real.taken(CONNECTIONS) == kept + 1 - 3
        more = [one.lease(CONNECTIONS) for _ in range(20 - real.taken(CONNECTIONS))]
        assert all([await soon(lease) for lease in more])
        assert not await soon(one.lease(CONNECTIONS))
        ours.close()
        many.close()
        one.close()
        server.close()

    story(work)


def test_at_a_limit_nobody_is_called_for_each_who_is_refused(monkeypatch):
    called, recall = [], answering._Talk.recall
    monkeypatch.setattr(
        answering._Talk, "recall", lambda talk, counter: called.append(counter) or recall(talk, counter)
    )

    async def work():
        real = gate(limit=40)
        server, clients = GateServer(real), [GateClient() for _ in range(8)]
        for client in clients:
            connect(client, server)
        await turns()
        while await soon(clients[0].lease(CONNECTIONS)):
            pass
        before = len(called)
        for client in clients * 10:
            assert not await soon(client.lease(CONNECTIONS))
        assert len(called) - before <= 1, "he who was refused first had not been called himself"
        for client in clients:
            client.close()
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
        Lease(1, b"connections", -1, 0),
        Lease(1, b"connections", 1, -5),
        Recalled(b"connections"),
        Held(b"connections", -1),
        Spend(1, b"perhour", b"x", -3),
        Lease(1, b"x" * 20_000, 1, 0),
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
        ours.send(PREFACE + Encoder().frame(Lease(9, b"other", 3, 0)) + Encoder().frame(message))
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
@settings(max_examples=60)
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
    monkeypatch.setattr(asking, "IDLE", 2)

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


@settings(max_examples=60)
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

    before, asking.IDLE = asking.IDLE, idle
    try:
        asyncio.run(work())
    finally:
        asking.IDLE = before


ACTS = st.sampled_from(["lease", "all", "release", "lose"])


@settings(max_examples=80)
@given(
    st.integers(2, 16),
    st.integers(1, 40),
    st.integers(0, 6),
    st.lists(st.tuples(st.integers(0, 15), st.booleans(), ACTS), max_size=50),
)
def test_through_any_history_many_share_each_limit_to_the_last_and_none_is_refused_before(
    many, limit, of_network, steps
):
    """With what the service leases ahead, of all connections and of those of a network."""
    limits = {CONNECTIONS: limit, network(1): of_network}

    async def work():
        real = LocalGate(Limits({CONNECTIONS: limit, CONNECTIONS_OF_NETWORK: of_network}), SimulatedClock())
        server, clients = GateServer(real), [GateClient() for _ in range(many)]
        for client in clients:
            connect(client, server)
        users = {counter: [] for counter in limits}
        for number, by_network, act in steps:
            client, counter = clients[number % many], network(1) if by_network else CONNECTIONS
            free = limits[counter] - len(users[counter])
            if act == "release" and users[counter]:
                users[counter].pop(0).release(counter)
            elif act == "lose":
                connect(client, server)
            elif act in ("lease", "all"):
                wanted = 1 if act == "lease" else free + 1
                await turns()  # what is on its way back counts as used
                answers = await asyncio.gather(*(soon(client.lease(counter)) for _ in range(wanted)))
                assert answers == [True] * min(wanted, free) + [False] * (wanted - min(wanted, free))
                users[counter] += [client] * sum(answers)
            assert all(real.taken(one) <= limits[one] for one in limits)
        for client in clients:
            client.close()
        await turns()
        assert not real._taken
        assert not server.recalls._counters, "nothing is kept of whom nobody waits for"
        server.close()

    asyncio.run(work())


@settings(max_examples=80)
@given(
    st.integers(2, 16),
    st.integers(1, 40),
    st.lists(st.tuples(st.integers(0, 15), st.sampled_from(["lease", "release", "turn"])), max_size=150),
)
def test_whatever_crosses_on_its_way_a_limit_is_never_passed_and_all_of_it_is_there_in_the_end(
    many, limit, steps
):
    async def work():
        real = gate(limit)
        server, clients = GateServer(real), [GateClient() for _ in range(many)]
        for client in clients:
            connect(client, server)
        waiting, held = [], []
        for number, act in steps:
            at = number % many
            if act == "lease":
                waiting.append((at, clients[at].lease(CONNECTIONS)))
            elif act == "release" and held:
                clients[held.pop(0)].release(CONNECTIONS)
            elif act == "turn":
                await turns(1)
            for one in [each for each in waiting if each[1].done()]:
                waiting.remove(one)
                held += [one[0]] * one[1].result()
            assert len(held) <= limit
        for at, answer in waiting:
            held += [at] * await soon(answer)
        assert len(held) <= limit
        await turns()
        free = limit - len(held)
        assert all(await asyncio.gather(*(soon(clients[-1].lease(CONNECTIONS)) for _ in range(free))))
        held += [-1] * free
        for at in held:
            clients[at].release(CONNECTIONS)
        await turns()
        assert all(await asyncio.gather(*(soon(clients[0].lease(CONNECTIONS)) for _ in range(limit))))
        for client in clients:
            client.close()
        await turns()
        assert not real._taken
        server.close()

    asyncio.run(work())
