"""Rates that are spent ahead: few questions, no more in all than there is, nothing kept from others long."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqmail.core.gate import Limits, LocalGate
from openqmail.core.service.frames.gate import GateClient, GateServer
from openqmail.core.service.frames.gate import client as asking
from openqmail.core.service.frames.gate.purses import Purses
from openqmail.core.world import SimulatedClock
from spawned import load

port = load("service/frames/test_gate_port.py")
RATE = 6400
NAMES = st.tuples(st.sampled_from([b"messages", b"recipients"]), st.sampled_from([b"a", b"b", b"c"]))


class Counting(LocalGate):
    """A gate that knows how often it was asked."""

    asked = 0

    def charge(self, rate, key, count=1):
        self.asked += 1
        return super().charge(rate, key, count)


def served(clients, rate=RATE):
    gate = Counting(Limits({}, {b"perhour": rate}), SimulatedClock())
    server, made = GateServer(gate), [GateClient({}) for _ in range(clients)]
    for client in made:
        port.connect(client, server)
    return gate, server, made


async def spent(client, count, key=b"net"):
    """How many of so many attempts were let through."""
    return sum([await port.soon(client.spend(b"perhour", key)) for _ in range(count)])


def end(server, clients):
    for client in clients:
        client.close()
    server.close()


def test_who_comes_all_the_time_costs_few_questions():
    async def work():
        gate, server, (client,) = served(1)
        assert await spent(client, 1000) == 1000
        assert gate.asked < 30
        end(server, [client])

    port.story(work)


@pytest.mark.parametrize("rate", [1, 15, 16, 100, 3600])
def test_a_single_client_is_given_neither_more_nor_fewer_than_there_are(rate):
    async def work():
        _, server, (client,) = served(1, rate)
        assert await spent(client, rate + 20) == rate
        end(server, [client])

    port.story(work)


def test_several_clients_are_given_no_more_than_there_are_and_hardly_fewer():
    async def work():
        _, server, clients = served(3, 1000)
        given_out = 0
        for _ in range(100):
            given_out += sum([await spent(client, 5) for client in clients])
        assert 1000 - 3 * asking.AHEAD < given_out <= 1000
        end(server, clients)

    port.story(work)


def test_who_has_some_ahead_leaves_nearly_all_to_the_others():
    """A network's clients come to several processes, and the few that one keeps are refused by none."""

    async def work():
        _, server, (first, second) = served(2, 100)
        assert await spent(first, 3) == 3
        assert await spent(second, 100) >= 90
        end(server, [first, second])

    port.story(work)


def test_a_key_that_comes_once_has_nothing_spent_ahead():
    async def work():
        gate, server, (client,) = served(1)
        assert await spent(client, 1) == 1
        assert gate.charge(b"perhour", b"net", RATE - 1)
        end(server, [client])

    port.story(work)


@pytest.mark.parametrize("how", ["others come", "drain"])
def test_what_was_spent_ahead_and_not_used_is_given_back(how, monkeypatch):
    monkeypatch.setattr(asking, "KEYS", 2)

    async def work():
        gate, server, (client,) = served(1)
        assert await spent(client, 2) == 2
        assert not gate.charge(b"perhour", b"net", RATE - 2)
        if how == "drain":
            client.drain()
        else:
            for key in (b"second", b"third"):
                await spent(client, 1, key)
        await port.turns()
        assert gate.charge(b"perhour", b"net", RATE - 2)
        assert not gate.charge(b"perhour", b"net")
        end(server, [client])

    port.story(work)


def test_who_drains_still_spends():
    async def work():
        _, server, (client,) = served(1, 100)
        client.drain()
        assert await spent(client, 110) == 100
        end(server, [client])

    port.story(work)


@given(st.lists(st.tuples(NAMES, st.integers(1, 3), st.integers(0, 8)), max_size=60), st.integers(0, 4))
def test_what_is_put_in_is_taken_out_or_given_back(steps, most):
    purses, put, out = Purses(8, most), 0, 0
    for name, count, had in steps:
        if purses.take(name, count):
            out += count
        elif purses.wanted(name):
            assert not purses.wanted(name), "it is asked for once"
            purses.put(name, had)
            put += had
        out += sum(count for _, count in purses.surplus())
    assert put == out + sum(count for _, count in purses.end())
