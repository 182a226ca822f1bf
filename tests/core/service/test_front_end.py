"""The process of the front ends, in the test's own loop: whom it serves when it is told to leave."""

import asyncio
import contextlib
import os
import pwd
import socket
from pathlib import Path

import pytest

from homes import OWNER
from openqmail.core.control import Home, read_settings
from openqmail.core.control.accounts import Account, Accounts
from openqmail.core.control.settings import Listener
from openqmail.core.gate import Limits, LocalGate
from openqmail.core.service.frames import supervision as said
from openqmail.core.service.frames.blocking import BlockingChannel
from openqmail.core.service.frames.gate import GateServer
from openqmail.core.service.frames.gate import client as asking
from openqmail.core.service.loops import new_loop
from openqmail.core.service.processes import smtpd
from openqmail.core.service.processes.process import Inherited, Process
from spawned import until

ME = Account("me", os.getuid(), os.getgid())


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "control").mkdir()
    (tmp_path / "control/me").write_text("a.example\n")
    if os.geteuid() == 0:  # else there would have to be the users of a home of root's
        os.chown(tmp_path, pwd.getpwnam(OWNER).pw_uid, -1)
    return Home(str(tmp_path))


LOOPS = {"the service's": new_loop, "asyncio's": asyncio.SelectorEventLoop}


@pytest.mark.parametrize("loop", LOOPS)
def test_whom_the_kernel_has_let_in_before_it_leaves_is_served(home: Home, loop: str) -> None:
    """They were told that they are connected, and no other process will ever know of them."""

    async def story() -> None:
        ours, theirs = socket.socketpair()
        supervisor = BlockingChannel(ours, said.from_child("smtpd"))
        with socket.create_server(("127.0.0.1", 0)) as listening:
            supervisors = listening.dup()  # whom it does not let in stays there for the next one
            listening.setblocking(False)
            address = listening.getsockname()
            bound = {Listener("smtp", *address): [listening]}
            accounts = Accounts(ME, ME, ME, ME, ME)
            inherited = Inherited(home, read_settings(home), accounts, 1, bound, None, None, False)
            process = Process("smtpd", theirs, inherited)
            serving = asyncio.create_task(smtpd.serve(process))
            await until(lambda: any(isinstance(one, said.Ready) for one, _ in supervisor.receive()))
            gate, its = GateServer(LocalGate(Limits({}))), socket.socketpair()
            clients = {
                one.getsockname(): one for one in (socket.create_connection(address) for _ in range(3))
            }
            with its[0]:
                supervisor.send(said.Peer("gate"), (its[0].fileno(),))
            supervisor.send(said.Leave(20.0))  # all of it is there in one turn of the loop
            gate.serve(its[1])
            conversations = {port: asyncio.create_task(conversation(one)) for port, one in clients.items()}
            assert await serving == 0
        with supervisors:
            for port in left_to_the_next(supervisors):
                conversations.pop(port).cancel()
        assert conversations, "it has let somebody in"
        for one in conversations.values():
            first, second = await one
            goodbye = first.startswith(b"421 4.3.2 shutting down")  # to one that was known already
            assert goodbye or (first[:3], second[:3]) == (b"220", b"221"), first
        gate.close()
        process.close()
        supervisor.close()

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(asyncio.wait_for(story(), 30))


def test_cut_off_by_a_gate_that_lives_it_ends_and_says_so(home: Home, monkeypatch, capfd) -> None:
    """Nobody would introduce them again, and its clients would hear nothing: the next one is introduced."""
    monkeypatch.setattr(asking, "PATIENCE", 0.01)

    async def story() -> None:
        ours, theirs = socket.socketpair()
        supervisor = BlockingChannel(ours, said.from_child("smtpd"))
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.setblocking(False)
            bound = {Listener("smtp", *listening.getsockname()): [listening]}
            accounts = Accounts(ME, ME, ME, ME, ME)
            inherited = Inherited(home, read_settings(home), accounts, 1, bound, None, None, False)
            process = Process("smtpd", theirs, inherited)
            serving = asyncio.create_task(smtpd.serve(process))
            await until(lambda: any(isinstance(one, said.Ready) for one, _ in supervisor.receive()))
            gate, its = GateServer(LocalGate(Limits({}))), socket.socketpair()
            with its[0]:
                supervisor.send(said.Peer("gate"), (its[0].fileno(),))
            gate.serve(its[1])
            gate.close()  # as it does with who makes no sense
            assert await serving == 0
        process.close()
        supervisor.close()

    asyncio.run(asyncio.wait_for(story(), 30))
    assert "alert: smtpd: gate does not answer any more" in capfd.readouterr().err


async def conversation(client: socket.socket) -> list[bytes]:
    """What a client has heard when it has said QUIT."""
    client.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=client)
    found = [await reader.readline()]
    writer.write(b"QUIT\r\n")
    found.append(await reader.readline())
    writer.close()
    return found


def left_to_the_next(listening: socket.socket) -> list[tuple[str, int]]:
    """Whom the kernel still keeps for who listens next."""
    found = []
    listening.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            connection, port = listening.accept()
            connection.close()
            found.append(port)
    return found
