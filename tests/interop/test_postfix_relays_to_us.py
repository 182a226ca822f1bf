"""Postfix hands mail to us as it does to any host: it pipelines, and uses what we offer."""

import smtplib
from collections.abc import Iterator
from typing import NamedTuple

import pytest

import postfix
from homes import Home, Place
from postfix import Postfix

USERS = [f"user{number:02}" for number in range(100)]


class Pair(NamedTuple):
    here: Home
    there: Postfix


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """Postfix is b.example and sends on to us, a.example, where Postfix may not relay."""
    if why := postfix.why_not():
        pytest.skip(why)
    with Place() as place:
        here = place.home("a.example", *USERS, "alice", "bob")
        here.control("rules", "127.:allow")
        here.start()
        routes = {"a.example": here.port, "other.example": here.port}
        # One delivery for all recipients; the log has every word that Postfix exchanges with us.
        settings = {"smtp_destination_recipient_limit": len(USERS), "debug_peer_list": "127.0.0.1"}
        with Postfix(place.path / "postfix", "b.example", ["carol"], routes, settings) as there:
            yield Pair(here, there)


def send(to: Postfix, recipients: list[str], mail: bytes, *options: str, sender: str) -> None:
    with smtplib.SMTP("127.0.0.1", to.port) as client:
        client.ehlo()
        refused = client.sendmail(sender, recipients, mail, options)
        assert not refused


def talk(there: Postfix, behind: int) -> list[str]:
    """What Postfix said to us (`> `), heard (`< `), and thought, from that place of its log on."""
    lines = there.said()[behind:].splitlines()
    return [line.partition("]: ")[2] for line in lines if "/smtp[" in line]


def said(line: str, mark: str) -> str | None:
    """The words behind `> 127.0.0.1[127.0.0.1]:PORT: `."""
    return line.partition(": ")[2] if line.startswith(f"{mark} ") else None


def test_a_hundred_recipients_in_one_pipelined_message(pair: Pair) -> None:
    behind = len(pair.there.said())
    recipients = [f"{user}@a.example" for user in USERS]
    mail = b"Subject: to all\r\n\r\nhello, all of you\r\n.\r\n"
    send(pair.there, recipients, mail, sender="carol@b.example")
    for user in USERS:
        (got,) = pair.here.wait_mails(user, 1)
        assert got.startswith(f"Return-Path: <carol@b.example>\nDelivered-To: {user}@a.example\n".encode())
        assert got.endswith(b"\n\nhello, all of you\n.\n")
    pair.there.wait_empty()
    pair.here.wait_empty()
    assert all(len(pair.here.mails(user)) == 1 for user in USERS)

    lines = talk(pair.there, behind)
    assert any("Using ESMTP PIPELINING" in line for line in lines)
    sent = [words for line in lines if (words := said(line, ">"))]
    assert sum(words.startswith("MAIL FROM:") for words in sent) == 1
    assert sum(words.startswith("RCPT TO:") for words in sent) == len(USERS)


def test_eight_bit_content_is_announced_and_kept(pair: Pair) -> None:
    behind = len(pair.there.said())
    mail = b"Subject: eight bits\r\n\r\n" + bytes(range(128, 256)) + b"\r\n"
    send(pair.there, ["alice@a.example"], mail, "BODY=8BITMIME", sender="carol@b.example")
    (got,) = pair.here.wait_mails("alice", 1)
    assert got.endswith(b"\n\n" + bytes(range(128, 256)) + b"\n")
    pair.there.wait_empty()
    (words,) = [words for line in talk(pair.there, behind) if (words := said(line, ">")) and "MAIL" in words]
    assert "BODY=8BITMIME" in words and "SMTPUTF8" not in words


def test_addresses_and_headers_beyond_ascii_arrive(pair: Pair) -> None:
    behind = len(pair.there.said())
    mail = "From: jörg@b.example\r\nSubject: Grüße, 日本語\r\n\r\nschöne\r\n".encode()
    send(pair.there, ["bob@a.example"], mail, "SMTPUTF8", "BODY=8BITMIME", sender="jörg@b.example")
    (got,) = pair.here.wait_mails("bob", 1)
    assert "\nSubject: Grüße, 日本語\n".encode() in got
    assert b"\n  by a.example with UTF8SMTP" in got
    pair.there.wait_empty()
    (words,) = [words for line in talk(pair.there, behind) if (words := said(line, ">")) and "MAIL" in words]
    assert words.startswith("MAIL FROM:<jörg@b.example>") and "SMTPUTF8" in words


def test_what_we_refuse_comes_back_to_postfix_s_sender_with_our_words(pair: Pair) -> None:
    recipients = ["someone@other.example", "alice@a.example"]
    before = len(pair.here.mails("alice"))
    send(pair.there, recipients, b"Subject: two\r\n\r\ntwo of you\r\n", sender="carol@b.example")
    assert any(mail.endswith(b"\ntwo of you\n") for mail in pair.here.wait_mails("alice", before + 1))
    (bounce,) = pair.there.wait_mails("carol", 1)
    flat = b" ".join(bounce.split())
    assert b"<someone@other.example>: host 127.0.0.1[127.0.0.1] said: 553 5.7.1 sorry" in flat
    assert b"Status: 5.7.1" in bounce
