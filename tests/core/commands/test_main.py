"""The command line itself: homes, exit codes, add-ons, control, and the manual pages."""

import json
import os
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from openqmail.core.__about__ import __version__
from openqmail.core.commands.line import COMMANDS
from openqmail.core.commands.manual import pages
from openqmail.core.control import Home, all_definitions, extensions
from openqmail.core.control.extensions import Entry

Run = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[3]


def test_without_a_command_it_helps_and_fails(run: Run) -> None:
    ran = run()
    assert ran.code == 100
    assert "openqmail init" in ran.err
    assert run("--home", "/").code == 100
    assert run("--version").out == f"openqmail {__version__}\n"


@pytest.mark.parametrize(
    "words",
    [
        (), ("init",), ("run",), ("status",),
        ("queue",), ("queue", "list"), ("queue", "show"), ("queue", "flush"),
        ("queue", "hold"), ("queue", "release"), ("queue", "retry"), ("queue", "delete"),
        ("queue", "bounce"), ("queue", "settle"),
        ("mailbox",), ("mailbox", "add"), ("mailbox", "list"), ("control",), ("control", "list"),
        ("control", "show"), ("control", "explain"), ("control", "check"),
    ],
)  # fmt: skip
def test_every_help_has_an_example(run: Run, words: tuple[str, ...]) -> None:
    ran = run(*words, "--help")
    assert ran.code == 0
    assert "example:\n  openqmail" in ran.out


@pytest.mark.parametrize(
    "words", [("status",), ("queue",), ("mailbox", "list"), ("control", "check"), ("run",)]
)
def test_commands_that_need_a_home_say_so(run: Run, room: Path, words: tuple[str, ...]) -> None:
    ran = run(*words)
    assert (ran.code, ran.err) == (
        100,
        "openqmail: no home is named; give --home DIR or set OPENQMAIL_HOME\n",
    )
    ran = run("--home", room / "x", *words)
    assert ran.code == 100
    assert f"{room}/x: is not there; 'openqmail init {room}/x" in ran.err


def test_the_environment_names_the_home(run: Run, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENQMAIL_HOME", str(made))
    assert run("control", "show", "me").out == "a.example\n"


def test_a_home_that_is_to_be_made_may_be_in_the_environment(
    run: Run, room: Path, owner: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENQMAIL_HOME", str(room / "home"))
    assert run("init", room / "home", "--me", "a.example", "--user", "x", *owner).code == 0
    assert run("mailbox", "list").code == 0


@pytest.mark.parametrize(
    "words", [["queue", "list", "--home", "x"], ["queue", "--home", "x"], ["status", "--home=x"]]
)
def test_a_home_behind_the_command_is_told_where_it_goes(run: Run, words: list[str]) -> None:
    ran = run(*words)
    assert (ran.code, "--home goes before the command: openqmail --home DIR " in ran.err) == (100, True)


def test_misuse_is_100(run: Run, made: Path) -> None:
    for words in (
        ["frob"],
        ["status", "x"],
        ["queue", "show", "x"],
        ["queue", "show"],
        ["queue", "hold"],
        ["queue", "delete", "17", "x", "--yes"],
        ["queue", "retry", "--yes", "17"],
        ["queue", "settle", "17"],
        ["control"],
        ["--hom", "x"],
    ):
        ran = run("--home", made, *words)
        assert ran.code == 100, words
        assert ran.err.startswith("openqmail: ")
        assert ran.err.count("\n") == 1


def test_an_add_on_brings_a_command(run: Run, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Toy:
        help = "play"

        def arguments(self, parser: ArgumentParser) -> None:
            parser.add_argument("word")

        def run(self, home: Home | None, args: Namespace) -> int:
            print(args.word, home.path if home else None)
            return 7

    points = {
        "toy": Entry("openqmail.commands", "toy", "toys:toy"),
        "bad": Entry("openqmail.commands", "bad", "no:x"),
    }
    monkeypatch.setattr(extensions, "registered", lambda group: points)
    load = extensions.load
    monkeypatch.setattr(extensions, "load", lambda group, name: Toy() if name == "toy" else load(group, name))
    assert run("toy", "x")[:2] == (7, "x None\n")
    assert run("--home", made, "toy", "x")[:2] == (7, f"x {made}\n")
    assert "toy" in run("--help").out
    assert run("mailbox", "--help").err == "", "a broken add-on is nothing to core's own commands"
    ran = run("bad")
    assert ran.code == 100
    assert "the command 'bad' (no:x) cannot be loaded" in ran.err


def test_control_list(run: Run, made: Path) -> None:
    lines = dict(line.split(None, 1) for line in run("--home", made, "control", "list").out.splitlines())
    assert lines["me"] == "a.example"
    assert lines["helohost"] == "(a.example, by default)"
    assert lines["hooks"] == "(empty, by default)"
    rows = [json.loads(line) for line in run("--home", made, "control", "list", "--json").out.splitlines()]
    by_name = {row["name"]: row for row in rows}
    assert by_name["locals"] == {
        "name": "locals", "set": True, "value": ["a.example"],
        "kind": "a list of domains", "readers": ["smtpd", "send"],
    }  # fmt: skip
    assert by_name["bouncemaxbytes"]["value"] == ["50000"]
    assert not by_name["bouncemaxbytes"]["set"]


def test_certificates_and_logins_are_listed_and_explained_by_whatever_they_are_called(
    run: Run, made: Path
) -> None:
    def listed() -> dict[str, str]:
        out = run("--home", made, "control", "list").out
        return dict(line.split(None, 1) for line in out.splitlines())

    assert {listed()[name] for name in ("clientca.pem", "certs/NAME.pem", "credentials")} == {"(not there)"}
    (made / "control" / "certs").mkdir()
    for name in ("a.example.pem", "b.example.pem", "b.example.crt"):
        (made / "control" / "certs" / name).write_text("a-secret")
    (made / "control" / "credentials").write_text("c.example joe a-secret\n")
    assert listed()["certs/NAME.pem"].startswith("(2 there; ")
    assert listed()["credentials"] == "(there; it is secret)"
    rows = [json.loads(line) for line in run("--home", made, "control", "list", "--json").out.splitlines()]
    assert [row["set"] for row in rows if row["name"] in ("clientca.pem", "credentials")] == [False, True]
    for name in ("certs", "certs/a.example.pem", "control/certs/NAME.pem"):
        assert run("control", "explain", name).out.startswith("control/certs/NAME.pem: ")
    assert run("control", "explain", "tlshosts").out.startswith("control/tlshosts/NAME.pem: ")
    assert "did you mean credentials?" in run("control", "explain", "credential").err
    ran = run("control", "explain", "smtpauth")
    assert (ran.code, "openqmail user list" in ran.err) == (100, True)


def test_what_is_secret_is_checked_and_never_told(run: Run, made: Path) -> None:
    control = made / "control"
    (control / "smtproutes").write_text("b.example:c.example:587:joe a-secret\nd.example:e.example\n")
    said = run("--home", made, "control", "list")
    assert "b.example:c.example:587:***; d.example:e.example" in said.out and "a-secret" not in said.out
    assert "a-secret" not in run("--home", made, "control", "list", "--json").out
    assert run("--home", made, "control", "check").code == 0
    assert "HOST USER PASSWORD" in run("control", "explain", "credentials").out
    ran = run("--home", made, "control", "show", "credentials")
    assert (ran.code, ran.err) == (100, "openqmail: control/credentials is not shown; it is secret\n")
    for content, why in (
        ("c.example joe\n", "line 1: has no user and password"),
        ("joe@x a-secret\n", "line 1: does not begin with a host"),
    ):
        (control / "credentials").write_text(content)
        ran = run("--home", made, "control", "check")
        assert ran.code == 100 and f"error: control/credentials, {why}" in ran.out
        assert "a-secret" not in ran.out + ran.err
    (control / "credentials").unlink()
    (control / "tlshosts").mkdir()
    (control / "tlshosts" / "mx.b.example.pem").write_text("nothing\n")
    ran = run("--home", made, "control", "check")
    assert ran.code == 100 and "error: control/tlshosts/mx.b.example.pem: has no certificate" in ran.out


def test_a_secret_that_others_can_read_is_warned_of(run: Run, made: Path) -> None:
    control = made / "control"
    (control / "smtproutes").write_text(":smtp.provider.example:587\n")
    for path in (control / "credentials", made / "users" / "smtpauth"):
        path.write_text(
            "smtp.provider.example joe a-secret\n" if path.parent == control else "joe:a-secret\n"
        )
        os.chown(path, made.stat().st_uid, made.stat().st_gid)
        path.chmod(0o644)
    (control / "servercert.pem").chmod(0o444)
    ran = run("--home", made, "control", "check")
    assert ran.code == 0 and "a-secret" not in ran.out
    for name in ("control/credentials", "users/smtpauth", "control/servercert.pem"):
        told = f"warning: {name}: anybody, its group may read it, and must not; chmod 600 {made / name}"
        assert told in ran.out.splitlines()
        (made / name).chmod(0o600)
    assert "must not" not in run("--home", made, "control", "check").out


def test_a_login_for_a_host_that_no_route_leads_to_is_warned_of(run: Run, made: Path) -> None:
    control = made / "control"
    (control / "smtproutes").write_text(":smtp.provider.example:587\nb.example:[192.0.2.1]\n")
    (control / "credentials").write_text("smtp.provder.example joe a-secret\n[192.0.2.1] joe a-secret\n")
    ran = run("--home", made, "control", "check")
    assert ran.code == 0 and "a-secret" not in ran.out
    (told,) = [line for line in ran.out.splitlines() if "control/credentials, line" in line]
    assert told.startswith("warning: control/credentials, line 1: no line of control/smtproutes leads to")
    assert told.endswith("did you mean smtp.provider.example?")
    (control / "credentials").write_text("SMTP.provider.example joe a-secret\n")
    assert "control/credentials, line" not in run("--home", made, "control", "check").out


def test_a_file_with_a_password_in_a_line_is_shown_without_it(run: Run, made: Path) -> None:
    text = "# of 2025: the old one\n\n b.example:c.example:587:joe %s\n#  d.example:e.example:587:joe %s\n"
    text += "f.example:[::1]\n\udcff:g.example:25:joe %s"
    (made / "control" / "smtproutes").write_bytes(
        (text % (("a-secret",) * 3)).encode("utf-8", "surrogateescape")
    )
    shown = run("--home", made, "control", "show", "smtproutes")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out == text.replace("joe %s", "***").replace("\udcff", "\\xff") + "\n"


def test_control_show_explain_check(run: Run, made: Path) -> None:
    assert run("--home", made, "control", "show", "bouncehost").out == "a.example\n"
    assert run("--home", made, "control", "show", "bounceformat").out == "dsn\n"
    assert run("--home", made, "control", "show", "databytes").out == "50000000\n"
    assert run("--home", made, "control", "show", "smtproutes").out == ""
    assert "RELAYCLIENT" in run("control", "explain", "rules").out
    ran = run("--home", made, "control", "show", "rcpthost")
    assert (ran.code, ran.err) == (
        100,
        "openqmail: there is no control file 'rcpthost'; did you mean rcpthosts?\n",
    )
    (made / "control" / "listen").write_text("")
    ran = run("--home", made, "control", "check")
    assert ran.code == 0
    assert "warning: control/listen: names no listener" in ran.out
    (made / "control" / "rules").write_text("127:allow\n")
    ran = run("--home", made, "control", "check")
    assert ran.code == 100
    assert "error: control/rules, line 1: '127' is not a whole address" in ran.out


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user's home")
def test_root_works_in_a_home_as_its_owner(run: Run, made: Path, room: Path) -> None:
    """A link that the owner put there leads root nowhere that the owner may not go."""
    (room / "secret").write_text("s3cret\n")
    (room / "secret").chmod(0o600)
    (made / "control" / "helohost").symlink_to(room / "secret")
    ran = run("--home", made, "control", "show", "helohost")
    assert ran.code == 100
    assert "cannot be read" in ran.err
    assert "s3cret" not in ran.out + ran.err + run("--home", made, "control", "check").out
    assert os.geteuid() == 0


def test_the_manual_pages_are_current() -> None:
    """`python -m openqmail.core.commands.manual docs/man` makes them anew."""
    for name, content in pages().items():
        assert (ROOT / "docs" / "man" / name).read_text() == content, name


def test_the_manual_names_all_there_is() -> None:
    made = pages()
    for name in COMMANDS:
        assert f".B {name}\n" in made["openqmail.1"]
    for definition in all_definitions():
        assert f".B {definition.name}\n" in made["openqmail-control.5"]
