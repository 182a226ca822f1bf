"""`openqmail init`: what it makes, and that its mistakes leave nothing behind."""

import os
import pwd
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from openqmail.core.commands import init, writing
from openqmail.core.control import Home, Listener, User, Users, check, read_settings

Run = Callable[..., Any]


def test_it_makes_a_home_that_reads_well(room: Path, run: Run, owner: list[str]) -> None:
    path = room / "home"
    ran = run(
        "init", path, "--me", "A.example", "--user", "alice", "--user", "bob-x",
        "--local", "b.example", "--listen", "smtp 127.0.0.1:2626", "--listen", "smtp [::1]:2626", *owner,
    )  # fmt: skip
    assert (ran.code, ran.err) == (0, "")
    assert f"next: openqmail --home {path} run" in ran.out
    home = Home(str(path))
    found = read_settings(home)
    assert found.me == b"a.example"
    assert found.locals == found.rcpthosts == {b"a.example", b"b.example"}
    assert found.listen == (Listener("smtp", "127.0.0.1", 2626), Listener("smtp", "::1", 2626))
    assert "RELAYCLIENT" in found.rules.match("127.0.0.1").variables
    assert "RELAYCLIENT" in found.rules.match("::1").variables
    assert "RELAYCLIENT" not in found.rules.match("192.0.2.1").variables
    assert not check(home).warnings
    for alias in ("postmaster", "mailer-daemon", "root", "abuse"):
        assert (path / "alias" / f".qmail-{alias}").read_bytes() == b"&alice@a.example\n"
    name = pwd.getpwuid(home.uid).pw_name.encode()
    users = Users(str(path / "users" / "cdb"))
    folder = os.fsencode(path / "mail" / "bob-x")
    assert users.find(b"bob-x") == User(name, home.uid, home.gid, folder, b"", b"")
    assert users.find(b"bob-x-list") == User(name, home.uid, home.gid, folder, b"-", b"list")
    assert users.find(b"carol") is None


def test_everything_belongs_to_the_owner_and_mail_to_nobody_else(made: Path) -> None:
    home = Home(str(made))
    if os.geteuid() == 0:
        assert home.uid == pwd.getpwnam("nobody").pw_uid
    paths = [made, *made.rglob("*")]
    assert {path.lstat().st_uid for path in paths} == {home.uid}
    assert not [path for path in paths if path.stat().st_mode & 0o022], "written to by others"
    for private in ("queue", "run", "mail/alice", "mail/alice/Maildir/new", "mail/bob/Maildir/cur"):
        assert stat.S_IMODE((made / private).stat().st_mode) == 0o700, private


def test_a_strict_umask_of_the_caller_changes_nothing(room: Path, run: Run, owner: list[str]) -> None:
    before = os.umask(0o077)
    try:
        assert run("init", room / "home", "--me", "a.example", "--user", "x", *owner).code == 0
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)
    assert stat.S_IMODE((room / "home" / "control").stat().st_mode) == 0o755


def test_an_empty_folder_is_taken(room: Path, run: Run, owner: list[str]) -> None:
    (room / "home").mkdir()
    assert run("init", room / "home", "--me", "a.example", "--user", "alice", *owner).code == 0


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["DIR", "--user", "alice"], "required: --me"),
        (["DIR", "--me", "a.example"], "required: --user"),
        (["DIR", "--me", "a", "--user", "alice"], "--me: 'a' is not a full name"),
        (["DIR", "--me", "a..b", "--user", "alice"], "--me: 'a..b' is not a domain"),
        (["DIR", "--me", "a.b", "--user", "Alice"], "small ones: alice"),
        (["DIR", "--me", "a.b", "--user", "../alice"], "'../alice' cannot be a mailbox"),
        (["DIR", "--me", "a.b", "--user", ".alice"], "'.alice' cannot be a mailbox"),
        (["DIR", "--me", "a.b", "--user", "a:b"], "'a:b' cannot be a mailbox"),
        (["DIR", "--me", "a.b", "--user", "a@a.b"], "is an address"),
        (["DIR", "--me", "a.b", "--user", ""], "'' cannot be a mailbox"),
        (["DIR", "--me", "a.b", "--user", "x", "--user", "x"], "named twice"),
        (["DIR", "--me", "a.b", "--user", "x", "--local", "-"], "--local: '-' is not a domain"),
        (["DIR", "--me", "a.b", "--user", "x", "--listen", "2525"], "--listen: needs a service"),
        (["DIR/no/such", "--me", "a.b", "--user", "x"], "make it first: mkdir -p"),
        (["DIR:x", "--me", "a.b", "--user", "x"], "colon"),
        (["DIR" + "x" * 100, "--me", "a.b", "--user", "x"], "too long a path"),
        (["DIR", "--me", "a.b", "--user", "x", "--owner", "no-such-user"], "no user 'no-such-user'"),
        (["DIR", "--me", "a.b", "--user", "x", "--frob"], "unrecognized arguments: --frob"),
    ],
)
def test_mistakes(room: Path, run: Run, owner: list[str], words: list[str], why: str) -> None:
    told = [word.replace("DIR", str(room / "home")) for word in words]
    ran = run("init", *told, *([] if "--owner" in words else owner))
    assert ran.code == 100
    assert why in ran.err
    assert ran.err.startswith("openqmail: ")
    assert ran.err.count("\n") == 1
    assert list(room.iterdir()) == [], "something was left behind"


def test_it_never_overwrites(room: Path, made: Path, run: Run, owner: list[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    (room / "full").mkdir()
    (room / "full" / "letter").write_text("dear")
    (room / "file").write_text("")
    for folder, why in (("home", "a home already"), ("full", "not empty"), ("file", "not a folder")):
        ran = run("init", room / folder, "--me", "b.example", "--user", "x", *owner)
        assert ran.code == 100
        assert why in ran.err
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*")} == before
    assert os.listdir(room / "full") == ["letter"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to name an owner")
def test_root_must_name_an_owner_who_can_reach_the_place(room: Path, run: Run) -> None:
    ran = run("init", room / "home", "--me", "a.example", "--user", "x")
    assert ran.code == 100
    assert "--owner USER" in ran.err
    assert "another user" in run("init", room / "home", "--me", "a.b", "--user", "x", "--owner", "root").err
    (room / "closed").mkdir(mode=0o700)
    ran = run("init", room / "closed" / "home", "--me", "a.example", "--user", "x", "--owner", "nobody")
    assert ran.code == 100
    assert "nobody" in ran.err
    assert list((room / "closed").iterdir()) == []
    assert os.geteuid() == 0


def test_what_fails_half_way_is_removed(
    room: Path, run: Run, owner: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = writing.Made.file

    def full(self: writing.Made, path: str, content: bytes, mode: int) -> str:
        if path.endswith("rcpthosts"):
            raise OSError(28, "No space left on device", path)
        return made(self, path, content, mode)

    monkeypatch.setattr(init.Made, "file", full)
    ran = run("init", room / "home", "--me", "a.example", "--user", "alice", *owner)
    assert ran.code == 111
    assert "No space left" in ran.err
    assert list(room.iterdir()) == []
