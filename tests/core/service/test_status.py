"""`openqmail status`, for people and with --json: each process, as whom, of which generation, its memory
and its work; while it serves, while older ones end what they have, and while all of it ends."""

import fcntl
import os
import pwd
import re
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from homes import OWNER, Home, Place, Waiting
from openqmail.core.commands.status import in_units
from system_homes import SystemHome, system_home

ROLES = ["gate", "local", "remote", "send", "smtpd", "supervisor"]


class Talk:
    """A client that has begun a message and does not end it yet."""

    def __init__(self, home: Home, recipient: str) -> None:
        self.peer = socket.create_connection(("127.0.0.1", home.port), 30)
        self.file = self.peer.makefile("rwb")
        assert self.file.readline().startswith(b"220")
        self.say(f"HELO c\r\nMAIL FROM:<>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n")
        assert [self.file.readline()[:3] for _ in range(4)] == [b"250", b"250", b"250", b"354"]

    def say(self, text: str) -> None:
        self.file.write(text.encode())
        self.file.flush()

    def end(self) -> bytes:
        """The reply to the whole message."""
        self.say("Subject: x\r\n\r\nx\r\n.\r\n")
        return self.file.readline()

    def close(self) -> None:
        self.file.close()
        self.peer.close()


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """Another host that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def processes(home: Home) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = home.status()["processes"]
    return found


def names(home: Home) -> list[str]:
    return sorted(one["name"] for one in processes(home))


def work(home: Home) -> dict[str, int]:
    return {one["name"]: one["work"] for one in processes(home)}


def wait_work(home: Home, **wanted: int) -> None:
    """Until these processes have told of so much work, which they do once a second."""
    for _ in Waiting(f"{home.me} has {wanted} in hand"):
        if wanted.items() <= work(home).items():
            return


def for_people(home: Home) -> list[tuple[str, int, str, int, str, int]]:
    """Name, pid, user, generation, memory and work of each line on a process."""
    pattern = re.compile(r"  (\w+) (\d+) +(\S+), generation (\d+), ([\d.]+ \w+), (\d+) in hand")
    lines = home.run("status", check=False).stdout.splitlines()
    found = [pattern.fullmatch(line) for line in lines]
    return [(m[1], int(m[2]), m[3], int(m[4]), m[5], int(m[6])) for m in found if m]


def assert_told_alike(home: Home) -> None:
    """What people see is what programs see; memory may change in between."""
    told = {one["pid"]: one for one in processes(home)}
    seen = for_people(home)
    assert {pid for _, pid, *_ in seen} == told.keys()
    for name, pid, user, generation, memory, in_hand in seen:
        one = told[pid]
        assert (name, user, generation) == (one["name"], pwd.getpwuid(one["uid"]).pw_name, one["generation"])
        assert in_hand == one["work"]
        assert memory.endswith(in_units(one["rss"]).partition(" ")[2])


def resident(pid: int) -> int:
    with open(f"/proc/{pid}/statm", encoding="ascii") as table:
        return int(table.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_each_process_is_shown_with_its_memory_and_work(home: Home, silent: socket.socket) -> None:
    home.control("smtproutes", f"far.example:[127.0.0.1]:{silent.getsockname()[1]}")
    home.control("checkrcpt", "0")  # who checks at RCPT is a worker, too
    home.start()
    assert names(home) == ROLES
    for one in processes(home):
        assert one["uid"] == (pwd.getpwnam(OWNER).pw_uid if os.getuid() == 0 else os.getuid())
        assert one["generation"] == 1
        assert 0.5 < one["rss"] / resident(one["pid"]) < 2
        assert one["work"] == 0
    assert_told_alike(home)

    near, far = Talk(home, "alice@a.example"), Talk(home, "x@far.example")
    wait_work(home, smtpd=2, send=0, remote=0)
    assert far.end()[:3] == b"250"
    far.close()
    wait_work(home, smtpd=1, send=1, remote=1)
    assert home.status()["running"] == {"local": 0, "remote": 1}
    assert near.end()[:3] == b"250"
    near.close()
    wait_work(home, smtpd=0, send=1, remote=1)
    home.wait_mails("alice", 1)
    assert names(home) == sorted([*ROLES, "worker"])
    assert_told_alike(home)


def test_older_generations_are_shown_until_they_have_ended_their_work(home: Home) -> None:
    home.start()
    talk = Talk(home, "alice@a.example")
    wait_work(home, smtpd=1)
    before = {one["name"]: one["pid"] for one in processes(home)}
    home.signal(signal.SIGHUP)
    for _ in Waiting("only the front end of the old generation is left"):
        found = Counter((one["name"], one["generation"]) for one in processes(home))
        if found == Counter([(role, 2) for role in ("local", "remote", "smtpd")]) + Counter(
            [(role, 1) for role in ("gate", "send", "smtpd", "supervisor")]
        ):
            break
    [old] = [one for one in processes(home) if (one["name"], one["generation"]) == ("smtpd", 1)]
    assert old["pid"] == before["smtpd"]
    assert old["work"] == 1
    assert_told_alike(home)
    assert talk.end()[:3] == b"250"
    talk.close()
    for _ in Waiting("the old front end has gone"):
        if before["smtpd"] not in {one["pid"] for one in processes(home)}:
            break
    assert home.stop() == 0


def test_while_it_ends_status_tells_who_is_still_at_work(home: Home, silent: socket.socket) -> None:
    home.control("smtproutes", f"far.example:[127.0.0.1]:{silent.getsockname()[1]}")
    home.control("checkrcpt", "0")  # who checks at RCPT is a worker, too
    home.start()
    far = Talk(home, "x@far.example")
    assert far.end()[:3] == b"250"
    far.close()
    near = Talk(home, "alice@a.example")
    wait_work(home, smtpd=1, send=1, remote=1)
    home.signal(signal.SIGTERM)
    for _ in Waiting("it ends"):
        if home.status()["state"] == "draining":
            break
    assert names(home) == ROLES
    assert work(home)["smtpd"] == 1
    ran = home.run("status", check=False)
    assert ran.returncode == 100, "it does not serve any more"
    assert ": draining, process " in ran.stdout
    assert_told_alike(home)
    assert near.end()[:3] == b"250"
    near.close()
    for _ in Waiting("the front end has gone, and the queue is still at work"):
        if "smtpd" not in names(home):
            break
    assert home.status()["state"] == "draining"
    assert work(home)["send"] == work(home)["remote"] == 1
    assert_told_alike(home)
    assert home.stop() == 111, "told a second time, it ends at once, with a message in its journal"


@pytest.fixture
def system() -> Iterator[SystemHome]:
    with system_home("alice", "bob") as made:
        yield made


@pytest.mark.skipif(os.getuid() != 0, reason="only root makes users")
def test_each_process_is_shown_as_its_user_and_each_worker_as_whom_it_delivers_to(system: SystemHome) -> None:
    system.control("checkrcpt", "0")
    system.start()
    for user in ("alice", "bob"):
        talk = Talk(system, system.address(user))
        assert talk.end()[:3] == b"250"
        talk.close()
        system.wait_mails(user, 1)
    for _ in Waiting("both workers are told of"):
        if names(system).count("worker") == 2:
            break
    uids = {one["name"]: one["uid"] for one in processes(system) if one["name"] != "worker"}
    assert uids == {"supervisor": 0, "local": 0} | {
        role: system.account(role).pw_uid for role in ("gate", "remote", "send", "smtpd")
    }
    assert system.workers().keys() == {one.pw_uid for one in system.people.values()}
    assert_told_alike(system)


def test_who_has_died_is_shown_no_more_and_its_successor_is(place: Place) -> None:
    home = place.home("a.example", "alice")
    home.start()
    before = {one["name"]: one["pid"] for one in processes(home)}
    os.kill(before["gate"], signal.SIGKILL)
    for _ in Waiting("there is another gate"):
        now = {one["name"]: one["pid"] for one in processes(home)}
        if now.get("gate", before["gate"]) != before["gate"]:
            break
    assert {name: pid for name, pid in now.items() if name != "gate"} == {
        name: pid for name, pid in before.items() if name != "gate"
    }
    assert names(home) == ROLES


def test_a_service_that_waits_for_another_qmail_send_says_so_and_is_starting(home: Home) -> None:
    with (home.path / "queue" / "lock" / "sendmutex").open("ab") as mutex:
        fcntl.flock(mutex, fcntl.LOCK_EX)
        home.spawn()
        for _ in Waiting("it says that it waits"):
            if "a qmail-send runs on this queue; stop it first; waiting" in home.tail():
                break
        found = home.status()
        listed = home.run("queue", "list", check=False)
        told = home.run("status", check=False)
    assert (found["state"], found["queue"]) == ("starting", None)
    assert (told.returncode, "starting" in told.stdout, "not opened yet" in told.stdout) == (100, True, True)
    assert (listed.returncode, "its queue is not opened yet" in listed.stderr) == (100, True)
    home.wait_serving()
    assert home.status()["queue"]["messages"] == 0
    assert home.stop() == 0
