"""We hand mail to Postfix by smtproutes: bodies come out equal, and its refusals reach our senders."""

import smtplib
from collections.abc import Iterator
from typing import NamedTuple

import pytest

import postfix
from homes import Home, Place
from postfix import Postfix

BODIES = {
    "dots": b".\r\n..\r\n.a\r\n. \r\n",
    "empty lines": b"\r\n\r\n\r\nx\r\n\r\n",
    "a line of 998 octets": b"x" * 998 + b"\r\n",
    "eight bits": bytes(range(128, 256)) + b"\r\n",
    "large": b"From 0123456789\r\n" * 20_000,
    "nothing": b"",
}


class Pair(NamedTuple):
    here: Home
    there: Postfix


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """a.example is ours, and sends what is for b.example to Postfix, which knows carol, dave and jörg."""
    if why := postfix.why_not():
        pytest.skip(why)
    with Place() as place, Postfix(place.path / "postfix", "b.example", ["carol", "dave", "jörg"]) as there:
        here = place.home("a.example", "alice", "bob")
        here.control("smtproutes", f"b.example:[127.0.0.1]:{there.port}")
        here.start()
        yield Pair(here, there)


def send(home: Home, sender: str, to: list[str], mail: bytes, *options: str) -> None:
    with smtplib.SMTP("127.0.0.1", home.port) as client:
        client.sendmail(sender, to, mail, options)


def body(mail: bytes) -> bytes:
    return mail.partition(b"\n\n")[2]


def test_bodies_come_out_as_they_went_in(pair: Pair) -> None:
    for name, data in BODIES.items():
        mail = b"Subject: " + name.encode() + b"\r\n\r\n" + data
        send(pair.here, "alice@a.example", ["carol@b.example"], mail, "BODY=8BITMIME")
    got = {}
    for mail in pair.there.wait_mails("carol", len(BODIES)):
        subject = mail.partition(b"\nSubject: ")[2].partition(b"\n")[0].decode()
        got[subject] = body(mail)
        assert mail.startswith(b"Return-Path: <alice@a.example>\n")
    assert got.keys() == BODIES.keys()
    for name, data in BODIES.items():
        assert got[name] == data.replace(b"\r\n", b"\n"), name
    pair.here.wait_empty()


def test_what_postfix_refuses_bounces_with_its_words_and_the_others_get_the_mail(pair: Pair) -> None:
    to = ["nobody@b.example", "dave@b.example", "nowhere@b.example"]
    send(pair.here, "bob@a.example", to, b"Subject: three\r\n\r\nto three of you\r\n")
    (mail,) = pair.there.wait_mails("dave", 1)
    assert body(mail) == b"to three of you\n"
    pair.here.wait_empty()
    bounces = pair.here.wait_mails("bob", 1)
    for name in ("nobody", "nowhere"):
        said = f"550 5.1.1 <{name}@b.example>: Recipient address rejected: User unknown"
        assert sum(said.encode() in bounce for bounce in bounces) == 1
    for bounce in bounces:
        assert bounce.startswith(b"Return-Path: <>\n")
        assert b"<dave@b.example>" not in bounce
        assert b"to three of you\n" in bounce


def test_addresses_beyond_ascii_are_relayed(pair: Pair) -> None:
    mail = "From: jörg@a.example\r\nSubject: Grüße\r\n\r\nschöne\r\n".encode()
    with smtplib.SMTP("127.0.0.1", pair.here.port) as client:
        client.ehlo()
        client.sendmail("jörg@a.example", ["jörg@b.example"], mail, ["SMTPUTF8", "BODY=8BITMIME"])
    (got,) = pair.there.wait_mails("jörg", 1)
    assert "\nSubject: Grüße\n".encode() in got
    assert got.startswith("Return-Path: <jörg@a.example>\n".encode())
    assert body(got) == "schöne\n".encode()
