"""Bounces against those that notqmail's qmail-send wrote."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from openqmail.core.dsn import bounce, quoted_address, report

NOW = 1_795_544_247  # 24 Nov 2026 18:17:27 UTC
TOO_LONG = b"I'm not going to try again; this message has been in the queue too long.\n"
NO_MAILBOX = b"Sorry, no mailbox here by that name. (#5.1.1)\n"


def settings(bouncefrom: bytes = b"MAILER-DAEMON", bouncehost: bytes = b"mail.example.test") -> Any:
    return SimpleNamespace(bouncefrom=bouncefrom, bouncehost=bouncehost)


def head_of(message: bytes) -> bytes:
    """What stands before the copy, with the date replaced."""
    end = message.index(b"\nReturn-Path: <") + 1
    end = message.index(b">\n", end) + 2
    return re.sub(rb"\d+ Nov 2026 \d\d:\d\d:\d\d", b"24 Nov 2026 18:17:27", message[:end])


def without_received(text: bytes) -> bytes:
    first, _, rest = text.partition(b"\n")
    assert first == b"Received: (qmail 77 invoked for bounce); 24 Nov 2026 18:17:27 -0000"
    return rest


def write(
    recipient: bytes, failures: list[tuple[bytes, bytes]], double: bool = False, **controls: bytes
) -> bytes:
    paragraphs = b"".join(report(address, text) for address, text in failures)
    return without_received(
        bounce(settings(**controls), recipient, paragraphs, double=double, now=NOW + 0.5, pid=77)
    )


def test_expired_recipients(vectors: Path) -> None:
    failures = [
        (
            b"defer@remote.test",
            b"127.0.0.2 does not like recipient.\nRemote host said: 450 4.2.0 try again later\n"
            b"Giving up on 127.0.0.2.\n" + TOO_LONG,
        ),
        (b"bob@example.test", b"temporarily broken\n" + TOO_LONG),
    ]
    recorded = (vectors / "notqmail/bounces/expired.1.msg").read_bytes()
    assert write(b"alice@example.test", failures) == head_of(recorded)


def test_reports_without_newline_and_with_empty_lines(vectors: Path) -> None:
    failures = [
        (b"bob-b@example.test", b""),
        (b"bob-a@example.test", b"no newline"),
        (b"bob-c@example.test", b"100%\n\n\nx \xe9\n"),
    ]
    recorded = (vectors / "notqmail/bounces/bounce-program-output.1.msg").read_bytes()
    assert write(b"alice@example.test", failures) == head_of(recorded)


def test_odd_recipients(vectors: Path) -> None:
    names = [b"two words", b"new\nline", b"caf\xe9"]
    recorded = head_of((vectors / "notqmail/bounces/odd-recipients.1.msg").read_bytes())
    for name in names:
        assert report(name + b"@example.test", NO_MAILBOX) in recorded


def test_double_bounce_with_its_own_controls(vectors: Path) -> None:
    refused = (
        b"127.0.0.2 does not like recipient.\nRemote host said: 550 5.1.1 no such user here\n"
        b"Giving up on 127.0.0.2.\n"
    )
    recorded = (vectors / "notqmail/bounces/double-bounce-controls.2.msg").read_bytes()
    written = write(
        b"alice-dbl@example.test",
        [(b"fail@remote.test", refused)],
        double=True,
        bouncefrom=b"Mail Robot",
        bouncehost=b"bounces.example.test",
    )
    assert written == head_of(recorded)


def test_every_recorded_bounce(vectors: Path) -> None:
    """The reports are taken from the recording, everything round them is written anew."""
    folder = vectors / "notqmail/bounces"
    seen = 0
    for entry in json.loads((folder / "index.json").read_text()):
        message = (folder / entry["message"]).read_bytes()
        envelope = (folder / entry["envelope"]).read_bytes()
        if b"\nSubject: failure notice\n\nHi. This is" not in message or entry["case"] == "odd-sender-1":
            continue
        recipient = envelope.split(b"\0")[1][1:]
        paragraphs = message.split(b"--- Below")[0].split(b"\n\n")[2:-1]
        failures = []
        for paragraph in paragraphs:
            address, _, text = (paragraph + b"\n").partition(b">:\n")
            failures.append((address[1:], text))
        found = re.search(rb"\nFrom: (.*)@(.*)\n", message)
        assert found is not None
        written = write(
            recipient,
            failures,
            double=envelope.startswith(b"F#@[]"),
            bouncefrom=found[1].strip(b'"'),
            bouncehost=found[2],
        )
        assert written == head_of(message), entry["case"]
        seen += 1
    assert seen > 30


@pytest.mark.parametrize("address", [b"new\nline@remote.test", b"a\r\nBcc: x@y", b"nul\0@z", b"a@b\nX: y"])
def test_no_address_adds_a_header_line(address: bytes) -> None:
    text = bounce(settings(), address, report(address, b"no\n"), double=False, now=NOW, pid=1)
    head = text.partition(b"\n\n")[0]
    assert [line.split(b":")[0] for line in head.split(b"\n")] == [
        b"Received",
        b"Date",
        b"From",
        b"To",
        b"Subject",
    ]
    assert b"\r" not in head and b"\0" not in head


@pytest.mark.parametrize(
    ("address", "quoted"),
    [
        (b"alice@example.test", b"alice@example.test"),
        (b'a"b\\c@d', b'"a\\"b\\\\c"@d'),
        (b".a@d", b'".a"@d'),
        (b"a..b@d", b'"a..b"@d'),
        (b"@d", b'""@d'),
        (b"noat", b"noat"),
        (b"", b""),
    ],
)
def test_local_parts_are_quoted_where_they_must_be(address: bytes, quoted: bytes) -> None:
    assert quoted_address(address) == quoted
