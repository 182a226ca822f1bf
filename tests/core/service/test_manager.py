"""What service managers are told (sd_notify), and sockets that they have bound before (LISTEN_FDS)."""

import contextlib
import os
import pwd
import random
import signal
import smtplib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from homes import OWNER, Home, Place, Waiting, command, free_port
from system_homes import system_home

ROOT = pytest.mark.skipif(os.getuid() != 0, reason="only root may listen below port 1024")


# --- what is told ---------------------------------------------------------------------------


@pytest.fixture(params=["path", "abstract"])
def told(request, place: Place, monkeypatch) -> Iterator[socket.socket]:
    """The manager's socket, which NOTIFY_SOCKET names."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        if request.param == "path":
            address = str(place.path / "notify")
            manager.bind(address)
            os.chmod(address, 0o666)  # who serves may be another user
        else:
            address = f"@openqmail-{os.getpid()}-{random.getrandbits(40)}"
            manager.bind("\0" + address[1:])
        manager.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        yield manager


def hear(manager: socket.socket) -> str:
    return manager.recv(4096).decode()


def microseconds() -> int:
    return time.monotonic_ns() // 1000


def assert_reloads(manager: socket.socket, home: Home) -> None:
    before = microseconds()
    home.signal(signal.SIGHUP)
    begun, _, when = hear(manager).partition("\n")
    assert begun == "RELOADING=1"
    name, _, number = when.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(number) <= microseconds()
    assert hear(manager) == "READY=1"


def test_a_manager_is_told_of_start_reload_and_stop(told: socket.socket, home: Home) -> None:
    home.start()
    assert hear(told) == "READY=1"
    assert_reloads(told, home)
    home.signal(signal.SIGTERM)
    assert hear(told) == "STOPPING=1"
    assert home.stop() == 0
    told.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            assert hear(told) == "STOPPING=1", "nothing else is told after a stop has begun"


def test_a_reload_that_fails_ends_for_the_manager_too(told: socket.socket, home: Home) -> None:
    home.start()
    assert hear(told) == "READY=1"
    home.control("rcpthosts", "broken domain!")
    assert_reloads(told, home)
    assert "the settings stay as they were" in home.tail()


def test_nobody_is_told_that_a_service_is_ready_which_is_not(told: socket.socket, home: Home) -> None:
    with socket.create_server(("127.0.0.1", home.port)):
        home.spawn()
        assert home.process is not None and home.process.wait(30) == 100
    told.setblocking(False)
    with pytest.raises(BlockingIOError):
        hear(told)


def test_a_manager_that_has_gone_is_no_trouble(told: socket.socket, home: Home) -> None:
    told.close()
    home.start()
    assert home.stop() == 0


# --- sockets that are given -----------------------------------------------------------------

LAUNCH = """
import os, sys
count, pid, command = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
given = [os.dup(int(one)) for one in command[:count]]
for number, one in enumerate(given):
    os.dup2(one, 3 + number)
    os.set_inheritable(3 + number, True)
os.environ.update(LISTEN_PID=pid or str(os.getpid()), LISTEN_FDS=str(count))
os.execv(command[count], command[count:])
"""
"""As systemd does it: the sockets are descriptors 3 and following of the process that is named."""


def spawn_with(
    home: Home, sockets: list[socket.socket], names: str | None, pid: str = "", user: str | None = None
) -> None:
    """Starts the service of a home with sockets that listen already."""
    numbers = [str(one.fileno()) for one in sockets]
    environment = {name: value for name, value in os.environ.items() if name != "LISTEN_FDNAMES"}
    if names is not None:
        environment["LISTEN_FDNAMES"] = names
    words = [sys.executable, "-c", LAUNCH, str(len(sockets)), pid, *numbers]
    with home.log.open("ab") as log:
        home.process = subprocess.Popen(
            [*words, *command(), "--home", str(home.path), "run"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            pass_fds=list(map(int, numbers)),
            start_new_session=True,
            user=user,
        )


@pytest.fixture
def given() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", free_port())) as made:
        yield made


def wait_log(home: Home, text: str) -> None:
    for _ in Waiting(f"the log says {text!r}"):
        if text in home.tail(100_000):
            return


def port_of(one: socket.socket) -> int:
    port: int = one.getsockname()[1]
    return port


def listens(home: Home) -> set[tuple[str, str]]:
    return {(one["service"], one["address"]) for one in home.status()["listen"]}


def greeting(port: int) -> str:
    with smtplib.SMTP(timeout=30) as smtp:
        code, said = smtp.connect("127.0.0.1", port)
        return said.decode() if code == 220 else f"{code}"


@pytest.mark.parametrize("names", ["smtp", None])
def test_a_socket_that_was_bound_before_is_served(home: Home, given: socket.socket, names) -> None:
    spawn_with(home, [given], names)
    home.wait_serving()
    there = ("smtp", f"127.0.0.1:{port_of(given)}")
    assert listens(home) == {there, ("smtp", f"127.0.0.1:{home.port}")}
    given.close()  # the manager's own copy is no matter
    for _ in range(2):
        assert greeting(port_of_address(there)).startswith("a.example")
        home.signal(signal.SIGHUP)
        wait_log(home, "took the new settings")
        assert there in listens(home), "a reload keeps what the manager has given"
    assert home.stop() == 0


def port_of_address(listener: tuple[str, str]) -> int:
    return int(listener[1].rpartition(":")[2])


def test_a_socket_takes_the_place_of_its_line_in_control_listen(home: Home) -> None:
    with socket.create_server(("127.0.0.1", home.port)) as mine:
        spawn_with(home, [mine], "smtp")
        home.wait_serving()
    assert listens(home) == {("smtp", f"127.0.0.1:{home.port}")}
    assert greeting(home.port).startswith("a.example")


def test_a_line_without_an_address_is_all_that_was_given_for_its_port(home: Home) -> None:
    port = free_port()
    home.control("listen", f"smtp :{port}")
    with socket.create_server(("127.0.0.1", port)) as one, socket.create_server(("127.0.0.2", port)) as two:
        spawn_with(home, [one, two], "smtp:smtp")
        home.wait_serving()
    assert listens(home) == {("smtp", f"127.0.0.1:{port}"), ("smtp", f"127.0.0.2:{port}")}


def test_a_name_that_is_no_service_stops_the_start_before_it_begins(home: Home, given: socket.socket) -> None:
    spawn_with(home, [given], "nonsense.socket")
    assert home.process is not None and home.process.wait(30) == 100
    (said,) = home.tail().splitlines()
    assert f"the socket 127.0.0.1:{port_of(given)} from systemd is named 'nonsense.socket'" in said
    assert "FileDescriptorName=" in said


def test_sockets_for_another_process_are_not_taken(home: Home, given: socket.socket) -> None:
    spawn_with(home, [given], "smtp", pid="1")
    home.wait_serving()
    assert listens(home) == {("smtp", f"127.0.0.1:{home.port}")}


def low_port() -> socket.socket:
    """A port that only root may have."""
    for port in random.sample(range(600, 1023), 200):
        with contextlib.suppress(OSError):
            return socket.create_server(("127.0.0.1", port))
    pytest.skip("every port below 1024 is in use")


def can_run(user: str) -> bool:
    """Whether another user can reach this Python and what is installed for it."""
    with contextlib.suppress(OSError):
        words = [sys.executable, "-c", "import openqmail.core.commands.main"]
        return subprocess.run(words, user=user, capture_output=True, cwd="/").returncode == 0
    return False


@ROOT
@pytest.mark.parametrize("starter", [None, OWNER])
def test_a_port_below_1024_is_served_without_root(place: Place, starter: str | None) -> None:
    if starter and not can_run(starter):
        pytest.skip(f"{starter} may not read this Python")
    with low_port() as low:
        port = port_of(low)
        home = place.home("a.example", "alice", listen=[f"smtp 127.0.0.1:{port}"])
        home.port = port
        place.path.chmod(0o755)
        spawn_with(home, [low], "smtp", user=starter)
        home.wait_serving()
    assert {one["uid"] for one in home.status()["processes"]} == {pwd.getpwnam(OWNER).pw_uid}
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as smtp:
        smtp.sendmail("s@c.example", ["alice@a.example"], "Subject: low\r\n\r\nbelow 1024\r\n")
    [mail] = home.wait_mails("alice", 1)
    assert mail.endswith(b"below 1024\n")
    assert home.stop() == 0


# --- upgrades -------------------------------------------------------------------------------


@pytest.fixture
def own(place: Place) -> Iterator[Home]:
    """A home whose first process can read the program it runs: root's own, for root."""
    if os.getuid() == 0:
        with system_home("alice") as made:
            yield made
    else:
        yield place.home("a.example", "alice")


def test_an_upgrade_keeps_what_was_given_and_tells_the_manager(
    own: Home, given: socket.socket, monkeypatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        address = f"@openqmail-{os.getpid()}-{random.getrandbits(40)}"
        manager.bind("\0" + address[1:])
        manager.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        spawn_with(own, [given], "smtp")
        assert hear(manager) == "READY=1"
        pid, before = own.status()["pid"], listens(own)
        assert own.run("upgrade").returncode == 0
        assert hear(manager) == "READY=1"
        assert_reloads(manager, own)
    assert own.status()["pid"] == pid
    assert listens(own) == before
    assert greeting(port_of(given)).startswith("a.example")
    assert own.stop() == 0


def test_a_hup_in_the_midst_of_an_upgrade_is_kept_for_its_end(own: Home) -> None:
    own.start()
    own.signal(signal.SIGUSR2)
    for _ in Waiting("the new program has begun", pause=0.0005):
        if b"OPENQMAIL_LEGACY=" in Path(f"/proc/{own.status()['pid']}/environ").read_bytes():
            break
    own.control("smtpgreeting", "a.example is new")
    own.signal(signal.SIGHUP)
    wait_log(own, "took the new settings")
    assert greeting(own.port).startswith("a.example is new")
    assert own.stop() == 0


def test_an_upgrade_in_the_midst_of_a_reload_takes_both(own: Home) -> None:
    own.start()
    own.control("smtpgreeting", "a.example is new")
    own.signal(signal.SIGHUP)
    own.signal(signal.SIGUSR2)
    for _ in Waiting("the new program serves"):
        if "upgraded: openqmail" in own.tail(100_000):
            break
    assert greeting(own.port).startswith("a.example is new")
    assert "alert" not in own.tail(100_000), "no process was killed for it"
    assert own.stop() == 0


def test_an_upgrade_that_cannot_be_is_refused_and_the_service_goes_on(own: Home) -> None:
    own.start()
    before = {one["name"]: one["pid"] for one in own.status()["processes"]}
    own.control("rcpthosts", "broken domain!")
    refused = own.run("upgrade", check=False)
    assert refused.returncode == 100, refused
    assert "control/rcpthosts, line 1" in refused.stderr and "goes on as it was" in refused.stderr
    wait_log(own, "going on with this one")
    assert {one["name"]: one["pid"] for one in own.status()["processes"]} == before
    own.control("rcpthosts", "a.example")
    assert own.stop() == 0
