"""s-nail, a mail program for people, hands us a letter with an attachment; it comes out as it went in."""

import email
import email.policy
import os
import subprocess
from collections.abc import Callable
from email.message import EmailMessage
from typing import cast

import pytest

from homes import Home, Place

SUBJECT = "Grüße aus Köln: 日本語 ☃"
TEXT = "Schöne Grüße,\nFrom here on\n.\n..two dots\n\n日本語 ☃\n"
FILE = "Übersicht 1.bin"
OCTETS = bytes(range(256)) * 20 + b"\r\n.\r\n\n.\n\0"


@pytest.mark.parametrize("encoding", ["8b", "quoted-printable", "base64"])
def test_a_letter_with_an_attachment_is_read_back_intact(
    place: Place, home: Home, program: Callable[[str], str], encoding: str
) -> None:
    settings = {
        "v15-compat": "yes",
        "mta": f"smtp://127.0.0.1:{home.port}",
        "smtp-auth": "none",
        "sendcharsets": "utf-8",
        "ttycharset": "utf-8",
        "mime-encoding": encoding,
        "DEAD": "/dev/null",
    }
    command = [program("s-nail"), "-:/"]
    command += [part for name, value in settings.items() for part in ("-S", f"{name}={value}")]
    attached = place.path / FILE
    attached.write_bytes(OCTETS)
    command += ["-r", "Jörg <bob@a.example>", "-s", SUBJECT, "-a", str(attached), "alice@a.example"]
    home.start()
    ran = subprocess.run(
        command,
        input=TEXT.encode(),
        capture_output=True,
        timeout=60,
        env={**os.environ, "LC_ALL": "C.UTF-8", "HOME": str(place.path)},
    )
    assert ran.returncode == 0, ran.stderr.decode()

    (mail,) = home.wait_mails("alice", 1)
    read = email.message_from_bytes(mail, policy=email.policy.default)
    assert read["Return-Path"] == "<bob@a.example>"
    assert read["From"] == "Jörg <bob@a.example>"
    assert read["Subject"] == SUBJECT
    text, octets = read.iter_parts()
    assert text["Content-Transfer-Encoding"] == {"8b": "8bit"}.get(encoding, encoding)
    assert cast(EmailMessage, text).get_content() == TEXT
    assert octets.get_filename() == FILE
    assert cast(EmailMessage, octets).get_content() == OCTETS
