"""`openqmail mailbox`: one more mailbox, known at once, and mistakes that change nothing."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from openqmail.core.commands import boxes
from openqmail.core.control import Users, compile_cdb, parse_assign
from openqmail.core.control.replacing import LOCK

Run = Callable[..., Any]


def test_an_added_mailbox_is_known_to_who_looks_already(made: Path, run: Run) -> None:
    users = Users(str(made / "users" / "cdb"))
    assert users.find(b"carol") is None
    ran = run("--home", made, "mailbox", "add", "carol", "dave.x")
    assert ran.code == 0
    assert f"made mailbox carol at {made}/mail/carol/Maildir/" in ran.out
    user = users.find(b"carol")
    assert user is not None
    assert user.home == os.fsencode(made / "mail" / "carol")
    assert sorted(os.listdir(made / "mail" / "carol" / "Maildir")) == ["cur", "new", "tmp"]
    assert (made / "mail" / "carol").stat().st_uid == made.stat().st_uid
    assert users.find(b"dave.x-list") is not None
    assert users.find(b"alice") is not None, "those that were there stay"


def test_lines_of_the_administrator_stay(made: Path, run: Run) -> None:
    assign = made / "users" / "assign"
    own = b"+:alias:1:1:/nowhere:-::\n.\nwhatever comes after the dot\n"
    assign.write_bytes(assign.read_bytes().removesuffix(b".\n") + own)
    assert run("--home", made, "mailbox", "add", "carol").code == 0
    content = assign.read_bytes()
    assert content.endswith(b".\nwhatever comes after the dot\n")
    assert b"+:alias:" in content
    assert compile_cdb(parse_assign(content)[0]) == (made / "users" / "cdb").read_bytes()


def test_it_lists_them(made: Path, run: Run) -> None:
    ran = run("--home", made, "mailbox", "list")
    assert ran.out == f"alice  {made}/mail/alice\nbob    {made}/mail/bob\n"
    assert run("--home", made, "mailbox", "list", "bob").out == f"bob  {made}/mail/bob\n"
    assert run("--home", made, "mailbox", "list", "nobody").code == 1


def contents(home: Path) -> dict[Path, bytes]:
    """Of all files but the empty one that is locked."""
    return {path: path.read_bytes() for path in home.rglob("*") if path.is_file() and path.name != LOCK}


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["alice"], "there is a mailbox 'alice'"),
        (["carol", "alice"], "there is a mailbox 'alice'"),
        (["carol", "carol"], "named twice"),
        (["Carol"], "capital"),
        (["a/b"], "cannot be a mailbox"),
        (["-x"], "required: NAME"),
        ([], "required: NAME"),
    ],
)
def test_mistakes_change_nothing(made: Path, run: Run, names: list[str], why: str) -> None:
    before = contents(made)
    ran = run("--home", made, "mailbox", "add", *names)
    assert ran.code == 100
    assert why in ran.err
    assert contents(made) == before
    assert sorted(os.listdir(made / "mail")) == ["alice", "bob"]


def test_a_damaged_assign_is_named_with_its_line(made: Path, run: Run) -> None:
    (made / "users" / "assign").write_text("=alice:x\n.\n")
    ran = run("--home", made, "mailbox", "add", "carol")
    assert ran.code == 100
    assert "users/assign, line 1: has 1 colons" in ran.err


def test_a_failure_takes_back_what_was_made(made: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = boxes.replace

    def full(path: str, content: bytes) -> None:
        if path.endswith("cdb"):
            raise OSError(28, "No space left on device", path)
        replace(path, content)

    monkeypatch.setattr(boxes, "replace", full)
    before = (made / "users" / "assign").read_bytes()
    assert run("--home", made, "mailbox", "add", "carol").code == 111
    assert (made / "users" / "assign").read_bytes() == before
    assert not (made / "mail" / "carol").exists()


def test_many_at_a_time_lose_no_line(made: Path) -> None:
    program = "import sys; from openqmail.core.commands.main import main; sys.exit(main(sys.argv[1:]))"
    names = [f"user{number}" for number in range(4)]
    children = [
        subprocess.Popen([sys.executable, "-c", program, "--home", str(made), "mailbox", "add", name])
        for name in names
    ]
    assert [child.wait(60) for child in children] == [0] * 4
    users = Users(str(made / "users" / "cdb"))
    assert all(users.find(name.encode()) for name in [*names, "alice", "bob"])


def test_a_missing_assign_is_no_empty_one(run: Run, made: Path) -> None:
    before = (made / "users" / "cdb").read_bytes()
    (made / "users" / "assign").unlink()
    ran = run("--home", made, "mailbox", "add", "carol")
    assert ran.code == 100
    assert "users/assign" in ran.err and "restore it" in ran.err
    assert (made / "users" / "cdb").read_bytes() == before
