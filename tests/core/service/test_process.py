"""What every process with a loop has: whom it is introduced to, and when."""

import asyncio
import math
import socket
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from handshakes import OURS
from openqmail.core.control.home import Home
from openqmail.core.control.reader import read_settings
from openqmail.core.log import Alert, MemoryLog
from openqmail.core.service.frames import supervision as said
from openqmail.core.service.frames.blocking import BlockingChannel
from openqmail.core.service.frames.gate import client as asking
from openqmail.core.service.processes import send, smtpd, unraisable
from openqmail.core.service.processes.process import Inherited, Process
from openqmail.core.values import HomeError
from spawned import until


def test_a_queue_that_cannot_be_opened_is_told_without_waiting_for_its_lock(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(send, "LOCKED", math.inf)

    async def story() -> None:
        ours, theirs = socket.socketpair()
        home = Home(str(tmp_path))
        settings: Any = SimpleNamespace(logformat="qmail")
        process = Process("send", theirs, Inherited(home, settings, None, 1, {}, None, None, False))
        with ours, pytest.raises(HomeError, match="queue is missing"):
            await send.serve(process)
        process.close()

    asyncio.run(asyncio.wait_for(story(), 30))


def test_the_ciphers_of_the_control_file_are_those_of_the_processes(tmp_path) -> None:
    control = tmp_path / "control"
    control.mkdir()
    (control / "me").write_text("a.example\n")
    (control / "servercert.pem").write_bytes(OURS.pem)
    (control / "tlsserverciphers").write_text("ECDHE-ECDSA-AES256-GCM-SHA384\n")
    home = Home(str(tmp_path))
    inherited = Inherited(home, read_settings(home), None, 1, {}, None, None, False)
    inherited.load_tls()
    spoken = [one["name"] for one in inherited.tls.context.get_ciphers() if one["protocol"] == "TLSv1.2"]
    assert spoken == ["ECDHE-ECDSA-AES256-GCM-SHA384"]


def introduce(supervisor: BlockingChannel) -> socket.socket:
    """To somebody new, whose end of the connection is returned."""
    ours, theirs = socket.socketpair()
    with theirs:
        assert supervisor.send(said.Peer("port"), (theirs.fileno(),))
    return ours


def test_who_came_last_is_asked_also_when_it_came_while_the_process_got_ready(tmp_path) -> None:
    """A start may wait, with its ports made already: who was there before must not come after."""

    async def story() -> None:
        ours, theirs = socket.socketpair()
        home = Home(str(tmp_path))
        settings: Any = SimpleNamespace(logformat="qmail")
        process = Process("send", theirs, Inherited(home, settings, None, 1, {}, None, None, False))
        supervisor = BlockingChannel(ours, said.from_child("send"))
        asked: list[socket.socket] = []
        peers = [introduce(supervisor)]
        await until(lambda: process._early)
        process.peers["port"] = asked.append
        peers.append(introduce(supervisor))
        await until(lambda: len(process._early) + len(asked) == 2)
        process.ready()
        peers.append(introduce(supervisor))
        await until(lambda: len(asked) == 3)
        for number, one in enumerate(asked):
            one.send(b"%d" % number)
        assert [one.recv(1) for one in peers] == [b"0", b"1", b"2"]
        process.close()
        supervisor.close()
        for one in [*asked, *peers]:
            one.close()

    asyncio.run(asyncio.wait_for(story(), 30))


def test_sessions_end_well_where_a_front_end_leaves_because_gate_is_gone(tmp_path, monkeypatch) -> None:
    """Who is owed a 250 gets it, as at any other end."""
    control = tmp_path / "control"
    control.mkdir()
    (control / "me").write_text("a.example\n")
    monkeypatch.setattr(asking, "PATIENCE", 0.0)

    class Busy(smtpd.Listeners):
        """One session is under way."""

        active, drained, aborted = 1, False, False

        def __init__(self, context: Any) -> None:
            super().__init__(context)
            made.append(self)

        def drain(self) -> None:
            self.drained = True

        def abort(self) -> None:
            self.aborted = True

    made: list[Any] = []
    monkeypatch.setattr(smtpd, "Listeners", Busy)

    async def story() -> None:
        ours, theirs = socket.socketpair()
        home = Home(str(tmp_path))
        accounts: Any = SimpleNamespace(alias=SimpleNamespace(uid=0, gid=0))
        inherited = Inherited(home, read_settings(home), accounts, 1, {}, None, None, False)
        process = Process("smtpd", theirs, inherited)
        serving = asyncio.create_task(smtpd.serve(process))
        await until(lambda: "gate" in process.peers)
        gate, its = socket.socketpair()
        process.peers["gate"](gate)
        its.close()
        await until(lambda: made and made[0].drained)
        for _ in range(3):
            await asyncio.sleep(smtpd.LOOK_AGAIN)
        assert not made[0].aborted
        made[0].active = 0
        assert await serving == 0
        process.close()
        ours.close()

    asyncio.run(asyncio.wait_for(story(), 30))


class Fragile:
    """Breaks where nobody can be told."""

    def __del__(self) -> None:
        raise RuntimeError("two\nlines, and a very long text" * 100)


def test_what_fails_in_a_finalizer_is_one_alert_of_one_line(monkeypatch, capfd) -> None:
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)

    async def story() -> None:
        log = MemoryLog()
        unraisable.tell("smtpd", log, asyncio.get_running_loop())
        Fragile()
        thread = threading.Thread(target=Fragile)
        thread.start()
        await asyncio.to_thread(thread.join)
        await until(lambda: len(log.events) == 2)
        for event in log.events:
            assert isinstance(event, Alert)
            assert event.line().startswith(b"alert: smtpd: a fault in Fragile.__del__, line ")
            assert b"RuntimeError('two" in event.line() and b"\n" not in event.line()
            assert len(event.line()) < 500

    asyncio.run(asyncio.wait_for(story(), 30))
    assert capfd.readouterr().err == ""
