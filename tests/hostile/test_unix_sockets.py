"""Garbage on the Unix sockets of a home of root's, from another user: only that client is closed.

`run/admin` is root's; `run/submit` is everybody's.  Root only: it makes the other user.
"""

import contextlib
import os
import pwd
import smtplib
import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from homes import Waiting
from openqmail.core.submit.service import CONNECTIONS_OF_ONE
from openqmail.core.submit.wire import netstring, request_head
from system_homes import SystemHome, system_home

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes users")

MESSAGE = b"Subject: hello\n\nfrom a program\n"


@pytest.fixture(scope="module")
def served() -> Iterator[SystemHome]:
    """Serves alice and bob; mallory is a user of this host, too."""
    with system_home("alice", "bob", "mallory") as home:
        home.start()
        before = home.pids()
        yield home
        after = home.pids()
        assert {role: after.get(role) for role in before} == before, "a process has died"
        assert home.stop() == 0
        assert b"is started anew" not in home.log.read_bytes(), "nobody has been replaced"


@pytest.fixture
def well(served: SystemHome) -> Iterator[SystemHome]:
    """At the end mail still comes by both ways, to the same processes."""
    before = served.pids()
    yield served
    count = len(served.mails("bob"))
    with smtplib.SMTP("127.0.0.1", served.port, "client.example", 20) as client:
        assert client.sendmail("", [served.address("bob")], b"Subject: smtp\r\n\r\n") == {}
    assert submitted(served, "alice")[:1] == b"K"
    mails = b"".join(served.wait_mails("bob", count + 2))
    assert b"invoked by uid %d)" % served.people["alice"].pw_uid in mails, "the kernel's word"
    after = served.pids()
    assert {role: after[role] for role in before if role != "worker"} == {
        role: pid for role, pid in before.items() if role != "worker"
    }


@contextlib.contextmanager
def acting(who: pwd.struct_passwd) -> Iterator[None]:
    groups = os.getgroups()
    os.setgroups([who.pw_gid])
    os.setegid(who.pw_gid)
    os.seteuid(who.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def connect(home: SystemHome, who: str, name: str = "submit") -> socket.socket:
    """As that user; the connection stays hers."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(40)
    try:
        with acting(home.people.get(who) or pwd.getpwnam(who)):
            connection.connect(str(home.path / "run" / name))
    except OSError:
        connection.close()
        raise
    return connection


def everything(connection: socket.socket) -> bytes:
    """All that comes until the other side is closed."""
    said = b""
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(65536):
            said += data
    return said


def told(home: SystemHome, who: str, request: bytes, name: str = "submit") -> bytes:
    """What is answered to it, and nothing more; empty when it is just closed."""
    with connect(home, who, name) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
        return everything(connection)


def request(home: SystemHome) -> bytes:
    return request_head(b"", [home.address("bob").encode()], len(MESSAGE)) + MESSAGE + b","


def submitted(home: SystemHome, who: str) -> bytes:
    """The answer to a good one, its letter first."""
    with connect(home, who) as connection:
        with contextlib.suppress(BrokenPipeError):  # who is not let in is told so before
            connection.sendall(request(home))
        return everything(connection).partition(b":")[2]


# --- run/admin ----------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["mallory", "alice", "smtpd", "gate", "send", "remote", "alias"])
def test_the_administrators_socket_is_closed_to_others(who: str, served: SystemHome) -> None:
    name = who if who in served.people else served.account(who).pw_name
    with pytest.raises(PermissionError):
        connect(served, name, "admin")
    with acting(pwd.getpwnam(name) if who not in served.people else served.people[who]):
        with pytest.raises(PermissionError):
            os.listdir(served.path / "run")
        with pytest.raises(PermissionError):
            (served.path / "run" / "submit").unlink()


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\n", b"\0" * 1000, b"{" * 60_000 + b"\n", b"x" * 200_000, b"\xff\xfe\n", b'{"v":1}\n',
     b'{"v":2,"ask":"status"}\n', b'{"v":1,"ask":', b'{"v":1,"ask":"delete","numbers":[-1]}\n',
     b'{"v":1,"ask":"hold","numbers":"all"}\n',
     b'{"v":1,"ask":"list","numbers":[%s]}\n' % b",".join([b"1"] * 1001)],
)  # fmt: skip
def test_garbage_of_roots_at_the_administrators_socket_closes_that_connection(
    garbage: bytes, well: SystemHome
) -> None:
    assert not told(well, "root", garbage, "admin").startswith(b'{"ok":true')


# --- run/submit ---------------------------------------------------------------------------

_requests = st.lists(st.binary(max_size=30), max_size=6).map(lambda some: b"".join(map(netstring, some)))
_garbage = st.one_of(
    st.binary(max_size=3000),
    st.builds(lambda some, end: some + end, _requests, st.binary(max_size=100)),
    st.integers(0, 10**20).map(lambda size: b"1:1,%d:" % size),
    st.tuples(st.integers(0, 10**20), st.binary(max_size=50)).map(lambda one: b"1:1,0:,3:a@b,0:,%d:%b" % one),
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(garbage=_garbage)
def test_garbage_is_refused_or_just_closed(garbage: bytes, served: SystemHome) -> None:
    answer = told(served, "mallory", garbage)
    assert answer == b"" or answer.partition(b":")[2][:1] in (b"D", b"Z", b"K")
    if answer.partition(b":")[2][:1] == b"K":
        assert garbage.startswith(b"1:1,") and garbage.endswith(b","), "a whole request, by chance"


def test_half_a_request_is_no_message(well: SystemHome) -> None:
    whole = request(well)
    before = len(well.mails("bob"))

    @settings(max_examples=100)
    @given(end=st.integers(0, len(whole) - 1))
    def half(end: int) -> None:
        assert told(well, "mallory", whole[:end]).partition(b":")[2][:1] in (b"", b"D", b"Z")

    half()
    well.wait_empty()
    assert len(well.mails("bob")) == before


def test_garbage_has_harmed_nobody(well: SystemHome) -> None:
    """Whatever the tests above have sent."""


def test_what_comes_byte_by_byte_is_taken(well: SystemHome) -> None:
    with connect(well, "mallory") as connection:
        for one in request(well):
            connection.sendall(bytes([one]))
        assert everything(connection).partition(b":")[2][:1] == b"K"


def test_what_follows_a_request_is_not_read(well: SystemHome) -> None:
    count = len(well.mails("bob"))
    with connect(well, "mallory") as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(request(well) * 3)
        assert everything(connection).count(b"K") <= 1
    assert len(well.wait_mails("bob", count + 1)) == count + 1


def test_who_holds_connections_keeps_only_itself_out_until_they_are_closed(well: SystemHome) -> None:
    """Half a request each, then silence: Mallory has no more of them, Alice has."""
    held = [connect(well, "mallory") for _ in range(CONNECTIONS_OF_ONE)]
    try:
        for number, one in enumerate(held):
            one.sendall(request(well)[: number * 3])
        for _ in Waiting("no more of them are let in"):
            if submitted(well, "mallory")[:1] == b"Z":
                break
        for _ in range(20):
            assert submitted(well, "alice")[:1] == b"K"
        for one in held:
            assert everything(one) == b"", "closed after its silence"
        assert submitted(well, "mallory")[:1] == b"K"
    finally:
        for one in held:
            one.close()


def test_a_thousand_connections_that_come_and_go_stop_nothing(well: SystemHome) -> None:
    for _ in range(20):
        some = [connect(well, "mallory") for _ in range(50)]
        for number, one in enumerate(some):
            with contextlib.suppress(OSError):
                one.sendall(request(well)[: number * 2])
            one.close()


def test_a_client_that_never_reads_holds_nobody_up(well: SystemHome) -> None:
    with connect(well, "mallory") as connection:
        connection.settimeout(1)
        with contextlib.suppress(OSError):  # refused, closed, or not read any further
            for _ in range(100):
                connection.sendall(b"1:1,0:,5:a@b.c,0:,999999999999:" + b"x" * 65536)
        assert submitted(well, "alice")[:1] == b"K"
