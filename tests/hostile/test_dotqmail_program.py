"""A user's program that is up to no good: it gets its message, and reaches nothing of ours.

A double stands in for the interpreter's programs (tests/support/hostile_service.py).  Root only.
"""

import json
import os
import shutil
import smtplib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from homes import Waiting
from system_homes import SystemHome, system_home

SUPPORT = Path(__file__).resolve().parents[1] / "support"
PYTHON = shutil.which("python3", path="/usr/bin:/bin:/usr/local/bin")

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root makes users and runs as them"),
    pytest.mark.skipif(PYTHON is None, reason="there is no Python that all users can run"),
]

SECRETS = {"users/smtpauth": "gate"}


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[SystemHome]:
    """With secrets, and mail of Bob's; not started."""
    with system_home("alice", "bob") as made:
        for name, role in SECRETS.items():
            (made.path / name).write_text("secret\n")
            (made.path / name).chmod(0o400)
            os.chown(made.path / name, made.account(role).pw_uid, 0)
        made.write("bob", "Maildir/new/1.Q.private", "for Bob alone\n", 0o600)
        made.write("alice", ".qmail-program", "./Maildir/\n")
        program = made.room / "program"
        shutil.copy(SUPPORT / "hostile_program.py", program)
        program.chmod(0o755)
        service = made.room / "openqmail"
        service.write_text(f'#!/bin/sh\nexec {sys.executable} {SUPPORT / "hostile_service.py"} "$@"\n')
        service.chmod(0o755)
        monkeypatch.setenv("OPENQMAIL", str(service))
        yield made


def start(home: SystemHome, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    """The pids are not known before; the room is scanned for what belongs to the service."""
    words = [PYTHON, str(home.room / "program"), verb, str(home.room), str(home.path)]
    monkeypatch.setenv("OQT_PROGRAM", json.dumps(words))
    home.start()


def send(home: SystemHome, *recipients: str, body: str = "hello") -> None:
    with smtplib.SMTP("127.0.0.1", home.port, "client.example", 20) as client:
        assert client.sendmail("", recipients, f"Subject: x\r\n\r\n{body}\r\n") == {}


def report(home: SystemHome) -> dict[str, Any]:
    file = Path(home.people["alice"].pw_dir) / "report"
    for _ in Waiting(f"the program has reported\n{home.tail()}"):
        if file.exists():
            found: dict[str, Any] = json.loads(file.read_text())
            file.unlink()
            return found
    raise AssertionError


@pytest.mark.parametrize("size", [10, 1 << 20])
def test_a_program_has_its_message_and_no_descriptor_of_ours(
    size: int, home: SystemHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large message reaches the worker as a descriptor; files of syncs and mail under way are open, too."""
    start(home, monkeypatch, "look")
    send(home, home.address("alice"))
    home.wait_mails("alice", 1)
    send(home, home.address("alice", "program"), body="\r\n".join(["x" * 70] * (size // 72)))
    found = report(home)
    assert set(found["descriptors"]) == {"0", "1", "2"}, found["descriptors"]
    assert found["descriptors"]["0"].startswith("/memfd:message")
    assert found["descriptors"]["1"].startswith("pipe:")
    assert found["message"] >= size // 72 * 71


def test_a_program_reaches_nothing_of_ours_and_nothing_of_others(
    home: SystemHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(home, monkeypatch, "look")
    send(home, home.address("alice", "program"))
    found = report(home)
    alice = home.people["alice"]
    assert found["ids"] == [[alice.pw_uid] * 3, [alice.pw_gid] * 3, [alice.pw_gid]]

    readable, writable = (set(found["paths"][one]) for one in ("readable", "writable"))
    hers = {path for path in writable if path.startswith(alice.pw_dir)}
    assert writable == hers and f"{alice.pw_dir}/Maildir/new" in hers
    assert f"{home.path}/control/me" in readable, "it has looked where it should"
    for private in (home.path / "queue", home.path / "run", home.maildir("bob")):
        assert not [path for path in readable if path.startswith(str(private))]
    assert not readable & {str(home.path / name) for name in SECRETS}
    assert found["sockets"] == {"admin": "EACCES", "submit": "done"}

    mine = found["processes"].pop(str(found["parent"]))
    assert mine.pop("signal") == "done", "its worker is its own user's"
    assert set(mine.values()) <= {"EACCES", "EPERM"}, "and closed all the same"


def test_a_program_can_do_nothing_to_the_other_processes(
    home: SystemHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told who they are, by a service that runs already."""
    listing = home.room / "pids"
    program = home.room / "program"
    text = program.read_text().replace(
        "main(*sys.argv[1:])", f'main(*sys.argv[1:], *open("{listing}").read().split())'
    )
    program.write_text(text)
    start(home, monkeypatch, "look")
    send(home, home.address("bob"))
    home.wait_mails("bob", 2)
    processes = home.status()["processes"]
    listing.write_text(" ".join(str(one["pid"]) for one in processes))
    listing.chmod(0o644)
    send(home, home.address("alice", "program"))
    found = report(home)["processes"]
    assert {one["name"] for one in processes} == {
        "supervisor", "gate", "local", "worker", "remote", "send", "smtpd",
    }  # fmt: skip
    for one in processes:
        tried = found[str(one["pid"])]
        assert set(tried.values()) <= {"EACCES", "EPERM"}, (one["name"], tried)


def test_a_program_that_kills_its_worker_harms_its_user_alone(
    home: SystemHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(home, monkeypatch, "kill")
    before = {one["name"]: one["pid"] for one in home.status()["processes"]}
    send(home, home.address("alice", "program"), home.address("bob"))
    home.wait_mails("bob", 2)
    for _ in Waiting(f"its delivery is deferred\n{home.tail()}"):
        if b"deferral: " in home.log.read_bytes():
            break
    send(home, home.address("alice"))
    home.wait_mails("alice", 1)
    after = {one["name"]: one["pid"] for one in home.status()["processes"]}
    assert {name: after[name] for name in before} == before
