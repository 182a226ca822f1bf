"""swaks sends to us: plain, eight-bit, to several, pipelined; and is told what we do not take."""

import subprocess
from collections.abc import Callable, Iterator

import pytest

from homes import Home, Place

Send = Callable[..., subprocess.CompletedProcess[str]]

STRANGER = "127.0.0.2"
"""A client that may not relay."""

NO_RECIPIENT = 24
"""swaks' exit code when every recipient was refused."""


@pytest.fixture(scope="module")
def served() -> Iterator[Home]:
    with Place() as place:
        home = place.home("a.example", "alice", "bob", "carol", "dave")
        home.control("rules", f'{STRANGER}:allow\n127.:allow,RELAYCLIENT=""')
        home.start()
        yield home
        assert home.stop() == 0


@pytest.fixture
def swaks(served: Home, program: Callable[[str], str]) -> Send:
    """`swaks("--to", ...)`: what it said, and its exit code."""
    command = [program("swaks"), "--server", f"127.0.0.1:{served.port}", "--helo", "c.example"]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        told = [*command, "--from", "bob@a.example", *arguments]
        return subprocess.run(told, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)

    return run


def test_a_plain_mail_arrives_with_its_trace(served: Home, swaks: Send) -> None:
    ran = swaks("--to", "alice@a.example", "--header", "Subject: plain", "--body", "one\n.two\n..\n")
    assert ran.returncode == 0, ran.stdout
    (mail,) = served.wait_mails("alice", 1)
    header, _, body = mail.partition(b"\n\n")
    assert header.startswith(b"Return-Path: <bob@a.example>\nDelivered-To: alice@a.example\nReceived: from ")
    assert b"c.example" in header and b"\nSubject: plain\n" in header
    assert body.rstrip(b"\n") == b"one\n.two\n.."


def test_eight_bit_text_to_several_is_not_changed_by_a_bit(served: Home, swaks: Send) -> None:
    ran = swaks("--to", "bob@a.example,carol@a.example", "--body", "Grüße, 日本語, ☃")
    assert ran.returncode == 0, ran.stdout
    for user in ("bob", "carol"):
        (mail,) = served.wait_mails(user, 1)
        assert f"Delivered-To: {user}@a.example\n".encode() in mail
        assert "\n\nGrüße, 日本語, ☃\n".encode() in mail


def test_pipelined_commands_are_answered_each_in_its_turn(served: Home, swaks: Send) -> None:
    ran = swaks("--pipeline", "--to", "dave@a.example,nobody@x..example,dave@a.example", "--body", "at once")
    assert ran.returncode == 0, ran.stdout
    talk = ran.stdout.splitlines()
    sent, first = talk.index(" -> DATA"), talk.index("<-  250 2.1.0 ok")
    assert sent < first, "swaks waited for answers"
    codes = [line.split()[1] for line in talk[first:] if line.startswith("<")]
    assert codes == ["250", "250", "501", "250", "354", "250", "221"]
    assert b"\n\nat once\n" in served.wait_mails("dave", 1)[0]


@pytest.mark.parametrize("pipeline", [[], ["--pipeline"]], ids=["waiting", "pipelined"])
@pytest.mark.parametrize(
    ("domain", "code"), [("other.example", 553), ("sub.a.example", 553), ("a..example", 501)]
)
def test_a_bad_recipient_domain_is_refused(swaks: Send, domain: str, code: int, pipeline: list[str]) -> None:
    ran = swaks("--local-interface", STRANGER, *pipeline, "--to", f"alice@{domain}")
    assert ran.returncode == NO_RECIPIENT, ran.stdout
    assert f"<** {code} " in ran.stdout


def test_a_good_recipient_beside_a_bad_one_gets_the_mail(served: Home, swaks: Send) -> None:
    to = "alice@other.example,bob@a.example"
    before = len(served.mails("bob"))
    ran = swaks("--local-interface", STRANGER, "--pipeline", "--to", to, "--body", "for bob alone")
    assert ran.returncode == 0, ran.stdout
    assert ran.stdout.count("<** 553 ") == 1
    mails = served.wait_mails("bob", before + 1)
    assert any(b"\n\nfor bob alone\n" in mail for mail in mails)
