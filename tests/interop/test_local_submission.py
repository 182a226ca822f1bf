"""Programs of this host hand us mail by `sendmail`: cron, mutt and PHP's mail(), as Debian has them."""

import email
import email.policy
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import cast

import pytest

from homes import Home, Place

Program = Callable[[str], str]


@pytest.fixture
def sendmail(place: Place) -> str:
    """The installed command, else a script that is as short."""
    installed = Path(sys.executable).with_name("sendmail")
    if installed.exists():
        return str(installed)
    script = place.path / "sendmail"
    run = "import sys\nfrom openqmail.core.commands.sendmail import main\nsys.exit(main())\n"
    script.write_text(f"#!{sys.executable}\n{run}")
    script.chmod(0o755)
    return str(script)


@pytest.fixture
def environment(home: Home, place: Place) -> dict[str, str]:
    """Of a program that finds our home, and nobody's settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("QMAIL", "MAIL"))}
    return {
        **kept, "OPENQMAIL_HOME": str(home.path), "HOME": str(place.path),
        "USER": "bob", "LOGNAME": "bob", "LC_ALL": "C.UTF-8",
    }  # fmt: skip


@pytest.fixture
def serving(home: Home) -> Iterator[Home]:
    """The home `a.example`, serving."""
    home.start()
    if not (home.path / "run" / "submit").exists():
        pytest.skip("the service opens no run/submit")
    yield home


def read(mail: bytes) -> EmailMessage:
    return cast(EmailMessage, email.message_from_bytes(mail, policy=email.policy.default))


def test_crons_report_arrives(serving: Home, sendmail: str, environment: dict[str, str]) -> None:
    """The command and the header are those of Debian's cron, do_command.c."""
    report = (
        "From: root (Cron Daemon)\nTo: alice\nSubject: Cron <root@mail> backup\nMIME-Version: 1.0\n"
        "Content-Type: text/plain; charset=UTF-8\nContent-Transfer-Encoding: 8bit\n"
        "X-Cron-Env: <SHELL=/bin/sh>\nX-Cron-Env: <LOGNAME=root>\n\n"
        "größer als gestern\n.\nzu Ende\n"
    ).encode()
    command = f"{sendmail} -FCronDaemon -i -B8BITMIME -oem alice"
    ran = subprocess.run(command, shell=True, input=report, env=environment, capture_output=True, timeout=60)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")
    (mail,) = serving.wait_mails("alice", 1)
    message = read(mail)
    assert message["Return-Path"] == "<bob@a.example>"
    assert message["Delivered-To"] == "alice@a.example"
    assert f"invoked by uid {os.getuid()}); " in message["Received"]
    assert b"\nFrom: root@a.example (Cron Daemon)\n" in mail
    assert str(message["To"]) == "alice@a.example"
    assert message["Date"]
    assert str(message["Message-ID"]).endswith("@a.example>")
    assert mail.endswith("größer als gestern\n.\nzu Ende\n".encode())


def test_mutt_sends_a_letter_with_an_attachment_and_a_blind_copy(
    serving: Home, sendmail: str, environment: dict[str, str], program: Program, place: Place
) -> None:
    attached = place.path / "Übersicht.bin"
    octets = bytes(range(256)) * 1000
    attached.write_bytes(octets)
    settings = place.path / "muttrc"
    settings.write_text(
        f'set sendmail="{sendmail} -oem -oi"\nset from="Jörg <bob@a.example>"\nset use_from=yes\n'
        "set use_envelope_from=yes\nset copy=no\nset write_bcc=yes\nset charset=utf-8\n"
    )
    text = "Schöne Grüße\n.\nFrom here on\n"
    ran = subprocess.run(
        [program("mutt"), "-n", "-F", str(settings), "-s", "Grüße ☃", "-b", "bob@a.example",
         "-a", str(attached), "--", "alice@a.example"],
        input=text.encode(), env=environment, capture_output=True, timeout=60,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr.decode()
    for user in ("alice", "bob"):
        (mail,) = serving.wait_mails(user, 1)
        message = read(mail)
        assert message["Return-Path"] == "<bob@a.example>"
        assert str(message["From"]) == "Jörg <bob@a.example>"
        assert message["Subject"] == "Grüße ☃"
        assert message["Bcc"] is None
        body, attachment = message.iter_parts()
        assert cast(EmailMessage, body).get_content() == text
        assert cast(EmailMessage, attachment).get_content() == octets


PHP = "exit(mail('alice@a.example', 'Grüße', $argv[1], ['From' => 'shop@a.example'], $argv[2]) ? 0 : 1);"


def php(
    program: Program, sendmail: str, environment: dict[str, str], body: str, *settings: str
) -> subprocess.CompletedProcess[bytes]:
    told = [part for one in (f"sendmail_path={sendmail} -t -i", *settings) for part in ("-d", one)]
    command = [program("php"), "-n", *told, "-r", PHP, "--", body, "-fbounce@a.example"]
    return subprocess.run(command, env=environment, capture_output=True, timeout=60)


@pytest.mark.parametrize(
    ("body", "settings", "text"),
    [
        ("one\r\n.\r\ntwo", (), b"\n\none\n.\ntwo\n"),
        ("one\n.\ntwo", ("mail.mixed_lf_and_crlf=On",), b"\n\none\n.\ntwo\n"),
    ],
)
def test_phps_mail_arrives(
    serving: Home,
    sendmail: str,
    environment: dict[str, str],
    program: Program,
    body: str,
    settings: tuple[str, ...],
    text: bytes,
) -> None:
    ran = php(program, sendmail, environment, body, *settings)
    assert ran.returncode == 0, ran.stderr.decode() + ran.stdout.decode()
    (mail,) = serving.wait_mails("alice", 1)
    assert b"\r" not in mail
    assert mail.endswith(text)
    message = read(mail)
    assert message["Return-Path"] == "<bounce@a.example>"
    assert (message["To"], message["From"]) == ("alice@a.example", "shop@a.example")


def test_phps_mail_that_mixes_line_ends_keeps_them(
    serving: Home, sendmail: str, environment: dict[str, str], program: Program
) -> None:
    """PHP 8 ends header lines with CRLF; a body with bare LF makes a message that is no text."""
    assert php(program, sendmail, environment, "one\ntwo").returncode == 0
    (mail,) = serving.wait_mails("alice", 1)
    assert mail.endswith(b"one\ntwo\r\n")
    assert b"To: alice@a.example\r\n" in mail


def test_phps_mail_says_so_when_it_is_refused(
    serving: Home, sendmail: str, environment: dict[str, str], program: Program
) -> None:
    serving.control("databytes", "1000")
    serving.stop()
    serving.start()
    ran = php(program, sendmail, environment, "x" * 2000)
    assert ran.returncode == 1
    assert b"larger than 1000 bytes" in ran.stderr + ran.stdout


def test_mail_that_is_sent_while_the_service_restarts_arrives_once(
    serving: Home, sendmail: str, environment: dict[str, str]
) -> None:
    serving.stop()
    letters = [
        subprocess.Popen([sendmail, "-oi", "alice"], stdin=subprocess.PIPE, env=environment) for _ in range(5)
    ]
    for letter in letters:
        assert letter.stdin is not None
        letter.stdin.write(b"Subject: patience\n\nbody\n")
        letter.stdin.close()
    serving.start()
    assert [letter.wait(60) for letter in letters] == [0] * 5
    serving.wait_mails("alice", 5)
    serving.wait_empty()
    assert len(serving.mails("alice")) == 5
