"""The processes of a service that runs, looked at from outside: what the kernel knows of each.

Which calls and how much memory it may have, which descriptors it was left with, whose signals it
heeds.  In a home of root's and in one of its owner's.
"""

import os
import resource
import signal
import smtplib
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from homes import Home, Place, Waiting, command
from openqmail.core.service.confine import seccomp
from openqmail.core.service.confine.hardening import MEMORY
from system_homes import SystemHome, system_home

ROLES = ("gate", "local", "remote", "send", "smtpd", "worker")
"""All but the supervisor."""
LISTENERS = {
    "run/admin": {"supervisor", "send"},
    "run/submit": {"supervisor", "smtpd"},
    "tcp": {"supervisor", "smtpd"},
}
"""A socket that listens -> who has it."""
IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM, signal.SIGUSR2)


class Facts:
    """Of one process: `descriptors` by number are what it is, and whether it may be written to."""

    def __init__(self, name: str, pid: int) -> None:
        self.name, self.pid = name, pid
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        self.status = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self.descriptors: dict[int, tuple[str, bool]] = {}
        for number in map(int, os.listdir(f"/proc/{pid}/fd")):
            what = os.readlink(f"/proc/{pid}/fd/{number}")
            flags = Path(f"/proc/{pid}/fdinfo/{number}").read_text().partition("flags:")[2].split()[0]
            self.descriptors[number] = (what, int(flags, 8) & os.O_ACCMODE != os.O_RDONLY)

    def __repr__(self) -> str:
        return f"{self.name} ({self.pid})"

    def limit(self, what: str) -> list[str]:
        """Soft and hard."""
        lines = Path(f"/proc/{self.pid}/limits").read_text().splitlines()
        (found,) = [line for line in lines if line.startswith(what)]
        return found.removeprefix(what).split()[:2]

    def terminal(self) -> int:
        """The number of its terminal; 0 for none."""
        return int(Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[4])


def processes(home: Home) -> list[Facts]:
    return [Facts(one["name"], one["pid"]) for one in home.status()["processes"]]


def alice(home: Home) -> str:
    return home.address("alice") if isinstance(home, SystemHome) else "alice@a.example"


@pytest.fixture(scope="module", params=["of root's", "of its owner's"])
def served(request: pytest.FixtureRequest) -> Iterator[Home]:
    """Started by somebody with few descriptors, who would have core dumps; with a worker that delivers
    and one that looks recipients up."""
    if request.param == "of root's":
        if os.geteuid():
            pytest.skip("only root makes users and runs as them")
        with system_home("alice") as made:
            yield from started(made)
    else:
        with Place() as place:
            yield from started(place.home("a.example", "alice"))


def started(home: Home) -> Iterator[Home]:
    home.control("checkrcpt", "1")
    kept = {which: resource.getrlimit(which) for which in (resource.RLIMIT_NOFILE, resource.RLIMIT_CORE)}
    umask = os.umask(0o022)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (250, kept[resource.RLIMIT_NOFILE][1]))
        resource.setrlimit(resource.RLIMIT_CORE, (kept[resource.RLIMIT_CORE][1],) * 2)
        home.start()
    finally:
        os.umask(umask)
        for which, limits in kept.items():
            resource.setrlimit(which, limits)
    with smtplib.SMTP("127.0.0.1", home.port, "client.example", 20) as client:
        assert client.sendmail("", [alice(home)], b"Subject: warm\r\n\r\n") == {}
    home.wait_mails("alice", 1)
    for _ in Waiting("both workers are told of"):
        if Counter(one["name"] for one in home.status()["processes"])["worker"] == 2:
            break
    yield home


def test_each_has_the_privileges_that_its_job_needs(served: Home) -> None:
    found = processes(served)
    assert {one.name for one in found} == {"supervisor", *ROLES}
    for one in found:
        if one.name != "worker":
            forgone = one.name not in ("supervisor", "local")
            assert one.status["NoNewPrivs"] == str(int(forgone)), one
    workers = sorted(one.status["NoNewPrivs"] for one in found if one.name == "worker")
    assert workers == ["0", "1"], "programs of users may be setuid; who looks recipients up starts none"


@pytest.mark.skipif(seccomp.lacking() is not None, reason="pyseccomp is not installed")
def test_who_speaks_with_strangers_has_a_filter_of_calls(served: Home) -> None:
    for one in processes(served):
        assert one.status["Seccomp"] == ("2" if one.name in seccomp.ROLES else "0"), one


def test_each_is_held_to_its_limits(served: Home) -> None:
    for one in processes(served):
        most = str(MEMORY.get(one.name, "unlimited"))
        assert one.limit("Max data size")[0] == most, one
        assert one.limit("Max core file size") == ["0", "0"], one
        assert os.stat(f"/proc/{one.pid}/mem").st_uid == 0, f"{one} can be looked into"
        assert one.status["Umask"] == "0077", one
        soft, hard = one.limit("Max open files")
        assert soft == hard, f"{one} has too few descriptors for many connections"


def test_signals_are_the_supervisors_alone(served: Home) -> None:
    for one in processes(served):
        ignored = {number for number in IGNORED if int(one.status["SigIgn"], 16) >> (number - 1) & 1}
        assert ignored == (set() if one.name == "supervisor" else set(IGNORED)), one


def test_sockets_of_a_home_are_open_to_whom_they_are_for(served: Home) -> None:
    modes = {name: stat.S_IMODE((served.path / "run" / name).stat().st_mode) for name in ("submit", "admin")}
    assert modes == {"submit": 0o666 if isinstance(served, SystemHome) else 0o600, "admin": 0o600}


# --- descriptors ----------------------------------------------------------------------------


def listeners(home: Home) -> dict[str, str]:
    """`socket:[INODE]` of each socket that listens for this home -> `run/NAME`, or `tcp`."""
    found = {}
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        words = line.split(maxsplit=7)
        if len(words) == 8 and words[7].startswith(f"{home.path}/run/"):
            found[f"socket:[{words[6]}]"] = words[7].removeprefix(f"{home.path}/")
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[1].endswith(f":{home.port:04X}") and words[3] == "0A":
            found[f"socket:[{words[9]}]"] = "tcp"
    return found


def shared(home: Home, found: list[Facts]) -> dict[str, list[Facts]]:
    """Connections that several processes have, and ends of pipes to write to."""
    holders: dict[str, list[Facts]] = {}
    for one in found:
        for what, writes in set(one.descriptors.values()):
            if what.startswith("socket:") or (what.startswith("pipe:") and writes):
                holders.setdefault(what, []).append(one)
    known = listeners(home)
    return {what: some for what, some in holders.items() if len(some) > 1 and what not in known}


def test_no_connection_is_in_two_hands(served: Home) -> None:
    """A fork has all that its parent has: what a child does not need it must have closed, or its
    peer never sees the end."""
    for _ in Waiting("whoever has handed one over has closed it", 5):
        if not shared(served, processes(served)):
            break


def test_only_those_listen_who_serve(served: Home) -> None:
    known = listeners(served)
    assert set(known.values()) == {*LISTENERS}
    found = {
        name: {one.name for one in processes(served) if name in listens(one, known)} for name in LISTENERS
    }
    assert found == LISTENERS


def listens(one: Facts, known: dict[str, str]) -> set[str]:
    return {known[what] for what, _ in one.descriptors.values() if what in known}


def test_only_the_queue_has_mail_of_the_queue_and_only_the_supervisor_the_lock(served: Home) -> None:
    for one in processes(served):
        files = {
            what.removeprefix(f"{served.path}/")
            for number, (what, _) in one.descriptors.items()
            if what.startswith("/") and not what.startswith("/memfd:") and number not in (1, 2)
        } - {"/dev/null"}
        assert one.descriptors[0][0] == "/dev/null", one
        if one.name == "supervisor":
            assert files == {"run/lock"}
        elif one.name == "send":
            assert {name.split("/")[0] for name in files} == {"queue"}
        elif one.name == "remote":
            assert files == {"queue/lock/tcpto"}  # which hosts are silent, and no mail
        elif one.name == "worker":
            assert all("/Maildir" in name for name in files), files
        else:
            assert files == set(), one


# --- the terminal ---------------------------------------------------------------------------


def spawned(home: Home, code: str, **descriptors: int) -> None:
    """Starts the service behind a piece of Python, in the same process."""
    words = [*command(), "--home", str(home.path), "run"]
    with home.log.open("ab") as log:
        home.process = subprocess.Popen(
            [sys.executable, "-c", f"{code}\nimport os\nos.execv({words[0]!r}, {words!r})"],
            **({"stdin": subprocess.DEVNULL, "stdout": log} | descriptors),  # type: ignore[arg-type]
            stderr=log,
            start_new_session=True,
        )
    home.wait_serving()


def test_only_the_supervisor_has_the_terminal_that_it_was_started_from(home: Home) -> None:
    ours, terminal = os.openpty()
    os.fchmod(terminal, 0o666)  # else who runs it could not open it anew
    try:
        take = "import fcntl, termios\nfcntl.ioctl(0, termios.TIOCSCTTY, 0)"
        spawned(home, take, stdin=terminal, stdout=terminal)
        name = os.ttyname(terminal)
        for one in processes(home):
            if one.name == "supervisor":
                assert one.terminal() and one.descriptors[0] == (name, True)
            else:
                assert one.terminal() == 0, one
                assert one.descriptors[0] == ("/dev/null", False), f"{one} may read what is typed"
                assert one.descriptors[1][0] == name and not readable(one, 1), one
        assert home.stop() == 0
    finally:
        os.close(ours)
        os.close(terminal)


def readable(one: Facts, number: int) -> bool:
    flags = Path(f"/proc/{one.pid}/fdinfo/{number}").read_text().partition("flags:")[2].split()[0]
    return int(flags, 8) & os.O_ACCMODE != os.O_WRONLY


# --- a kernel that lacks something ----------------------------------------------------------

WITHOUT_LANDLOCK = """
import errno, os, pyseccomp as seccomp
calls = seccomp.SyscallFilter(seccomp.ALLOW)
if os.geteuid() == 0:
    calls.set_attr(seccomp.Attr.CTL_NNP, 0)  # else new privileges would be given up here already
calls.add_rule(seccomp.ERRNO(errno.ENOSYS), "landlock_create_ruleset")
calls.load()
"""


@pytest.mark.skipif(seccomp.lacking() is not None, reason="pyseccomp is not installed")
def test_a_kernel_without_landlock_is_named_in_the_log_by_each_that_would_have_walls(home: Home) -> None:
    spawned(home, WITHOUT_LANDLOCK)
    for role in ("gate", "send", "remote", "smtpd"):
        assert home.tail(100_000).count(f"Z {role}: this kernel has no Landlock") == 1, home.tail()
    if os.geteuid() == 0:
        found = {one.name: one.status["NoNewPrivs"] for one in processes(home)}
        assert found == dict.fromkeys(found, "1") | {"supervisor": "0", "local": "0"}, "walls are not all"
    assert home.stop() == 0


def test_a_start_without_a_standard_error_says_why_it_is_none(home: Home) -> None:
    words = [*command(), "--home", str(home.path), "run"]
    ran = subprocess.run(
        ["sh", "-c", 'exec "$@" 2>&-', "sh", *words], stdout=subprocess.PIPE, text=True, check=False
    )
    assert (ran.returncode, "standard error is closed" in ran.stdout) == (100, True)
    assert not (home.path / "run" / "lock").exists()
