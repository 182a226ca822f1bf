"""The same files, reports and forwards as qmail-local's, for each recorded case that knows only
Maildirs, mbox files, forwards and comments: as recorded, and once more with a Maildir where a case
has `./Mailbox`, whose searches, checks and trace lines are the same.
"""

import asyncio
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from openqmail.core.control import Home, User
from openqmail.core.local import LocalDeliveries
from openqmail.core.ports import LocalReport
from openqmail.core.values import Outcome
from openqmail.core.world import PosixDisk

EXITS = {Outcome.SUCCESS: 0, Outcome.FAILURE: 100, Outcome.DEFERRAL: 111}
MAKE = "/var/qmail/bin/maildirmake "

OTHER = re.compile(r"^[|+]", re.MULTILINE)
"""Lines that are not obeyed yet."""
MBOX = re.compile(r"^[./].*[^/ \t\n][ \t]*$", re.MULTILINE)
FROM = re.compile(r"^(From .*) \w{3} \w{3} \d\d \d\d:\d\d:\d\d \d{4}$", re.MULTILINE)

NOT_OURS = {
    "safety-relative-home",  # is a usage error; ours is a deferral that names users/assign
}


def as_it_is(text: str) -> str:
    return text


def with_maildir(text: str) -> str:
    return text.replace("./Mailbox", "./Maildir/")


def is_covered(case: dict[str, Any], change: Callable[[str], str]) -> bool:
    texts = [file["content"] for file in case["qmail_files"].values()] + [
        case["args"][8 if case["args"][0] == "--" else -1]
    ]
    return (
        case["args"][0] == "--"
        and case["case"] not in NOT_OURS
        and case["queue_exit"] == "0"
        and not any("owner" in name for name in case["qmail_files"])
        and not any(OTHER.search(text) for text in texts)
        and not (change is with_maildir and any(MBOX.search(change(text)) for text in texts))
        and not (case["case"] == "search-unreadable" and os.getuid() == 0)
    )


def prepare(case: dict[str, Any], home: Path, change: Callable[[str], str]) -> None:
    command = case["prepared"]
    if command.startswith(MAKE):
        command = f"mkdir -p {command.removeprefix(MAKE)}/{{tmp,new,cur}}"
    if command:
        subprocess.run(["bash", "-c", command], cwd=home, check=True)
    if change is with_maildir and "maildir" not in case["case"]:
        for part in ("tmp", "new", "cur"):
            (home / "Maildir" / part).mkdir(parents=True, exist_ok=True)
    for name, file in case["qmail_files"].items():
        path = os.path.join(os.fsencode(home), name.encode("latin-1"))
        content = change(file["content"]).replace("/home/alice", str(home))
        with open(path, "wb") as opened:
            opened.write(content.encode("latin-1"))
        os.chmod(path, int(file["mode"], 8))
    home.chmod(int(case["home_mode"], 8))


class One:
    """A directory that holds one user."""

    def __init__(self, user: User) -> None:
        self._user = user

    def find(self, local: bytes) -> User | None:
        return self._user


def run(case: dict[str, Any], home: Path, rig: Any, change: Callable[[str], str]) -> LocalReport:
    given = [word.encode("latin-1") for word in case["args"][1:]]
    name, place, local, dash, ext, domain, sender, default = given
    where = os.fsencode(home) if place == b"/home/alice" else place
    given_default = change(default.decode("latin-1")).encode("latin-1")
    settings = msgspec.structs.replace(rig.settings, defaultdelivery=given_default)
    job = rig.job(local + b"@" + domain, case["message"].encode("latin-1"), sender=sender)

    async def life() -> LocalReport:
        users = One(User(name, os.getuid(), os.getgid(), where, dash, ext))
        deliveries = LocalDeliveries(Home(str(rig.root)), settings, PosixDisk(), rig.clock, users)
        try:
            return await deliveries.deliver(job)
        finally:
            await deliveries.close()

    return asyncio.run(life())


def head_of(case: dict[str, Any]) -> str | None:
    """The trace lines that qmail-local put on top of a file."""
    for left in case["left_in_home"]:
        found = re.search(r"^Return-Path: .*\nDelivered-To: .*\n", left.get("content") or "", re.MULTILINE)
        if found:
            return found.group()
    return None


def recorded(vectors: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((vectors / "notqmail/dotqmail/dotqmail.json").read_text())
    return found


def test_every_case_leaves_what_was_recorded(vectors: Path, rig: Any, tmp_path: Path) -> None:
    covered = [case for case in recorded(vectors) if is_covered(case, as_it_is)]
    assert sum("mbox" in case["case"] for case in covered) >= 14
    for number, case in enumerate(covered):
        home = tmp_path / f"case{number}"
        home.mkdir()
        prepare(case, home, as_it_is)
        report = run(case, home, rig, as_it_is)
        what = case["case"]
        assert EXITS[report.result.outcome] == case["exit"], what
        text = re.sub(r"qp \d+", "qp N", report.result.text.decode("latin-1"))
        assert text == re.sub(r"qp \d+", "qp N", case["stdout"] + case["stderr"]), what
        home.chmod(0o755)
        for left in case["left_in_home"]:
            if left["type"] == "file" and "/" not in left["path"]:
                path = os.path.join(os.fsencode(home), left["path"].encode("latin-1"))
                with open(path, "rb") as file:
                    content = file.read().decode("latin-1")
                assert FROM.sub(r"\1 DATE", content) == FROM.sub(r"\1 DATE", left["content"]), what
                assert f"{os.stat(path).st_mode & 0o7777:o}" == left["mode"], what


def test_every_case_is_as_recorded_with_a_maildir(vectors: Path, rig: Any, tmp_path: Path) -> None:
    covered = [case for case in recorded(vectors) if is_covered(case, with_maildir)]
    assert len(covered) >= 50
    for number, case in enumerate(covered):
        home = tmp_path / f"case{number}"
        home.mkdir()
        prepare(case, home, with_maildir)
        report = run(case, home, rig, with_maildir)
        what = case["case"]
        text = report.result.text.decode("latin-1")
        assert EXITS[report.result.outcome] == case["exit"], what
        wanted = case["stdout"] + case["stderr"]
        assert re.sub(r"qp \d+", "qp N", text) == re.sub(r"qp \d+", "qp N", wanted), what
        expected = head_of(case)
        contents = [Path(os.fsdecode(file.path)).read_bytes().decode("latin-1") for file in report.written]
        assert (
            len(contents) == sum("content" in left for left in case["left_in_home"]) or what == "mbox-twice"
        )
        for content in contents:
            assert content == f"{expected}{case['message']}", what
        if not case["queued"]:
            assert report.forward is None, what
            continue
        (queued,) = case["queued"]
        assert report.forward is not None, what
        recipients = b"".join(b"T%s\0" % address for address in report.forward.recipients)
        envelope = b"F%s\0%s\0" % (report.forward.sender, recipients)
        assert envelope.decode("latin-1") == with_maildir(queued["envelope"]), what
        header = report.forward.header.split(b"\n", 1)[1].decode("latin-1")
        assert header + case["message"] == queued["message"], what
        home.chmod(0o755)
