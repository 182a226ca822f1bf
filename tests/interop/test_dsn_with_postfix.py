"""DSN between us and Postfix, both ways; our reports are read by Python, by s-nail and by Postfix's users."""

import email
import smtplib
import subprocess
from collections.abc import Callable, Iterator
from email.message import Message
from typing import Any, NamedTuple

import pytest

import postfix
from homes import Home, Place
from postfix import Postfix


class Pair(NamedTuple):
    here: Home
    there: Postfix
    mute: Postfix


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """a.example is ours, b.example Postfix's, and they send to each other; c.example is a Postfix
    that does not offer DSN."""
    if why := postfix.why_not():
        pytest.skip(why)
    with Place() as place:
        here = place.home("a.example", "alice", "bob")
        routes = {"a.example": here.port}
        hidden = {"smtpd_discard_ehlo_keywords": "dsn"}
        with (
            Postfix(place.path / "b", "b.example", ["carol", "jörg"], routes) as there,
            Postfix(place.path / "c", "c.example", ["dave"], routes, hidden) as mute,
        ):
            here.control(
                "smtproutes",
                f"b.example:[127.0.0.1]:{there.port}\nc.example:[127.0.0.1]:{mute.port}",
            )
            here.start()
            yield Pair(here, there, mute)


def send(port: int, sender: str, to: str, subject: str, mail: str = "", rcpt: str = "") -> None:
    with smtplib.SMTP("127.0.0.1", port) as client:
        client.ehlo()
        assert client.has_extn("dsn")
        assert client.docmd(f"MAIL FROM:<{sender}>{mail}")[0] == 250
        code, words = client.docmd(f"RCPT TO:<{to}>{rcpt}")
        assert code == 250, words
        assert client.data(f"Subject: {subject}\r\n\r\nthe body\r\n".encode())[0] == 250


def reports(mails: list[bytes]) -> dict[str, list[Any]]:
    """By what was asked about (the envelope's id): the parts of each report."""
    found: dict[str, list[Any]] = {}
    for mail in mails:
        parsed = email.message_from_bytes(mail)
        if parsed.get_content_type() == "multipart/report":
            parts: Any = parsed.get_payload()
            found[parts[1].get_payload()[0]["Original-Envelope-Id"]] = parts
    return found


def report_on(envid: str, wait: Callable[[int], list[bytes]]) -> list[Any]:
    """The report on that envelope, however many mails come before it."""
    for count in range(1, 20):
        found = reports(wait(count))
        if envid in found:
            return found[envid]
    raise AssertionError


def recipient_of(parts: list[Any]) -> Message:
    status: Message = parts[1].get_payload()[1]
    return status


def test_postfix_s_report_of_a_delivery_there_comes_back(pair: Pair) -> None:
    send(
        pair.here.port,
        "alice@a.example",
        "carol@b.example",
        "told",
        " RET=HDRS ENVID=passed+2Don",
        " NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;first+2Bone@old.example",
    )
    parts = report_on("passed-on", lambda count: pair.here.wait_mails("alice", count))
    assert parts[1].get_payload()[0]["Reporting-MTA"] == "dns; b.example"
    recipient = recipient_of(parts)
    assert recipient["Action"] == "delivered"
    assert str(recipient["Original-Recipient"]).replace(" ", "") == "rfc822;first+one@old.example"
    pair.here.wait_empty()


def test_where_postfix_does_not_offer_dsn_we_tell_that_the_mail_was_relayed(pair: Pair) -> None:
    send(pair.here.port, "alice@a.example", "dave@c.example", "relayed", " ENVID=relayed", " NOTIFY=SUCCESS")
    parts = report_on("relayed", lambda count: pair.here.wait_mails("alice", count))
    assert parts[1].get_payload()[0]["Reporting-MTA"] == "dns; a.example"
    recipient = recipient_of(parts)
    assert (recipient["Action"], recipient["Remote-MTA"]) == ("relayed", "dns; [127.0.0.1]")
    assert str(recipient["Status"]).startswith("2.")
    assert "the body" not in parts[2].as_string()


def test_our_report_of_a_delivery_here_goes_back_through_postfix(pair: Pair) -> None:
    send(
        pair.there.port,
        "carol@b.example",
        "bob@a.example",
        "from there",
        " ENVID=here",
        " NOTIFY=SUCCESS ORCPT=rfc822;bob@old.example",
    )
    parts = report_on("here", lambda count: pair.there.wait_mails("carol", count))
    recipient = recipient_of(parts)
    assert (recipient["Action"], recipient["Final-Recipient"]) == ("delivered", "rfc822; bob@a.example")
    assert recipient["Original-Recipient"] == "rfc822; bob@old.example"


def test_a_bounce_of_ours_is_read_by_a_mail_program(pair: Pair, program: Callable[[str], str]) -> None:
    reader = program("s-nail")
    send(pair.there.port, "carol@b.example", "nobody@a.example", "no such user", " ENVID=bounced+2B1")
    parts = report_on("bounced+1", lambda count: pair.there.wait_mails("carol", count))
    recipient = recipient_of(parts)
    assert (recipient["Action"], recipient["Status"]) == ("failed", "5.1.1")
    assert parts[2].get_content_type() == "message/rfc822"
    mails = pair.there.wait_mails("carol", 1)
    mail = next(one for one in mails if b"bounced+1" in one)
    box = pair.there.folder / "bounce.mbox"
    box.write_bytes(b"From MAILER-DAEMON Sat Nov 28 10:00:00 2026\n" + mail + b"\n")
    ran = subprocess.run(
        [reader, "-n", "-R", "-f", str(box)],
        input=b"set rfc822-body-from_=\ntype 1\nexit\n",
        capture_output=True,
        timeout=30,
        check=False,
        env={"HOME": str(pair.there.folder), "LC_ALL": "C.UTF-8", "TERM": "dumb", "PATH": "/usr/bin:/bin"},
    )
    shown = ran.stdout.decode()
    assert "wasn't able to deliver your message" in shown and "the body" in shown, ran
    assert "message/delivery-status" in shown or "Action: failed" in shown, shown


def test_never_means_never(pair: Pair) -> None:
    before = len(pair.here.mails("bob"))
    send(pair.here.port, "bob@a.example", "nobody@a.example", "never", "", " NOTIFY=NEVER")
    send(pair.here.port, "bob@a.example", "nobody@b.example", "never", "", " NOTIFY=NEVER")
    send(pair.here.port, "bob@a.example", "nobody@a.example", "ever", " ENVID=ever", " NOTIFY=FAILURE")
    parts = report_on("ever", lambda count: pair.here.wait_mails("bob", before + count))
    assert recipient_of(parts)["Action"] == "failed"
    pair.here.wait_empty()
    assert len(pair.here.mails("bob")) == before + 1


def test_a_report_on_a_message_that_came_by_smtputf8(pair: Pair) -> None:
    with smtplib.SMTP("127.0.0.1", pair.here.port) as client:
        client.ehlo()
        mail = "Subject: Grüße\r\n\r\nschöne\r\n".encode()
        client.sendmail("jörg@b.example", ["niemand-ü@a.example"], mail, ["SMTPUTF8", "BODY=8BITMIME"])
    (got,) = [one for one in pair.there.wait_mails("jörg", 1) if b"multipart/report" in one]
    assert b"Content-Type: message/global-delivery-status\n" in got
    assert "\nFinal-Recipient: utf-8; niemand-ü@a.example\n".encode() in got
    assert b"Content-Type: message/global\n" in got and "\nSubject: Grüße\n".encode() in got
