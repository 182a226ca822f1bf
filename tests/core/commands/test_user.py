"""`openqmail user`: passwords come by the terminal or a line, and go into the file alone."""

import errno
import json
import os
import pty
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import system_users
from openqmail.core.control import Home, check, find_accounts
from openqmail.core.control.logins import Logins
from openqmail.core.control.modes import examine
from openqmail.core.sasl import CRAM_MD5, SCRAM, CheckPassword, CheckResponse, No, Yes, cram_response

Run = Callable[..., Any]
PROGRAM = "import sys; from openqmail.core.commands.main import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture
def user(made: Path, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """`user("add", "alice", line=b"pw\\n")`."""

    def user(*words: str, line: bytes = b"") -> Any:
        (tmp_path / "line").write_bytes(line)
        with open(tmp_path / "line") as opened:
            monkeypatch.setattr(sys, "stdin", opened)
            return run("--home", made, "user", *words)

    return user


def answer(home: Path, login: str, password: str) -> Yes | No:
    query = CheckPassword(login.encode(), password.encode())
    return Logins(str(home / "users" / "smtpauth")).answer(query).answer


def test_an_added_user_can_log_in_and_nobody_else_can_read_the_file(made: Path, user: Run) -> None:
    ran = user("add", "alice@a.example", line=b"p\xc3\xa4ss word\nnot this\n")
    offered = "where these are offered (control/authmechanisms)"
    assert ran == (0, f"alice@a.example can log in by SCRAM-SHA-256, PLAIN, LOGIN, {offered}\n", "")
    assert answer(made, "alice@a.example", "p\u00e4ss word") == Yes(b"alice@a.example")
    assert answer(made, "alice@a.example", "p\u00e4ss") == answer(made, "alice", "p\u00e4ss word") == No()
    found = (made / "users" / "smtpauth").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o600, made.stat().st_uid)
    assert b"word" not in (made / "users" / "smtpauth").read_bytes()
    assert sorted(os.listdir(made / "users")) == [".lock", "assign", "cdb", "smtpauth"]
    home = Home(str(made))
    assert not [one for one in examine(home, find_accounts(home)) if "smtpauth" in one.place]
    assert not check(home).errors


def test_a_new_user_who_may_send_as_nobody_is_told_of(made: Path, user: Run) -> None:
    assert user("add", "alice", line=b"pw\n").err == ""
    (made / "control" / "senders").write_text("alice:alice@a.example\ncarol:carol@a.example\n")
    ran = user("add", "bob", line=b"pw\n")
    assert ran.code == 0 and "bob can log in" in ran.out
    assert ran.err == (
        "openqmail: control/senders: has no line for bob, who may log in and send as nobody; "
        "write one like bob:bob@example.org\n"
    )
    assert user("add", "carol", line=b"pw\n").err == ""


def test_faults_of_the_file_are_told_once_where_a_user_is_added(made: Path, user: Run) -> None:
    user("add", "alice", line=b"pw\n")
    with (made / "users" / "smtpauth").open("a") as opened:
        opened.write("nonsense\n")
    assert user("add", "bob", line=b"pw\n").err.count("has no colon") == 1


def test_a_full_disk_is_told_with_the_file_and_changes_nothing(
    made: Path, user: Run, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    user("add", "alice", line=b"one\n")
    smtpauth, pem = made / "users" / "smtpauth", made / "control" / "servercert.pem"
    before = smtpauth.read_bytes(), pem.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    remedy = "No space left on device; make room there, and try again\n"
    for words in (("add", "bob"), ("passwd", "alice")):
        ran = user(*words, line=b"two\n")
        assert (ran.code, ran.err) == (111, f"openqmail: {smtpauth}: {remedy}")
    ran = run("--home", made, "tls", "selfsign", "--replace")
    assert (ran.code, ran.err) == (111, f"openqmail: {pem}: {remedy}")
    assert (smtpauth.read_bytes(), pem.read_bytes()) == before
    assert not [*smtpauth.parent.glob("*.tmp"), *pem.parent.glob("*.tmp")]


def test_another_password_ends_the_one_before(made: Path, user: Run) -> None:
    user("add", "alice", line=b"one\n")
    user("add", "bob", line=b"bobs\n")
    assert user("passwd", "alice", line=b"two\r\n").code == 0
    assert answer(made, "alice", "two") == Yes(b"alice")
    assert answer(made, "alice", "one") == No()
    assert answer(made, "bob", "bobs") == Yes(b"bob")


def test_plain_is_for_cram_md5_and_goes_with_the_next_password(made: Path, user: Run) -> None:
    assert "CRAM-MD5" in user("add", "alice", "--plain", line=b"p w\n").out
    logins = Logins(str(made / "users" / "smtpauth"))
    query = CheckResponse(b"alice", b"<1@x>", cram_response(b"p w", b"<1@x>"))
    assert logins.answer(query).answer == Yes(b"alice")
    user("passwd", "alice", line=b"p w\n")
    assert logins.answer(query).answer == No()
    assert CRAM_MD5 not in logins.served().some and SCRAM in logins.served().all


def test_it_lists_kinds_and_mechanisms_but_no_secret(made: Path, user: Run) -> None:
    assert user("list") == (0, "", "")
    user("add", "alice", "--plain", line=b"hush\n")
    user("add", "bo", line=b"hush\n")
    ran = user("list", "--json")
    assert [json.loads(line) for line in ran.out.splitlines()] == [
        {
            "login": "alice",
            "secrets": ["argon2id", "SCRAM-SHA-256", "plain"],
            "mechanisms": ["SCRAM-SHA-256", "PLAIN", "LOGIN", "CRAM-MD5"],
        },
        {
            "login": "bo",
            "secrets": ["argon2id", "SCRAM-SHA-256"],
            "mechanisms": ["SCRAM-SHA-256", "PLAIN", "LOGIN"],
        },
    ]
    assert user("list", "bo").out == "bo  argon2id, SCRAM-SHA-256: SCRAM-SHA-256, PLAIN, LOGIN\n"
    assert user("list", "nobody").code == 1
    secrets = (made / "users" / "smtpauth").read_text().replace("\n", " ").split()
    assert not [one for one in secrets if one in ran.out + user("list").out]


def test_who_is_removed_cannot_log_in(made: Path, user: Run) -> None:
    user("add", "alice", line=b"pw\n")
    user("add", "bob", line=b"pw\n")
    ran = user("del", "alice", "carol")
    assert (ran.code, ran.out) == (0, "alice can no longer log in\n")
    assert "no user 'carol'" in ran.err
    assert answer(made, "alice", "pw") == No() and answer(made, "bob", "pw") == Yes(b"bob")
    assert user("del", "alice").code == 1


@pytest.mark.parametrize(
    ("words", "line", "why"),
    [
        (("add", "alice"), b"pw\n", "there is a user 'alice' already"),
        (("passwd", "carol"), b"pw\n", "there is no user 'carol'"),
        (("add", "carol"), b"", "cannot be a password"),
        (("add", "carol"), b"\n", "cannot be a password"),
        (("add", "carol"), b"hush" * 64 + b"\n", "cannot be a password"),
        (("add", "carol"), b"hush\0hush\n", "cannot be a password"),
        (("add", "carol"), b"hush\xff\n", "cannot be a password"),
        (("add", "a:b"), b"pw\n", "cannot be a login"),
        (("add", "a b"), b"pw\n", "cannot be a login"),
        (("add", "#a"), b"pw\n", "cannot be a login"),
        (("add", ""), b"pw\n", "cannot be a login"),
        (("add", "carol", "hush"), b"pw\n", "asked for, or read from standard input, never an argument"),
        (("passwd", "alice", "--plain", "hush"), b"pw\n", "never an argument"),
        (("add", "carol", "--password", "hush"), b"pw\n", "never an argument"),
        (("list", "--all"), b"", "unrecognized arguments: --all"),
        (("add",), b"pw\n", "required: NAME"),
    ],
)
def test_mistakes_change_nothing(made: Path, user: Run, words: tuple, line: bytes, why: str) -> None:
    user("add", "alice", line=b"first\n")
    before = (made / "users" / "smtpauth").read_bytes()
    ran = user(*words, line=line)
    assert ran.code == 100 and why in ran.err
    assert "hush" not in ran.out + ran.err
    assert (made / "users" / "smtpauth").read_bytes() == before


def test_lines_of_the_administrator_stay_and_mistakes_are_told(made: Path, user: Run) -> None:
    file = made / "users" / "smtpauth"
    file.write_bytes(b"# ours\nbob:secret\nnonsense\n")
    os.chown(file, *Home(str(made)).owner)
    ran = user("add", "alice", line=b"pw\n")
    assert ran.code == 0 and "users/smtpauth, line 3: has no colon" in ran.err
    assert file.read_bytes().startswith(b"# ours\nbob:secret\nnonsense\nalice:$argon2id$")
    assert ["users/smtpauth, line 3" in str(one) for one in check(Home(str(made))).errors] == [True]


def on_a_terminal(home: Path, words: list[str], typed: list[bytes]) -> tuple[int, bytes]:
    """The command on a terminal of its own, with each line typed when it asks for one."""
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-c", PROGRAM, "--home", str(home), "user", *words])
    seen = b""
    try:
        while True:
            try:
                seen += os.read(terminal, 4096)
            except OSError:  # the other end is closed
                break
            if typed and seen.rstrip(b" ").endswith(b":"):
                os.write(terminal, typed.pop(0) + b"\n")
                seen += b"|"
    finally:
        os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), seen


def test_on_a_terminal_it_asks_twice_and_shows_nothing(made: Path) -> None:
    code, seen = on_a_terminal(made, ["add", "alice"], [b"s3cret", b"s3cret"])
    assert code == 0, seen
    assert seen.startswith(b"password: |") and b"once more: |" in seen and b"s3cret" not in seen
    assert answer(made, "alice", "s3cret") == Yes(b"alice")
    code, seen = on_a_terminal(made, ["passwd", "alice"], [b"other", b"others"])
    assert code == 100 and b"differ" in seen
    assert answer(made, "alice", "s3cret") == Yes(b"alice")


@pytest.mark.parametrize("typed", [[b"\x04"], [b"s3cret", b"\x04"]])
def test_an_end_of_file_instead_of_a_password_is_a_sentence(made: Path, typed: list[bytes]) -> None:
    code, seen = on_a_terminal(made, ["add", "alice"], typed)
    assert code == 100 and b"Traceback" not in seen
    assert b"openqmail: no password was given; nothing was changed" in seen
    assert not (made / "users" / "smtpauth").exists()


def test_many_at_a_time_lose_no_line(made: Path) -> None:
    names = [f"user{number}" for number in range(4)]
    children = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "--home", str(made), "user", "add", name], stdin=subprocess.PIPE
        )
        for name in names
    ]
    for child in children:
        child.communicate(b"pw\n", 60)
    assert [child.returncode for child in children] == [0] * 4
    assert all(answer(made, name, "pw") == Yes(name.encode()) for name in names)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes users")
def test_in_a_home_of_roots_gate_alone_reads_it(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with system_users.room() as room:
        alice = system_users.add("alice", room / "alice").pw_name
        path = room / "home"
        words = ["--me", "a.example", "--user", alice, *system_users.accounts()]
        assert run("init", path, "--system", *words).code == 0
        (tmp_path / "line").write_bytes(b"pw\n")
        for verb in ("add", "passwd"):
            with open(tmp_path / "line") as opened:
                monkeypatch.setattr(sys, "stdin", opened)
                assert run("--home", path, "user", verb, "alice").code == 0
        home = Home(str(path))
        gate, found = find_accounts(home).gate, (path / "users" / "smtpauth").stat()
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (gate.uid, gate.gid, 0o400)
        assert not [one for one in examine(home, find_accounts(home)) if "smtpauth" in one.place]
        assert answer(path, "alice", "pw") == Yes(b"alice")
