"""The spawner, in the test's own process: what it says of workers that cannot be."""

import contextlib
import errno
import os
import pwd
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from homes import OWNER, Waiting
from openqmail.core.control import Home
from openqmail.core.control.accounts import Account, Accounts
from openqmail.core.service.frames import blocking
from openqmail.core.service.frames import supervision as said
from openqmail.core.service.frames.blocking import BlockingChannel
from openqmail.core.service.frames.codec import PREFACE, Encoder
from openqmail.core.service.frames.spawning import FromSpawner, Kill, Refused, Start, Started, StartPrograms
from openqmail.core.service.processes import local
from openqmail.core.service.processes.process import Inherited

ME = Account("me", os.getuid(), os.getgid())


@pytest.fixture
def control() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The supervisor's end, and the spawner's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def spawner(tmp_path: Path, control: tuple[socket.socket, socket.socket]) -> Iterator[local.Spawner]:
    if os.geteuid() == 0:  # else it would look into users/cdb
        os.chown(tmp_path, pwd.getpwnam(OWNER).pw_uid, -1)
    settings: Any = SimpleNamespace(logformat="qmail")
    accounts = Accounts(ME, ME, ME, ME, ME)
    inherited = Inherited(Home(str(tmp_path)), settings, accounts, 1, {}, None, None, False)
    made = local.Spawner(control[1], inherited)
    yield made
    made._control.close()
    for client in made._clients:
        client.channel.close()
    os.close(made._life)
    os.close(made._life_of_workers)


def asks(spawner: local.Spawner, port: str = "local") -> tuple[local._Client, socket.socket]:
    ours, theirs = socket.socketpair()
    client = local._Client(theirs, port)
    spawner._clients.append(client)
    return client, ours


@contextlib.contextmanager
def by_itself() -> Iterator[None]:
    """`run` takes signals, which are the test's own again afterwards."""
    wakeup, handler = signal.set_wakeup_fd(-1), signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGCHLD, handler)


def test_a_worker_that_breaks_says_why(spawner: local.Spawner, monkeypatch, capfd) -> None:
    def broken(*_: object, **__: object) -> int:
        raise RuntimeError("no such luck")

    monkeypatch.setattr(local, "run_worker", broken)
    client, peer = asks(spawner)
    with peer:
        assert spawner._start(client, Start(1, b"alice"))
        [pid] = client.workers
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 111
    assert f"worker of uid {spawner._home.uid} broke: RuntimeError('no such luck')" in capfd.readouterr().err


def test_a_spawner_without_room_for_a_socket_refuses_and_goes_on(spawner: local.Spawner, monkeypatch) -> None:
    def no_room(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    client, peer = asks(spawner)
    with peer:
        with monkeypatch.context() as patch:
            patch.setattr(socket, "socketpair", no_room)
            assert spawner._start(client, Start(1, b"alice"))
        [(answer, _)] = BlockingChannel(peer, FromSpawner).receive()
    assert isinstance(answer, Refused)


# --- how many there are, and who has ended ---------------------------------------------------


def answers(channel: BlockingChannel) -> list[type]:
    """What whoever asks has been told since; the workers' sockets are closed."""
    found = []
    while told := channel.receive():
        for message, descriptors in told:
            found.append(type(message))
            for one in descriptors:
                os.close(one)
    return found


@pytest.fixture
def patient(monkeypatch) -> None:
    """Workers that do nothing until they are killed, or the spawner is gone."""

    def wait(connection: socket.socket, life: int, *_: object, **__: object) -> int:
        return len(os.read(life, 1))

    monkeypatch.setattr(local, "run_worker", wait)


@pytest.mark.parametrize(("port", "limit"), [("local", "MOST"), ("check", "CHECKERS")])
def test_there_are_no_more_workers_than_may_be(
    spawner: local.Spawner, patient, monkeypatch, port, limit
) -> None:
    monkeypatch.setattr(local, limit, 2)
    client, peer = asks(spawner, port)
    with peer:
        for number in range(4):
            assert spawner._start(client, Start(number, b"alice"))
        assert answers(BlockingChannel(peer, FromSpawner)) == [Started, Started, Refused, Refused]
        spawner._end(client)


def test_workers_for_checks_that_do_not_die_count_until_they_have(
    spawner: local.Spawner, patient, monkeypatch
) -> None:
    """As one that waits for a home on a server that does not answer."""
    monkeypatch.setattr(local, "CHECKERS", 2)
    client, peer = asks(spawner, "check")
    with peer:
        for number in range(2):
            assert spawner._start(client, Start(number, b"alice"))
        workers = set(client.workers)
        with monkeypatch.context() as patch:
            patch.setattr(os, "kill", lambda pid, number: None)
            spawner._end(client)
    client, peer = asks(spawner, "check")
    with peer:
        assert spawner._start(client, Start(1, b"alice"))
        assert answers(BlockingChannel(peer, FromSpawner)) == [Refused]
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        for _ in Waiting("they are reaped"):
            spawner._reap()
            if not spawner._killed:
                break
    client, peer = asks(spawner, "check")
    with peer:
        assert spawner._start(client, Start(1, b"alice"))
        assert answers(BlockingChannel(peer, FromSpawner)) == [Started]
        spawner._end(client)


# --- who does not read what he is told ----------------------------------------------------------


def test_who_reads_late_is_told_of_all_that_he_may_ask_at_a_time(spawner: local.Spawner, patient) -> None:
    client, peer = asks(spawner)
    with peer:
        for number in range(local.MOST + 10):
            assert spawner._start(client, Start(number, b"alice"))
        assert answers(BlockingChannel(peer, FromSpawner)) == [Started] * local.MOST + [Refused] * 10
        spawner._end(client)


def test_who_never_reads_is_sent_away_and_nobody_waits_for_him(
    spawner: local.Spawner, patient, monkeypatch
) -> None:
    monkeypatch.setattr(blocking, "PATIENCE", 1e9)
    monkeypatch.setattr(local, "CHECKERS", 0)
    client, peer = asks(spawner, "check")
    with peer:
        told = BlockingChannel(peer, FromSpawner)
        while client in spawner._clients:
            told.send(Start(1, b"alice"))
            spawner._answer(client)


# --- workers that were killed and have not ended -----------------------------------------------


class Kernel:
    """In which who is killed ends when the test says so: as one that waits for a server's answer."""

    def __init__(self, monkeypatch) -> None:
        self._kill = os.kill
        self.killed: list[int] = []
        monkeypatch.setattr(os, "kill", lambda pid, number: self.killed.append(pid))

    def end(self, spawner: local.Spawner) -> None:
        while self.killed:
            self._kill(self.killed.pop(), signal.SIGKILL)
        for _ in Waiting("they are reaped"):
            spawner._reap()
            if not spawner._ending:
                break
        spawner._try_again()


@pytest.fixture
def kernel(spawner: local.Spawner, monkeypatch) -> Kernel:
    """alice and bob have users of their own."""
    monkeypatch.setattr(
        spawner, "_account", lambda name: Account("", 5001 if name.startswith(b"alice") else 5002, 5000)
    )
    return Kernel(monkeypatch)


def test_one_that_does_not_end_keeps_only_its_own_user_waiting(
    spawner: local.Spawner, patient, kernel: Kernel
) -> None:
    client, peer = asks(spawner)
    with peer:
        assert spawner._start(client, Start(1, b"alice"))
        spawner._end(client)
    client, peer = asks(spawner)
    with peer:
        told = BlockingChannel(peer, FromSpawner)
        assert spawner._start(client, Start(1, b"alice-x"))
        assert spawner._start(client, Start(2, b"bob"))
        assert answers(told) == [Started], "bob's"
        assert spawner._patience() <= local.PATIENCE
        spawner._try_again()
        assert answers(told) == [], "whoever comes next may deliver the same messages"
        kernel.end(spawner)
        assert answers(told) == [Started], "alice's, as her first has ended"
        assert spawner._patience() is None
        spawner._end(client)
    kernel.end(spawner)


@pytest.mark.parametrize("killed_by", ["the end of who asked", "who asked"])
def test_after_some_time_who_wants_another_is_refused_and_no_longer_kept_waiting(
    spawner: local.Spawner, patient, monkeypatch, kernel: Kernel, killed_by: str
) -> None:
    now = 100.0
    monkeypatch.setattr(local, "time", SimpleNamespace(monotonic=lambda: now))
    client, peer = asks(spawner)
    with peer:
        assert spawner._start(client, Start(1, b"alice"))
        if killed_by == "who asked":
            spawner._kill(client, 1)
        else:
            spawner._end(client)
    client, peer = asks(spawner)
    with peer:
        told = BlockingChannel(peer, FromSpawner)
        assert spawner._start(client, Start(1, b"alice"))
        assert answers(told) == []
        now += local.PATIENCE
        spawner._try_again()
        assert spawner._start(client, Start(2, b"alice"))
        assert answers(told) == [Refused, Refused]
        kernel.end(spawner)
        assert spawner._start(client, Start(3, b"alice"))
        assert answers(told) == [Started]
        spawner._end(client)
    kernel.end(spawner)


def test_who_asked_and_is_gone_meanwhile_is_given_nothing(
    spawner: local.Spawner, patient, kernel: Kernel
) -> None:
    for _ in range(2):
        client, peer = asks(spawner)
        with peer:
            assert spawner._start(client, Start(1, b"alice"))
            spawner._end(client)
    kernel.end(spawner)
    assert not spawner._uids
    assert not spawner._waiting


@pytest.fixture
def run(spawner: local.Spawner, monkeypatch) -> Callable[[], int]:
    """Runs the spawner until its supervisor is gone: until the read side of `_control` is shut."""
    monkeypatch.setattr(spawner, "_hear", lambda: False)

    def whole() -> int:
        with by_itself():
            return spawner.run()

    return whole


@pytest.mark.parametrize("port", ["check", "local"])
def test_who_says_much_at_once_keeps_nobody_else_waiting(
    spawner: local.Spawner, patient, monkeypatch, run, port: str
) -> None:
    """As a front end that is a stranger's: what it has killed no longer counts among its workers."""
    _, his = asks(spawner, port)
    honest, peer = asks(spawner)
    begun, start = [], spawner._start

    def noted(client: local._Client, asked: Start) -> bool:
        begun.append(client)
        if client is honest:
            spawner._control.socket.shutdown(socket.SHUT_RD)
        return start(client, asked)

    monkeypatch.setattr(spawner, "_start", noted)
    frame = Encoder().frame
    with his, peer:
        much = b"".join(frame(Start(at, b"alice")) + frame(Kill(at)) for at in range(200))
        his.sendall(PREFACE + much)
        peer.sendall(PREFACE + frame(Start(1, b"bob")))
        assert run() == 0
    assert begun.index(honest) <= 1, "each has had at most one word before"


def test_all_that_was_said_at_once_has_its_turn(spawner: local.Spawner, patient, monkeypatch, run) -> None:
    _, peer = asks(spawner, "check")
    kill = spawner._kill

    def last(client: local._Client, asked: int) -> None:
        kill(client, asked)
        if asked == 4:
            spawner._control.socket.shutdown(socket.SHUT_RD)

    monkeypatch.setattr(spawner, "_kill", last)
    frame = Encoder().frame
    with peer:
        peer.sendall(PREFACE + b"".join(frame(Start(at, b"alice")) + frame(Kill(at)) for at in range(5)))
        assert run() == 0
        assert answers(BlockingChannel(peer, FromSpawner)) == [Started] * 5


def test_who_ends_with_the_service_is_waited_for(spawner: local.Spawner, patient, monkeypatch, run) -> None:
    """Whoever comes next may deliver the same messages; death comes when the kernel has time for it."""
    kill = os.kill

    def later(pid: int, number: int) -> None:
        threading.Timer(0.1, kill, (pid, number)).start()

    client, peer = asks(spawner)
    with peer:
        for number in range(2):
            assert spawner._start(client, Start(number, b"alice"))
        workers = set(client.workers)
        monkeypatch.setattr(os, "kill", later)
        spawner._control.socket.shutdown(socket.SHUT_RD)
        assert run() == 0
    assert len(workers) == 2
    for pid in workers:
        with pytest.raises(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def test_a_worker_that_was_killed_first_may_be_given_up_while_another_is_waited_for(
    spawner: local.Spawner, patient, monkeypatch, kernel: Kernel
) -> None:
    now = 100.0
    monkeypatch.setattr(local, "time", SimpleNamespace(monotonic=lambda: now))
    askers = [asks(spawner) for _ in range(2)]
    for client, _ in askers:
        assert spawner._start(client, Start(1, b"alice"))
    for client, peer in askers:
        now += local.PATIENCE - 1
        spawner._end(client)
        peer.close()
    client, peer = asks(spawner)
    with peer:
        told = BlockingChannel(peer, FromSpawner)
        now += 2  # the patience with the first is over
        assert spawner._start(client, Start(1, b"alice"))
        assert answers(told) == [], "the second may end in time"
        kernel.end(spawner)
        assert answers(told) == [Started]
        spawner._end(client)
    kernel.end(spawner)


# --- workers that end by themselves --------------------------------------------------------------


def ended(spawner: local.Spawner, client: local._Client, kill: Callable[[int, int], None]) -> int:
    """The one worker, which has ended by itself."""
    [pid] = client.workers
    kill(pid, signal.SIGKILL)
    for _ in Waiting("it is reaped"):
        spawner._reap()
        if not client.workers:
            return pid
    raise AssertionError


def test_nobody_is_killed_for_a_worker_that_has_ended(
    spawner: local.Spawner, patient, kernel: Kernel
) -> None:
    """Its pid may be another process's by now, and the spawner is root."""
    client, peer = asks(spawner)
    with peer:
        assert spawner._start(client, Start(1, b"alice"))
        ended(spawner, client, kernel._kill)
        spawner._kill(client, 1)
        spawner._kill(client, 2)  # nobody was asked for by this one
        assert not kernel.killed
        assert not spawner._ending
        spawner._end(client)


def test_workers_that_have_ended_are_not_remembered(spawner: local.Spawner, patient, kernel: Kernel) -> None:
    client, peer = asks(spawner)
    with peer:
        for number in range(5):
            assert spawner._start(client, Start(number, b"alice"))
            pid = ended(spawner, client, kernel._kill)
            assert client.asked == {number: pid}
        spawner._end(client)


# --- reloads ----------------------------------------------------------------------------------


def test_whose_deliveries_go_on_is_served_after_a_reload_until_it_ends(
    spawner: local.Spawner, control, patient, monkeypatch
) -> None:
    client, peer = asks(spawner)
    told, seen = BlockingChannel(peer, FromSpawner), []
    BlockingChannel(control[0], said.Ready).send(said.Leave(60.0))
    told.send(Start(1, b"alice"))

    def after_a_round() -> None:
        seen.extend(answers(told))
        if len(seen) == 1:
            told.send(Start(2, b"alice"))
        elif len(client.workers) == 2 and client in spawner._clients:
            assert not spawner._ending, "what is under way is not killed"
            peer.shutdown(socket.SHUT_RDWR)  # the workers of a test have it open too

    monkeypatch.setattr(spawner, "_try_again", after_a_round)
    with peer, by_itself():
        assert spawner.run() == 0
    assert seen == [Started, Started]


# --- programs of hooks -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("port", "asked"),
    [("programs", Start(1, b"x")), ("check", StartPrograms(1)), ("local", StartPrograms(1))],
)
def test_who_may_ask_for_one_kind_of_worker_gets_no_other(
    spawner: local.Spawner, port: str, asked: Any
) -> None:
    client, peer = asks(spawner, port)
    with peer:
        assert BlockingChannel(peer, FromSpawner).send(asked)
        spawner._answer(client)
        assert client not in spawner._clients
        assert not client.workers


def test_programs_are_run_only_where_a_hook_is_named(spawner: local.Spawner, monkeypatch) -> None:
    ran: list[Account] = []
    monkeypatch.setattr(local, "run_programs", lambda *known: ran.append(known[-1]) or 7)
    client, peer = asks(spawner, "programs")
    with peer:
        channel = BlockingChannel(peer, FromSpawner)
        spawner._inherited.settings.hooks = ()
        assert spawner._start(client, StartPrograms(1))
        [(answer, _)] = channel.receive()
        assert isinstance(answer, Refused) and b"names no hook" in answer.text
        spawner._inherited.settings.hooks = ("toy",)
        for number in range(2, 2 + local.RUNNERS):
            assert spawner._start(client, StartPrograms(number))
            [(answer, descriptors)] = channel.receive()
            assert isinstance(answer, Started)
            for one in descriptors:
                os.close(one)
        assert spawner._start(client, StartPrograms(9))
        [(answer, _)] = channel.receive()
        assert isinstance(answer, Refused) and b"Too many" in answer.text
        for pid in client.workers:
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
