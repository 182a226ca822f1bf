"""Messages in chunks between us and real servers: Exim sends us BDAT, and takes it from us, as Postfix does.

Postfix never sends BDAT (its smtp(8) knows DATA alone), so as a client of ours it is no proof of CHUNKING:
that it finds it offered and delivers all the same is in test_postfix_relays_to_us.
"""

import smtplib
from collections.abc import Iterator
from typing import Any

import pytest

import exim
import postfix
from exim import Exim
from homes import Home, Place
from postfix import Postfix

BODIES = [
    b"a line\r\n",
    b".\r\n..\r\n.a\r\n",
    bytes(range(160, 256)) + b"\r\n",
    b"x" * 998 + b"\r\n",
    b"QUIT\r\nMAIL FROM:<evil@c.example>\r\n",
]
LARGE = b"From 0123456789\r\n" * 60_000


def send(port: int, data: bytes, to: str) -> None:
    with smtplib.SMTP("127.0.0.1", port) as client:
        client.ehlo()
        client.sendmail("alice@a.example", [to], b"Subject: x\r\n\r\n" + data, ["BODY=8BITMIME"])


def bodies(mails: list[bytes]) -> list[bytes]:
    return sorted(mail.replace(b"\r\n", b"\n").partition(b"\n\n")[2] for mail in mails)


def stored(sent: list[bytes]) -> list[bytes]:
    return sorted(data.replace(b"\r\n", b"\n") for data in sent)


def test_exim_sends_us_chunks_and_they_arrive_to_the_octet() -> None:
    if why := exim.why_not():
        pytest.skip(why)
    sent = [*BODIES, LARGE]
    with Place() as place:
        here = place.home("a.example", "alice")
        here.start()
        with Exim(place.path / "exim", "b.example", [], routes={"a.example": here.port}) as there:
            for data in sent:
                send(there.port, data, "alice@a.example")
            assert bodies(here.wait_mails("alice", len(sent))) == stored(sent)
            left = [line for line in there.log().splitlines() if " => alice@a.example " in line]
            assert len(left) == len(sent) and all(" K " in line for line in left), left
        assert here.stop() == 0


@pytest.fixture(params=["postfix", "exim"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Home, Any]]:
    """a.example is ours, and sends what is for b.example to the other, in chunks."""
    module: Any = {"postfix": postfix, "exim": exim}[request.param]
    if why := module.why_not():
        pytest.skip(why)
    with Place() as place:
        folder = place.path / "there"
        if request.param == "postfix":
            settings = {"debug_peer_list": "127.0.0.1"}  # its log has every command
            there: Any = Postfix(folder, "b.example", ["carol"], settings=settings)
        else:
            there = Exim(folder, "b.example", ["carol"])
        here = place.home("a.example", "alice")
        here.control("smtproutes", f"b.example:[127.0.0.1]:{there.port}")
        here.control("chunkingremote", "1")
        with there:
            here.start()
            yield here, there
            assert here.stop() == 0


def test_chunks_of_ours_arrive_to_the_octet(pair: tuple[Home, Any]) -> None:
    """The first message of a connection leaves so; on one that was kept, or large, it leaves by DATA."""
    here, there = pair
    sent = [b"".join(BODIES), *BODIES, LARGE]
    for at, data in enumerate(sent, 1):
        send(here.port, data, "carol@b.example")
        there.wait_mails("carol", at)
        here.wait_empty()
        if at == 1:
            assert in_chunks(there) == 1
    assert bodies(there.wait_mails("carol", len(sent))) == stored(sent)


def test_a_recipient_that_is_refused_with_chunks_ahead_bounces_and_the_next_mail_is_whole(
    pair: tuple[Home, Any],
) -> None:
    here, there = pair
    send(here.port, b"QUIT\r\n" * 1000, "nobody@b.example")
    (bounce,) = here.wait_mails("alice", 1)
    assert b"nobody@b.example" in bounce and b"550 " in bounce
    send(here.port, b"a line\r\n", "carol@b.example")
    assert bodies(there.wait_mails("carol", 1)) == [b"a line\n"]
    here.wait_empty()


def in_chunks(there: Any) -> int:
    """Messages that came so, by what the other side has logged."""
    if isinstance(there, Exim):
        return sum(" <= " in line and " K " in line for line in there.log().splitlines())
    return sum("]: BDAT " in line and "LAST" in line for line in there.said().splitlines())
