"""Checkpassword programs are run, by a direct call and by the spawner through frames: real ones, in sh."""

import asyncio
import os
import select
import shutil
import signal
import socket
import threading
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from homes import Waiting
from openqmail.core.control import Home
from openqmail.core.control.hashing import hash_password
from openqmail.core.control.smtpauth import Rehash
from openqmail.core.sasl import Hash
from openqmail.core.service import checking
from openqmail.core.service.checking import DirectChecks
from openqmail.core.service.frames.blocking import BlockingChannel
from openqmail.core.service.frames.logins import Check, Checked, LoginChecksClient, ToSpawner
from openqmail.core.service.processes import logins
from openqmail.core.service.processes.logins import LoginChecks
from spawned import left_open

TOLD = b"alice\0secret\0Y1\0"


class Spawner:
    """A LoginChecks that another thread drives, as the spawner's loop does."""

    def __init__(self, home: Home, settings: Any) -> None:
        self.checks = LoginChecks(home, settings)
        self._stop, self._told = os.pipe()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            watched = self.checks.watched()
            readable = select.select([self._stop, *watched], (), (), 0.01)[0]
            if self._stop in readable:
                return
            self.checks.reap()
            for one in readable:
                self.checks.hear(watched[one])

    def end(self) -> None:
        os.write(self._told, b"x")
        self._thread.join()
        self.checks.close()
        os.close(self._stop)
        os.close(self._told)


@pytest.fixture
def settings(tmp_path: Path) -> Any:
    return SimpleNamespace(checkpassword=(), checkcram=(), checktoken=(), logformat="qmail", home=tmp_path)


@pytest.fixture(params=["direct", "frames"])
def checks(request: pytest.FixtureRequest, settings: Any) -> Any:
    """`async with checks() as port`."""

    class Made:
        async def __aenter__(self) -> Any:
            home = Home(str(settings.home))
            if request.param == "direct":
                self.spawner = None
                return DirectChecks(home, settings)
            self.spawner, self.client = Spawner(home, settings), LoginChecksClient()
            ours, theirs = socket.socketpair()
            self.spawner.checks.serve(theirs)
            self.client.attach(ours)
            return self.client

        async def __aexit__(self, *_: object) -> None:
            if self.spawner is not None:
                self.client.close()
                self.spawner.end()

    return Made


def inherited() -> set[bytes]:
    """Descriptors that whoever runs the tests has left to all programs."""
    found = set()
    for name in os.listdir(b"/proc/self/fd"):
        with suppress(OSError):
            if os.get_inheritable(int(name)):
                found.add(name)
    return found


def script(settings: Any, text: str) -> None:
    path = settings.home / "check"
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    settings.checkpassword = (os.fsencode(path), b"one", b"two words".replace(b" ", b"_"))


def run(story: Any) -> None:
    asyncio.run(asyncio.wait_for(story(), 60))


@pytest.mark.parametrize(
    ("text", "code"),
    [("exit 0", 0), ("exit 1", 1), ("exit 2", 2), ("exit 111", 111), ("kill -9 $$", None), ("exec /no", 127)],
)
def test_the_exit_code_is_told(checks: Any, settings: Any, text: str, code: int | None) -> None:
    script(settings, text)

    async def story() -> None:
        async with checks() as port:
            assert await port.check("checkpassword", TOLD, "192.0.2.1") == code

    run(story)


def test_a_program_has_what_the_interface_says_and_nothing_else(checks: Any, settings: Any) -> None:
    out = settings.home / "out"
    script(
        settings, f'{{ cat <&3; echo; echo "$@"; env; ls -l /proc/$$/fd; }} >{out}.new; mv {out}.new {out}'
    )

    async def story() -> None:
        async with checks() as port:
            assert await port.check("checkpassword", TOLD, "192.0.2.1") == 0
        said, arguments, *rest = out.read_bytes().split(b"\n")
        assert (said, arguments) == (TOLD, b"one two_words")
        text = b"\n".join(rest)
        assert b"secret" not in text
        assert b"TCPREMOTEIP=192.0.2.1" in rest
        names = {line.split(b"=")[0] for line in rest if b"=" in line}
        assert names <= {b"PATH", b"PROTO", b"TCPREMOTEIP", b"PWD", b"OLDPWD", b"SHLVL", b"_"}
        opened = {
            line.split(b" -> ")[0].split()[-1]: line.split(b" -> ")[1] for line in rest if b" -> " in line
        }
        assert opened[b"0"] == b"/dev/null"
        assert opened[b"2"] == b"/dev/null"
        the_shells_own = {b"10", b"11", b"12", b"255"}
        assert set(opened) <= {b"0", b"1", b"2", b"3"} | the_shells_own | inherited()

    run(story)


def test_a_program_that_takes_too_long_is_killed_with_what_it_started(
    checks: Any, settings: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(checking, "SECONDS", 0.3)
    script(settings, f"sleep 1000 & echo $! >{settings.home}/child; wait")

    async def story() -> None:
        async with checks() as port:
            assert await port.check("checkpassword", TOLD, "192.0.2.1") is None
            child = int((settings.home / "child").read_text())
            for _ in Waiting("its child is gone"):
                try:
                    os.kill(child, 0)
                except ProcessLookupError:
                    break
                if Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                    break

    run(story)


LEAVES_ITS_GROUP = (
    "exec perl -e 'setpgrp(0, getpgrp(getppid)); open(F, qq(>$ARGV[0])); print F $$; close F; sleep 1000'"
)


@pytest.mark.skipif(shutil.which("perl") is None, reason="perl is not there")
def test_a_program_that_leaves_its_group_is_killed_all_the_same(
    checks: Any, settings: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(checking, "SECONDS", 0.3)
    script(settings, f"{LEAVES_ITS_GROUP} {settings.home}/pid")

    async def story() -> None:
        async with checks() as port:
            assert await port.check("checkpassword", TOLD, "192.0.2.1") is None
            pid = int((settings.home / "pid").read_text())
            for _ in Waiting("it is reaped"):
                if not Path(f"/proc/{pid}").exists():
                    break

    run(story)


def test_a_program_that_does_not_end_when_it_is_killed_keeps_nobody_waiting(
    settings: Any, monkeypatch: Any
) -> None:
    """As one in uninterruptible sleep."""
    monkeypatch.setattr(checking, "SECONDS", 0.0)
    monkeypatch.setattr(logins, "MOST", 1)
    killed: list[int] = []
    monkeypatch.setattr(checking, "end", killed.append)
    script(settings, "exec sleep 1000")
    ours, theirs = socket.socketpair()
    one = LoginChecks(Home(str(settings.home)), settings)
    one.serve(theirs)
    channel = BlockingChannel(ours, Checked)
    for number in (1, 2):
        channel.send(Check(number, "checkpassword", TOLD, "192.0.2.1"))
    one.hear(*one.watched().values())
    one.reap()
    heard = [message for _ in range(2) for message, _ in channel.receive() or ()]
    assert heard == [Checked(2, None), Checked(1, None)], "the second had no room, the first no time"
    assert not one.busy
    os.kill(killed[0], signal.SIGKILL)
    for _ in Waiting("there is room again"):
        one.reap()
        channel.send(Check(3, "checkpassword", TOLD, "192.0.2.1"))
        one.hear(*one.watched().values())
        if one.busy:
            break
    one.close()
    os.kill(killed[1], signal.SIGKILL)
    os.waitpid(killed[1], 0)
    channel.close()


def test_no_program_or_none_that_can_be_run_has_no_code(checks: Any, settings: Any, capfd: Any) -> None:
    async def story() -> None:
        async with checks() as port:
            assert await port.check("checktoken", TOLD, "192.0.2.1") is None
            settings.checkpassword = (b"/no/such/program",)
            assert await port.check("checkpassword", TOLD, "192.0.2.1") is None

    run(story)


def test_many_at_once_have_their_own_answers_and_leave_nothing_open(checks: Any, settings: Any) -> None:
    script(settings, "read -r login <&3; case $login in a*) exit 0;; *) exit 1;; esac")
    before = len(os.listdir("/proc/self/fd"))

    async def story() -> None:
        async with checks() as port:
            told = [b"%c%d\n" % (b"ab"[number % 2], number) for number in range(24)]
            codes = await asyncio.gather(*(port.check("checkpassword", one, "192.0.2.1") for one in told))
            assert codes == [0, 1] * 12

    run(story)
    assert not left_open(before)


def test_a_client_that_goes_takes_its_programs_with_it(settings: Any) -> None:
    script(settings, f"echo $$ >{settings.home}/pid; exec sleep 1000")
    spawner = Spawner(Home(str(settings.home)), settings)
    ours, theirs = socket.socketpair()
    spawner.checks.serve(theirs)
    channel = BlockingChannel(ours, Checked)
    channel.send(Check(1, "checkpassword", TOLD, "192.0.2.1"))
    for _ in Waiting("it runs"):
        with suppress(OSError, ValueError):
            pid = int((settings.home / "pid").read_text())
            break
    channel.close()
    for _ in Waiting("it is gone"):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIG_DFL)
            continue
        break
    spawner.end()


def test_what_makes_no_sense_ends_that_connection_alone(settings: Any) -> None:
    spawner = Spawner(Home(str(settings.home)), settings)
    for nonsense in (b"x" * 100, b"OQ\0\2\xff\xff\xff\xff\0", b"OQ\0\2\0\0\0\2\0\x91\x05"):
        ours, theirs = socket.socketpair()
        spawner.checks.serve(theirs)
        ours.sendall(nonsense)
        with suppress(ConnectionError):
            while ours.recv(100):
                pass
        ours.close()
    for _ in Waiting("nothing is left of these connections"):
        if not spawner.checks.watched():
            break
    spawner.end()


def test_more_than_may_run_at_once_are_put_off(settings: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(logins, "MOST", 1)
    script(settings, "sleep 1000")

    async def story() -> None:
        spawner, client = Spawner(Home(str(settings.home)), settings), LoginChecksClient()
        ours, theirs = socket.socketpair()
        spawner.checks.serve(theirs)
        client.attach(ours)
        first = client.check("checkpassword", TOLD, "192.0.2.1")
        assert await client.check("checkpassword", TOLD, "192.0.2.1") is None
        client.close()
        assert await first is None
        spawner.end()

    run(story)


def test_without_a_spawner_nothing_can_be_told(settings: Any) -> None:
    async def story() -> None:
        client = LoginChecksClient()
        assert await client.check("checkpassword", TOLD, "192.0.2.1") is None
        client.strengthen(Rehash(b"alice", "old", "new"))
        ours, theirs = socket.socketpair()
        client.attach(ours)
        asked = client.check("checkpassword", TOLD, "192.0.2.1")
        theirs.close()
        assert await asked is None
        assert await client.check("checkpassword", TOLD, "192.0.2.1") is None
        client.close()

    run(story)


def test_a_hash_is_strengthened_unless_it_has_been_changed(checks: Any, settings: Any) -> None:
    (settings.home / "users").mkdir()
    (settings.home / "control").mkdir()
    file = settings.home / "users" / "smtpauth"
    old = "$1$abcdefgh$k7D63vE3axegCBn62xqCv1"
    file.write_text(f"alice:{old}\nbob:{old}\n")
    if os.geteuid() == 0:
        os.chown(settings.home, 65534, 65534)
        for one in (settings.home / "users", settings.home / "control", file):
            os.chown(one, 65534, 65534)
    made: Hash = hash_password(b"x")

    async def story() -> None:
        async with checks() as port:
            port.strengthen(Rehash(b"bob", "{PLAIN}another", made.text))
            for _ in Waiting("alice has the new one"):
                port.strengthen(Rehash(b"alice", old, made.text))
                await asyncio.sleep(0.01)
                if f"alice:{made.text}\n" in file.read_text():
                    break
            assert f"bob:{old}\n" in file.read_text()

    run(story)


def test_frames_with_a_secret_do_not_show_it() -> None:
    assert "secret" not in repr(Check(1, "checkpassword", TOLD, "192.0.2.1"))
    assert ToSpawner
