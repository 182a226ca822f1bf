"""The port LockoutAdmin by a direct call and over a socket, and gates that are not there."""

import asyncio
import socket
from contextlib import contextmanager

import pytest

from openqmail.core.gate import Authentication, Guard, Limits, LocalGate
from openqmail.core.gate import local as local_module
from openqmail.core.log import MemoryLog
from openqmail.core.ports import LockedNow, LockedOut
from openqmail.core.service.frames import lockouts
from openqmail.core.service.frames.codec import PREFACE, Encoder
from openqmail.core.service.frames.lockouts import Lifted, LockoutsClient, LockoutsServer
from openqmail.core.values import TemporaryFailure
from openqmail.core.world import SimulatedClock


def gate_with(guard):
    clock = SimulatedClock()
    return LocalGate(Limits({}), clock, Authentication(None, guard, clock, MemoryLog())), clock


@contextmanager
def direct(gate):
    yield gate


@contextmanager
def framed(gate):
    server, client = LockoutsServer(gate), LockoutsClient()
    ours, theirs = socket.socketpair()
    client.attach(ours)
    server.serve(theirs)
    yield client
    client.close()
    server.close()


def run(story):
    asyncio.run(asyncio.wait_for(story(), 30))


@pytest.mark.parametrize("way", [direct, framed])
def test_lock_outs_are_told_and_lifted(way, monkeypatch):
    monkeypatch.setattr(local_module, "TOLD", 2)

    async def story():
        guard = Guard(1)
        gate, clock = gate_with(guard)
        for at in range(3):
            guard.failed(f"192.0.{at}.1", b"", clock.monotonic())
            clock.advance(10)
        with way(gate) as port:
            networks = [LockedOut(f"192.0.{at}.0/24", "", 1, left) for at, left in ((2, 890), (1, 880))]
            assert await port.locked() == LockedNow(tuple(networks), 1)
            assert gate.lockouts() == (3, 0, 0)
            assert await port.unlock(["192.0.1.77", "nobody", "192.0.0.0/24"]) == (1, 0, 1)
            assert await port.locked() == LockedNow((networks[0],))

    run(story)


def test_a_gate_where_nobody_can_log_in_locks_nobody():
    async def story():
        gate = LocalGate(Limits({}))
        assert await gate.locked() == LockedNow(())
        assert gate.lockouts() == (0, 0, 0)
        assert await gate.unlock(["alice"]) == (0,)

    run(story)


def test_without_a_gate_it_is_said_so():
    async def story():
        with pytest.raises(TemporaryFailure, match="gate does not answer"):
            await LockoutsClient().locked()

    run(story)


@pytest.mark.parametrize("end", ["closes", "is replaced", "lies"])
def test_a_gate_that_is_lost_answers_no_more_and_the_next_one_does(end):
    async def story():
        client, (ours, theirs) = LockoutsClient(), socket.socketpair()
        client.attach(ours)
        asked = asyncio.ensure_future(client.locked())
        await asyncio.sleep(0)
        server = LockoutsServer(LocalGate(Limits({})))
        again, to_server = socket.socketpair()
        if end == "closes":
            theirs.close()
        elif end == "lies":
            theirs.send(PREFACE + Encoder().frame(Lifted(7, ())))
        else:
            client.attach(again)
            server.serve(to_server)
        with pytest.raises(TemporaryFailure):
            await asked
        if end != "is replaced":
            client.attach(again)
            server.serve(to_server)
        assert await client.locked() == LockedNow(())
        client.close()
        server.close()
        theirs.close()

    run(story)


def test_a_gate_of_another_version_that_is_silent_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(lockouts, "PATIENCE", 0.01)

    async def story():
        client, (ours, theirs) = LockoutsClient(), socket.socketpair()
        client.attach(ours)
        with pytest.raises(TemporaryFailure, match="gate does not answer"):
            await client.unlock(["alice"])
        client.close()
        theirs.close()

    run(story)
