"""Logins over a socket: what the port promises by a direct call, and gates that come and go."""

import asyncio
import socket
from contextlib import asynccontextmanager

import msgspec
import pytest

from logins import ALICE, PASSWORD
from openqmail.core.gate import Limits, LocalGate
from openqmail.core.ports import SaslChallenge, SaslClient, SaslDenied, SaslGranted
from openqmail.core.sasl import Facts
from openqmail.core.service.frames.codec import PREFACE, Encoder
from openqmail.core.service.frames.gate import GateClient, GateServer, exchanges
from openqmail.core.world import SimulatedClock
from spawned import load, others_tests

OTHERS = load("gate/test_sasl_port.py")
globals().update(others_tests("gate/test_sasl_port.py"))
quick = OTHERS.quick

CLIENT = SaslClient("192.0.2.1", 40001, "submission")
FACTS = Facts(True)
LATER = SaslDenied("later")


@pytest.fixture
def doors(tmp_path):
    @asynccontextmanager
    async def made(**options):
        async with OTHERS.door(tmp_path, **options) as real:
            server, clients = GateServer(real.gate), [GateClient({}), GateClient({})]
            real.changed = server.tell_mechanisms
            for client in clients:
                connect(client, server)
                while client.mechanisms != real.gate.mechanisms:
                    await asyncio.sleep(0)
            yield real, *clients
            for client in clients:
                client.close()
            server.close()

    return made


def connect(client, server):
    ours, theirs = socket.socketpair()
    client.attach(ours)
    server.serve(theirs)


def run(story):
    asyncio.run(asyncio.wait_for(story(), 30))


def test_without_a_gate_logins_are_put_off_and_nothing_is_offered():
    async def story():
        client = GateClient({})
        assert client.mechanisms == frozenset()
        assert await client.sasl(b"PLAIN", CLIENT, FACTS).respond(b"x") == LATER

    run(story)


def test_a_gate_that_is_lost_or_replaced_puts_off_what_is_under_way_and_the_next_goes_on(tmp_path):
    async def story():
        async with OTHERS.door(tmp_path) as real:
            client, servers = GateClient({}), [GateServer(real.gate) for _ in range(3)]
            for replaced, server in zip((False, True, False), servers, strict=True):
                connect(client, server)
                exchange = client.sasl(b"LOGIN", CLIENT, FACTS)
                assert isinstance(await exchange.respond(None), SaslChallenge)
                if replaced:
                    connect(client, servers[0])
                else:
                    server.close()
                    while client._channel is not None:
                        await asyncio.sleep(0)
                assert await exchange.respond(b"alice") in (LATER, SaslDenied("malformed"))
                while real.made._open:
                    await asyncio.sleep(0)
            connect(client, GateServer(real.gate))
            said = b"\0alice\0" + PASSWORD
            assert await client.sasl(b"PLAIN", CLIENT, FACTS).respond(said) == SaslGranted(ALICE)
            client.close()

    run(story)


@pytest.mark.parametrize(
    "frames",
    [
        [exchanges.Respond(1, b"x")],
        [exchanges.Abort(7)],
        [exchanges.Begin(1, b"PLAIN", CLIENT, FACTS, None)] * 2,
        [exchanges.Begin(0, b"PLAIN", CLIENT, FACTS, None)],
        [exchanges.Begin(1, b"PLAIN", CLIENT, FACTS, b"x" * 20_000)],
    ],
)
def test_a_client_that_makes_no_sense_is_cut_off(frames):
    async def story():
        gate, alerts = LocalGate(Limits({}), SimulatedClock()), []
        server = GateServer(gate, alerts.append)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        server.serve(theirs)
        loop, encoder = asyncio.get_running_loop(), Encoder()
        await loop.sock_sendall(ours, PREFACE + b"".join(encoder.frame(one) for one in frames))
        while await loop.sock_recv(ours, 65536):
            pass
        assert len(alerts) == 1 and "a front end is cut off: " in alerts[0]
        ours.close()
        server.close()

    run(story)


def test_more_exchanges_than_may_be_are_put_off_and_harm_nobody(tmp_path, monkeypatch):
    monkeypatch.setattr(exchanges, "MOST", 3)

    async def story():
        async with OTHERS.door(tmp_path) as real:
            client, server = GateClient({}), GateServer(real.gate)
            connect(client, server)
            some = [client.sasl(b"LOGIN", CLIENT, FACTS) for _ in range(3)]
            for one in some:
                assert isinstance(await one.respond(None), SaslChallenge)
            said = b"\0alice\0" + PASSWORD
            assert await client.sasl(b"PLAIN", CLIENT, FACTS).respond(said) == LATER
            assert isinstance(await some[0].respond(b"alice"), SaslChallenge), "the others go on"
            some[1].abort()
            assert await client.sasl(b"PLAIN", CLIENT, FACTS).respond(said) == SaslGranted(ALICE)
            client.close()
            server.close()

    run(story)


def test_frames_with_what_a_client_said_do_not_show_it():
    for frame in (exchanges.Begin(1, b"PLAIN", CLIENT, FACTS, b"secret"), exchanges.Respond(1, b"secret")):
        assert "secret" not in repr(frame)
        assert b"secret" in msgspec.msgpack.encode(frame)
