"""Processes that die or cannot be started, in moments that tests/processes does not come by."""

import contextlib
import os
import pwd
import resource
import signal
import smtplib
import socket
import subprocess
from typing import Any

import pytest

from homes import OWNER, Home, Waiting


def pids(home: Home) -> dict[str, int]:
    return {one["name"]: one["pid"] for one in home.status()["processes"]}


def wait_log(home: Home, text: str, count: int = 1) -> None:
    for _ in Waiting(f"the log of {home.me} says {text!r}"):
        if home.tail(100_000).count(text) >= count:
            return


def send(home: Home, text: str) -> None:
    with smtplib.SMTP("127.0.0.1", home.port, timeout=30) as smtp:
        smtp.sendmail("s@c.example", ["alice@a.example"], f"Subject: {text}\r\n\r\n{text}\r\n")


def begin_message(home: Home) -> socket.socket:
    """A client in the middle of a message, which a stop waits for."""
    peer = socket.create_connection(("127.0.0.1", home.port), 30)
    with peer.makefile("rwb") as file:
        file.readline()
        file.write(b"HELO c\r\nMAIL FROM:<>\r\nRCPT TO:<alice@a.example>\r\nDATA\r\n")
        file.flush()
        assert [file.readline()[:3] for _ in range(4)] == [b"250", b"250", b"250", b"354"]
    return peer


def end_at_once(home: Home) -> None:
    """TERM a second time, when the first has been heard: signals that wait are one."""
    home.signal(signal.SIGTERM)
    for _ in Waiting("it ends"):
        if not (home.path / "run/submit").exists():
            break
    home.signal(signal.SIGTERM)


def test_a_stop_whose_queue_has_died_does_not_say_that_all_is_settled(home: Home) -> None:
    home.control("concurrencylocal", "0")
    home.start()
    send(home, "kept")
    before = pids(home)
    with begin_message(home):
        home.signal(signal.SIGTERM)
        for _ in Waiting("it ends"):
            if home.status()["state"] == "draining":
                break
        os.kill(before["send"], signal.SIGKILL)
        home.signal(signal.SIGTERM)
        assert home.process is not None
        assert home.process.wait(30) == 111, "with 0 another qmail would be given the queue"
    assert "queue settle" in home.tail()
    home.process = None
    home.control("concurrencylocal", "10")
    home.start()
    [mail] = home.wait_mails("alice", 1)
    assert mail.endswith(b"kept\n")
    assert home.stop() == 0


def test_who_dies_is_started_anew_and_the_log_says_so(home: Home) -> None:
    home.start()
    before = pids(home)
    for role in ("gate", "local", "remote", "send", "smtpd"):
        os.kill(before[role], signal.SIGKILL)
        wait_log(home, f"alert: {role}, pid {before[role]}, ended by signal 9; it is started anew")
    for _ in Waiting("there is another of each"):
        with contextlib.suppress(AssertionError):  # nobody answers before there is a queue again
            after = pids(home)
            if after.keys() == before.keys() and len(set(before.values()) & set(after.values())) == 1:
                break
    assert after["supervisor"] == before["supervisor"]
    send(home, "and on it goes")
    home.wait_mails("alice", 1)


def most_processes(pid: int, most: str) -> None:
    """The soft limit of a process of the home's owner, set as that user, who has more than one already."""
    owner = pwd.getpwnam(OWNER) if os.getuid() == 0 else None
    who: dict[str, Any] = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []} if owner else {}
    subprocess.run(["prlimit", f"--pid={pid}", f"--nproc={most}:"], check=True, **who)


def test_a_system_without_room_for_a_process_is_waited_for(home: Home) -> None:
    home.start()
    before = pids(home)
    _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    most_processes(before["supervisor"], "1")
    os.kill(before["gate"], signal.SIGKILL)
    wait_log(home, "gate cannot be started: Resource temporarily unavailable; trying again", 2)
    assert pids(home).keys() == before.keys() - {"gate"}
    most_processes(before["supervisor"], "unlimited" if hard == resource.RLIM_INFINITY else str(hard))
    for _ in Waiting("there is a gate again"):
        if "gate" in pids(home):
            break
    send(home, "well")
    home.wait_mails("alice", 1)
    assert home.stop() == 0


@pytest.mark.parametrize("role", ["gate", "local", "send", "smtpd"])
def test_a_process_that_stands_still_is_killed_in_the_end_and_the_stop_comes_to_its_end(
    home: Home, role: str
) -> None:
    home.start()
    stopped = pids(home)[role]
    os.kill(stopped, signal.SIGSTOP)
    end_at_once(home)
    assert home.process is not None
    assert home.process.wait(30) == (111 if role == "send" else 0)
    assert f"{role}, pid {stopped}, does not end; killed" in home.tail()
    home.process = None


def test_without_its_supervisor_no_process_goes_on(home: Home) -> None:
    home.start()
    send(home, "so that there is a worker")
    home.wait_mails("alice", 1)
    others = set(home.pids_of_all()) - {home.process.pid if home.process else 0}
    assert len(others) == 7  # two workers: one was asked at RCPT, one has delivered
    assert home.process is not None
    home.process.kill()
    home.process.wait()
    for _ in Waiting("all have ended"):
        if not others & set(home.pids_of_all()):
            break
    home.process = None
    home.start()
    send(home, "and again")
    home.wait_mails("alice", 2)
