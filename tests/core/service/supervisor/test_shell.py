"""The supervisor's hands: what becomes of a child by what it says, or does not hear."""

import errno
import os
import pwd
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from homes import OWNER
from openqmail.core.control import Home, read_settings
from openqmail.core.log import MemoryLog
from openqmail.core.service.frames import blocking
from openqmail.core.service.frames import supervision as said
from openqmail.core.service.frames.blocking import BlockingChannel
from openqmail.core.service.supervisor import machine as mind
from openqmail.core.service.supervisor.running import Running
from openqmail.core.service.supervisor.shell import Supervisor
from openqmail.core.world import SystemClock


class Child:
    """A process that does nothing, and its end of the channel to the supervisor, for the test to use."""

    def __init__(self, supervisor: Supervisor, number: int, role: str) -> None:
        self.process = subprocess.Popen(["sleep", "300"])
        ours, self.socket = socket.socketpair()
        self.channel = BlockingChannel(self.socket, said.ToChild)
        channel = BlockingChannel(ours, said.from_child(role), descriptors=False)
        self.number = number
        self.running = Running(role, 1, self.process.pid, os.getuid(), channel)
        supervisor._children[number] = self.running

    def dead(self) -> bool:
        return self.process.poll() is not None

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.channel.close()
        self.running.channel.close()


class Shell:
    """A supervisor that has started nothing."""

    def __init__(self, path: Path) -> None:
        (path / "control").mkdir()
        (path / "control/me").write_text("a.example\n")
        if os.geteuid() == 0:  # else there would have to be the users of a home of root's
            os.chown(path, pwd.getpwnam(OWNER).pw_uid, -1)
        home, self.log = Home(str(path)), MemoryLog()
        self.supervisor = Supervisor(home, read_settings(home), None, SystemClock(), self.log, False, None)
        self.children: list[Child] = []

    def child(self, role: str) -> Child:
        self.children.append(Child(self.supervisor, len(self.children) + 1, role))
        return self.children[-1]

    def turn(self) -> None:
        self.supervisor._turn()

    def lines(self) -> str:
        return b"".join(self.log.lines()).decode()

    def end(self) -> None:
        for one in self.children:
            one.end()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    made = Shell(tmp_path)
    yield made
    made.end()


def test_last_words_that_make_no_sense_kill_nobody_who_has_the_pid_now(shell: Shell) -> None:
    child = shell.child("gate")
    child.socket.send(b"nonsense" * 4)
    shell.supervisor._gone(1, 0)
    with pytest.raises(subprocess.TimeoutExpired):
        child.process.wait(0.2)


def test_last_words_are_heard_to_their_end(shell: Shell) -> None:
    child = shell.child("gate")
    shell.supervisor._serves = True
    for number in range(60):
        assert child.channel.send(said.Failed(f"{number} " + "x" * 1500, 111))
    child.channel.close()
    shell.supervisor._gone(1, 111)
    assert ": 59 x" in shell.lines()


def test_who_makes_no_sense_is_killed(shell: Shell) -> None:
    child = shell.child("gate")
    child.socket.send(b"nonsense" * 4)
    shell.turn()
    child.process.wait(30)
    assert "is not understood" in shell.lines()


def test_whatever_breaks_while_settings_are_tried_ends_nothing(shell: Shell, monkeypatch) -> None:
    def attempt(*_: object) -> None:
        raise LookupError("unknown encoding: punycode")

    shell.supervisor._machine.state = "serving"
    monkeypatch.setattr(shell.supervisor._ground, "attempt", attempt)
    shell.supervisor._signalled(signal.SIGHUP)
    assert (
        shell.lines().count("the settings stay as they were: LookupError('unknown encoding: punycode')") == 1
    )
    assert not shell.supervisor._machine.trial, "nothing is tried"


def no_room(*_: object) -> None:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def test_two_who_cannot_be_introduced_just_now_are_introduced_later(shell: Shell, monkeypatch) -> None:
    send, remote = shell.child("send"), shell.child("remote")
    machine = shell.supervisor._machine
    machine.state = "serving"
    machine.adopt(
        [mind.Child(one.number, one.running.role, 1, "ready", 0.0) for one in (send, remote)], 0, 0.0
    )
    monkeypatch.setattr(mind, "LINK_AGAIN", 0.01)
    with monkeypatch.context() as patch:
        patch.setattr(socket, "socketpair", no_room)
        shell.supervisor._do(machine.wake(0.0))
    assert "send, pid" in shell.lines() and "cannot be introduced to remote" in shell.lines()
    assert send.channel.receive() == []
    while not (heard := send.channel.receive()):
        shell.turn()
    [(message, [descriptor])] = heard
    os.close(descriptor)
    assert message == said.Peer("remote")


def test_an_upgrade_waits_until_new_settings_are_tried(shell: Shell) -> None:
    """Else what is bound for them would be lost, and the front end that tries them killed."""
    front, came = shell.child("smtpd"), []
    machine = shell.supervisor._machine
    machine.children[1] = mind.Child(1, "smtpd", 2, "starting", 0.0)
    machine.state, machine.trial = "serving", 1
    before = signal.signal(signal.SIGUSR2, lambda number, frame: came.append(number))
    try:
        shell.supervisor._signalled(signal.SIGUSR2)
        assert (came, front.dead()) == ([], False)
        machine.trial = 0
        shell.supervisor._taken(mind.Taken())
        assert came == [signal.SIGUSR2], "it is not forgotten"
    finally:
        signal.signal(signal.SIGUSR2, before)


@pytest.mark.parametrize(
    ("role", "message"),
    [
        ("smtpd", said.AskState()),
        ("gate", said.AskState()),
        ("local", said.AskState()),
        ("smtpd", said.Workers(((1, 0),))),
        ("send", said.Workers(((1, 0),))),
    ],
)
def test_what_is_not_its_to_say_is_not_understood(shell: Shell, role: str, message) -> None:
    child = shell.child(role)
    child.channel.send(message)
    shell.turn()
    child.process.wait(30)
    assert f"{role}, pid {child.process.pid}, is not understood" in shell.lines()


def test_who_asks_often_at_once_is_answered_once(shell: Shell) -> None:
    child = shell.child("send")
    for _ in range(20):
        child.channel.send(said.AskState())
    shell.turn()
    assert not child.dead()
    [(state, _)] = child.channel.receive()
    assert isinstance(state, said.State)


def test_who_asks_and_does_not_read_is_waited_for_once(shell: Shell, monkeypatch) -> None:
    monkeypatch.setattr(blocking, "PATIENCE", 0.2)
    child = shell.child("send")
    stalls = 0
    while child.channel.send(said.AskState()) and not child.running.silent:
        before = child.running.channel.stalled
        shell.turn()
        stalls += child.running.channel.stalled and not before
    child.process.wait(30)
    shell.supervisor._send(child.running, said.Flush())
    assert stalls == 1
    assert shell.lines().count("does not read what it is told; ended") == 1
