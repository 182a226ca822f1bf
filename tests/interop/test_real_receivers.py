"""Our service hands mail to Exim, to aiosmtpd and, by LMTP, to Dovecot: bodies come out equal, a refused
recipient keeps no other from its mail, and what they refuse comes back with their words.
"""

import smtplib
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

import aiosmtpd_sink
import dovecot_lmtp
import exim
from aiosmtpd_sink import Aiosmtpd
from dovecot_lmtp import DovecotLmtp
from exim import Exim
from homes import Home, Place

BODIES = {
    "plain": b"a line\r\n",
    "dots": b".\r\n..\r\n.a\r\n. \r\n",
    "eight bits": "Grüße\r\n".encode() + bytes(range(160, 256)) + b"\r\n",
    "a line of 998 octets": b"x" * 998 + b"\r\n",
    "large": b"From 0123456789\r\n" * 60_000,
}
PEOPLE = [f"user{number}" for number in range(20)]
UTF8 = "jörg"


class Pair(NamedTuple):
    here: Home
    there: Any
    smtputf8: bool


@pytest.fixture(scope="module", params=["exim", "aiosmtpd", "dovecot"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """a.example is ours, and sends what is for b.example to the other."""
    module = {"exim": exim, "aiosmtpd": aiosmtpd_sink, "dovecot": dovecot_lmtp}[request.param]
    if why := module.why_not():
        pytest.skip(why)
    with Place() as place:
        users = ["carol", "dave", UTF8, *PEOPLE]
        folder = place.path / request.param
        there: Any = {
            "exim": lambda: Exim(folder, "b.example", users),
            "aiosmtpd": lambda: Aiosmtpd(users),
            "dovecot": lambda: DovecotLmtp(folder, users),
        }[request.param]()
        with there:
            here = place.home("a.example", "alice", "bob")
            way = "lmtp!" if request.param == "dovecot" else ""
            here.control("smtproutes", f"b.example:{way}[127.0.0.1]:{there.port}")
            here.start()
            yield Pair(here, there, smtputf8=request.param != "dovecot")


def send(home: Home, sender: str, to: list[str], mail: bytes, *options: str) -> None:
    with smtplib.SMTP("127.0.0.1", home.port) as client:
        client.ehlo()
        client.sendmail(sender, to, mail, options)


def subject(mail: bytes) -> str:
    return mail.partition(b"Subject: ")[2].partition(b"\n")[0].decode()


def body(mail: bytes) -> bytes:
    return mail.partition(b"\n\n")[2]


def test_bodies_come_out_as_they_went_in(pair: Pair) -> None:
    for name, data in BODIES.items():
        mail = b"Subject: " + name.encode() + b"\r\n\r\n" + data
        send(pair.here, "alice@a.example", ["carol@b.example"], mail, "BODY=8BITMIME")
    pair.here.wait_empty()
    got = {subject(mail): body(mail) for mail in pair.there.wait_mails("carol", len(BODIES))}
    assert got.keys() == BODIES.keys()
    for name, data in BODIES.items():
        assert got[name] == data.replace(b"\r\n", b"\n"), name


def test_of_many_recipients_the_one_that_is_refused_bounces_alone(pair: Pair) -> None:
    to = [f"{name}@b.example" for name in (*PEOPLE[:10], "nobody", *PEOPLE[10:])]
    send(pair.here, "bob@a.example", to, b"Subject: many\r\n\r\nto many\r\n")
    for name in PEOPLE:
        assert [body(mail) for mail in pair.there.wait_mails(name, 1)] == [b"to many\n"]
    pair.here.wait_empty()
    (bounce,) = pair.here.wait_mails("bob", 1)
    assert b"nobody@b.example" in bounce and b"550 " in bounce
    assert b"user1@b.example>:" not in bounce


def test_addresses_beyond_ascii(pair: Pair) -> None:
    if not pair.smtputf8:
        pytest.skip("Dovecot 2.3 does not offer SMTPUTF8")
    mail = "From: jörg@a.example\r\nSubject: Grüße\r\n\r\nschöne\r\n".encode()
    send(pair.here, "jörg@a.example", [f"{UTF8}@b.example"], mail, "SMTPUTF8", "BODY=8BITMIME")
    (got,) = pair.there.wait_mails(UTF8, 1)
    assert "Subject: Grüße\n".encode() in got and body(got) == "schöne\n".encode()
