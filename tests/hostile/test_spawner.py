"""The spawner is root: what whoever has taken over `send`, or `smtpd`, can ask of it.  Root only."""

import os
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from homes import Waiting
from openqmail.core.control import Home, User, find_accounts, read_settings
from openqmail.core.control.assign import Assignment, compile_cdb
from openqmail.core.service.frames import supervision as said
from openqmail.core.service.frames.blocking import BlockingChannel
from openqmail.core.service.frames.codec import FrameError
from openqmail.core.service.frames.local import Check, Checked, Deliver
from openqmail.core.service.frames.spawning import FromSpawner, Refused, Start, Started
from openqmail.core.service.processes.local import CHECKERS, run_spawner
from openqmail.core.service.processes.process import Inherited
from openqmail.core.values import MessageId
from system_homes import SystemHome, system_home

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes users and becomes them")


class Asking:
    """A spawner in a process of its own, and connections to it as its supervisor makes them."""

    def __init__(self, home: SystemHome) -> None:
        here = Home(str(home.path))
        ours, theirs = socket.socketpair()
        inherited = Inherited(here, read_settings(here), find_accounts(here), 1, {}, None, None, False)
        self.pid = os.fork()
        if not self.pid:
            ours.close()
            try:
                run_spawner(theirs, inherited)
            finally:
                os._exit(0)
        theirs.close()
        self.control = BlockingChannel(ours, said.from_child("local"))

    def connect(self, port: str = "local") -> socket.socket:
        mine, its = socket.socketpair()
        self.control.send(said.Peer(port), (its.fileno(),))
        its.close()
        return mine

    def end(self) -> None:
        self.control.close()
        os.waitpid(self.pid, 0)


def answer(client: BlockingChannel) -> tuple[object, list[int]]:
    for _ in Waiting("the spawner answers"):
        select.select((client.socket,), (), (), 1)
        if found := client.receive():
            return found[0]
        assert found is not None, "it has closed the connection"
    raise AssertionError


@pytest.fixture(scope="module")
def home() -> Iterator[SystemHome]:
    """Its users/cdb names root, and alice."""
    with system_home("alice") as made:
        entry = made.people["alice"]
        alice = User(b"alice", entry.pw_uid, entry.pw_gid, os.fsencode(entry.pw_dir), b"", b"")
        lines = [
            Assignment(b"alice", False, alice),
            Assignment(b"toor", False, User(b"root", 0, 0, b"/root", b"", b"")),
        ]
        (made.path / "users" / "cdb").write_bytes(compile_cdb(lines))
        yield made


@pytest.fixture
def asking(home: SystemHome) -> Iterator[Asking]:
    made = Asking(home)
    yield made
    made.end()


def test_it_starts_none_for_root_whatever_users_cdb_says(home: SystemHome, asking: Asking) -> None:
    client = BlockingChannel(asking.connect(), FromSpawner)
    for local, uid in (
        (b"toor", None),
        (b"alice", home.people["alice"].pw_uid),
        (b"unknown", find_accounts(Home(str(home.path))).alias.uid),
        (b"", find_accounts(Home(str(home.path))).alias.uid),
    ):
        client.send(Start(1, local))
        told, descriptors = answer(client)
        if uid is None:
            assert isinstance(told, Refused) and told.text.startswith(b"Not allowed")
            assert not descriptors
        else:
            assert isinstance(told, Started) and told.uid == uid
            (descriptor,) = descriptors
            os.close(descriptor)
    client.close()


@pytest.mark.parametrize(
    "garbage", [b"\0" * 100, b"\xff" * 100_000, b"GET / HTTP/1.1\r\n\r\n", b"openqmail", b""]
)
def test_garbage_ends_that_connection_and_its_workers(
    garbage: bytes, home: SystemHome, asking: Asking
) -> None:
    good = BlockingChannel(asking.connect(), FromSpawner)
    good.send(Start(1, b"alice"))
    told, (descriptor,) = answer(good)
    bad = asking.connect()
    bad.settimeout(20)
    with suppress(BrokenPipeError, ConnectionResetError):
        bad.sendall(garbage)
        bad.shutdown(socket.SHUT_WR)
    with suppress(ConnectionResetError):
        while bad.recv(4096):
            pass
    bad.close()
    good.send(Start(2, b"alice"))
    told, (other,) = answer(good)
    assert isinstance(told, Started)
    os.close(descriptor)
    os.close(other)
    good.close()


def test_with_its_client_the_workers_go(home: SystemHome, asking: Asking) -> None:
    client = BlockingChannel(asking.connect(), FromSpawner)
    client.send(Start(1, b"alice"))
    _, (descriptor,) = answer(client)
    children = Path(f"/proc/{asking.pid}/task/{asking.pid}/children")
    assert children.read_text().split()
    client.close()
    for _ in Waiting("its worker is gone"):
        if not children.read_text().split():
            break
    os.close(descriptor)


def test_without_their_spawner_workers_end_though_whoever_asked_is_there(
    home: SystemHome, asking: Asking
) -> None:
    """The next spawner knows nothing of them, and could not end them."""
    client = BlockingChannel(asking.connect(), FromSpawner)
    client.send(Start(1, b"alice"))
    _, (descriptor,) = answer(client)
    os.kill(asking.pid, signal.SIGKILL)
    with socket.socket(fileno=descriptor) as worker:
        worker.settimeout(20)
        while worker.recv(4096):
            pass
    client.close()


def test_however_many_ask_for_checks_those_that_deliver_get_their_workers(
    home: SystemHome, asking: Asking
) -> None:
    fronts = [BlockingChannel(asking.connect("check"), FromSpawner) for _ in range(2)]
    got: list[int] = []
    for at in range(CHECKERS + 2):
        fronts[at % 2].send(Start(at, b"alice"))
        told, descriptors = answer(fronts[at % 2])
        assert isinstance(told, Started) == (at < CHECKERS), at
        got += descriptors
    send = BlockingChannel(asking.connect(), FromSpawner)
    send.send(Start(1, b"alice"))
    told, descriptors = answer(send)
    assert isinstance(told, Started)
    fronts[0].close()
    for at in Waiting("with a front end its workers are gone"):
        fronts[1].send(Start(int(at * 1000), b"alice"))
        told, more = answer(fronts[1])
        descriptors += more
        if isinstance(told, Started):
            break
    for descriptor in (*got, *descriptors):
        os.close(descriptor)
    send.close()
    fronts[1].close()


def test_a_worker_for_checks_tells_of_mailboxes_and_delivers_nothing(
    home: SystemHome, asking: Asking
) -> None:
    front = BlockingChannel(asking.connect("check"), FromSpawner)
    front.send(Start(1, b"alice"))
    _, (descriptor,) = answer(front)
    worker = BlockingChannel(socket.socket(fileno=descriptor), Checked)
    for number, recipient, outcome in ((1, b"alice@a.example", "K"), (2, b"bob@a.example", "Z")):
        worker.send(Check(number, recipient))  # bob is nobody, so it is alias who could tell
        told, _ = answer(worker)
        assert isinstance(told, Checked) and (told.id, told.outcome) == (number, outcome)
    deliver = (3, MessageId(1, b"k" * 24), 1, b"", b"alice@a.example", 0, False, False, 2, b"", b"x\n")
    worker.send(Deliver(3, *deliver))
    for _ in Waiting("it has cut off who wants it to deliver"):
        select.select((worker.socket,), (), (), 1)
        try:
            if worker.receive() is None:
                break
        except FrameError:
            break
    assert not home.mails("alice")
    worker.close()
    front.close()
