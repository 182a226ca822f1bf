"""A gate with its clients: who comes first, what each may have, and who is cut off for asking too much."""

import asyncio
import socket

import pytest

from openqmail.core.ports import CONNECTIONS
from openqmail.core.service.frames.channel import Channel
from openqmail.core.service.frames.codec import PREFACE, Encoder
from openqmail.core.service.frames.gate import GateClient, GateServer, messages
from openqmail.core.service.frames.gate import client as asking
from openqmail.core.service.frames.gate import server as answering
from openqmail.core.service.frames.gate.exchanges import Mechanisms
from openqmail.core.service.frames.gate.messages import (
    Answer,
    Held,
    Lease,
    Leased,
    Recall,
    Recalled,
    Release,
    Spend,
)
from spawned import load, until

port = load("service/frames/test_gate_port.py")


class Peer:
    """One end that the test speaks for, of a gate or of a client."""

    def __init__(self, messages):
        self.theirs, ours = socket.socketpair()
        self.heard, self.lost = [], []
        self._channel = Channel(
            ours, messages, lambda message, _: self.heard.append(message), self.lost.append
        )
        self.close = self._channel.abort

    async def says(self, *messages):
        for message in messages:
            self._channel.send(message)
        await port.turns()


async def served(server):
    """A client of it, which knows how one may log in."""
    peer = Peer(messages.ToClient)
    server.serve(peer.theirs)
    await until(lambda: peer.heard)
    assert peer.heard.pop() == Mechanisms(())
    return peer


def test_who_comes_later_does_not_overtake_who_waits_until_the_others_are_called():
    async def work():
        server = GateServer(port.gate(limit=5))
        keeper, first, second = [await served(server) for _ in range(3)]
        await keeper.says(Held(CONNECTIONS, 3))
        await first.says(Lease(1, CONNECTIONS, 4, 0))
        assert keeper.heard == [Recall(CONNECTIONS)]
        await second.says(Lease(1, CONNECTIONS, 1, 0))
        assert (first.heard, second.heard) == ([], []), "two are left, but the first wants four"
        await keeper.says(Release(CONNECTIONS, 3), Recalled(CONNECTIONS))
        assert first.heard == [Leased(1, 4)]
        assert second.heard == [Leased(1, 1)]
        for one in (keeper, first, second):
            one.close()
        server.close()

    port.story(work)


def test_who_comes_when_another_has_got_his_waits_for_those_who_are_still_called():
    async def work():
        server = GateServer(port.gate(limit=3))
        slow, quick, first, second = [await served(server) for _ in range(4)]
        await slow.says(Held(CONNECTIONS, 2))
        await quick.says(Held(CONNECTIONS, 1))
        await first.says(Lease(1, CONNECTIONS, 1, 0))
        await quick.says(Release(CONNECTIONS, 1), Recalled(CONNECTIONS))
        assert first.heard == [Leased(1, 1)]
        await second.says(Lease(1, CONNECTIONS, 1, 0))
        assert second.heard == [], "two are idle at one who was called and has not answered"
        await slow.says(Release(CONNECTIONS, 2), Recalled(CONNECTIONS))
        assert second.heard == [Leased(1, 1)]
        for one in (slow, quick, first, second):
            one.close()
        server.close()

    port.story(work)


def test_who_was_not_asked_for_is_not_refused_with_those_who_were():
    async def work():
        client, peer = GateClient({}), Peer(messages.ToServer)
        client.attach(peer.theirs)
        early = client.lease(CONNECTIONS)
        await until(lambda: peer.heard)
        late = client.lease(CONNECTIONS)
        await peer.says(Leased(1, 0))
        assert not early.result()
        assert not late.done(), "one may have been given back since"
        await until(lambda: len(peer.heard) == 2)
        assert peer.heard == [Lease(1, CONNECTIONS, 1, 0), Lease(2, CONNECTIONS, 1, 0)]
        await peer.says(Leased(2, 1))
        assert late.result()
        client.close()
        await until(lambda: peer.lost)

    port.story(work)


@pytest.mark.parametrize("limit", [8, 16, 40])
def test_near_a_limit_only_a_share_of_what_is_left_is_given_ahead(limit):
    async def work():
        real = port.gate(limit)
        server, clients = GateServer(real), [GateClient() for _ in range(4)]
        for client in clients:
            port.connect(client, server)
        await port.turns()
        assert 0 < real.taken(CONNECTIONS) <= limit / 2
        for client in clients:
            client.close()
        server.close()

    port.story(work)


def test_of_no_more_counters_than_may_be_anybody_has_leases(monkeypatch):
    monkeypatch.setattr(answering, "NAMES", 2)

    async def work():
        real = port.gate()
        server = GateServer(real)
        peer = await served(server)
        await peer.says(*(Lease(at, b"%d" % at, 1, 0) for at in range(3)))
        assert peer.heard == [Leased(0, 1), Leased(1, 1), Leased(2, 0)]
        await peer.says(Lease(3, b"0", 1, 0), Release(b"1", 1), Lease(4, b"2", 1, 0))
        assert peer.heard[3:] == [Leased(3, 1), Leased(4, 1)]
        await peer.says(Held(b"0", 1))
        assert not peer.lost
        await peer.says(Held(b"3", 1))
        assert peer.lost
        assert not real._taken, "what it had is given back"
        server.close()

    port.story(work)


def test_who_waits_for_more_leases_than_may_be_is_cut_off_alone(monkeypatch):
    monkeypatch.setattr(answering, "NAMES", 2)

    async def work():
        server = GateServer(port.gate(limit=5))
        keeper, greedy, other = [await served(server) for _ in range(3)]
        await keeper.says(Held(CONNECTIONS, 5))
        await greedy.says(Lease(1, CONNECTIONS, 1, 0), Lease(2, CONNECTIONS, 1, 0))
        await other.says(Lease(1, CONNECTIONS, 1, 0))
        assert not greedy.lost
        await greedy.says(Lease(3, CONNECTIONS, 1, 0))
        assert greedy.lost
        await keeper.says(Release(CONNECTIONS, 1), Recalled(CONNECTIONS))
        assert other.heard == [Leased(1, 1)]
        await other.says(*(Lease(at, b"other", 0, 0) for at in range(9)))
        assert not other.lost, "what is answered counts no more"
        keeper.close()
        other.close()
        server.close()

    port.story(work)


def test_who_does_not_read_its_answers_is_cut_off_alone():
    async def work():
        server = GateServer(port.gate())
        deaf, theirs = socket.socketpair()
        server.serve(theirs)
        other = await served(server)
        deaf.setblocking(False)
        deaf.send(PREFACE)
        question = Encoder().frame(Spend(1, b"perhour", b"net", 1)) * 1000
        loop = asyncio.get_running_loop()
        with pytest.raises(ConnectionError):
            for _ in range(500):
                await loop.sock_sendall(deaf, question)
        deaf.close()
        await other.says(Spend(1, b"perhour", b"another", 1))
        assert other.heard == [Answer(1, True)]
        other.close()
        server.close()

    port.story(work)


def test_who_is_cut_off_by_a_gate_that_lives_is_told_and_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(asking, "PATIENCE", 0.001)

    async def work():
        told = []
        client, server = GateClient({}, alone=lambda: told.append("alone")), GateServer(port.gate())
        port.connect(client, server)
        client._say(Recalled(CONNECTIONS))  # nobody has asked
        await until(lambda: told == ["alone"])
        client.close()
        server.close()

    port.story(work)


def test_who_finds_another_gate_goes_on(monkeypatch):
    monkeypatch.setattr(asking, "PATIENCE", 0.05)

    async def work():
        told = []
        client, servers = GateClient({}, alone=lambda: told.append("alone")), []
        for _ in range(3):
            servers.append(GateServer(port.gate()))
            port.connect(client, servers[-1])
            assert await client.spend(b"perhour", b"net")
            servers[-1].close()
            await until(lambda: client._channel is None)
        port.connect(client, GateServer(port.gate()))
        assert client._waiting is None
        client.close()
        assert told == []

    port.story(work)
