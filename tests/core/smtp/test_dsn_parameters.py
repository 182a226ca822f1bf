"""RFC 3461's parameters: what the server takes, what it refuses, and what the client passes on."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from openqmail.core.smtp import ClientSession, Offer, ServerSession, Transaction, events, notify
from openqmail.core.values import Recipient

OFFER = Offer(name=b"mx.test", size=0, max_recipients=100, timeout=300.0, dsn=True)
LONG_ENVID, LONG_ORCPT = b"e" * 100, b"rfc822;" + b"o" * 493


def answer(*lines: bytes) -> tuple[bytes, list[events.Event]]:
    """The last answer to some commands after EHLO, and what the machine told of MAIL and RCPT."""
    machine, told = ServerSession(OFFER), []
    machine.accept()
    for line in (b"EHLO c", *lines):
        machine.data_to_send()
        machine.receive_data(line + b"\r\n")
        while not isinstance(event := machine.next_event(), events.NeedData):
            if isinstance(event, events.Mail | events.Rcpt):
                told.append(event)
            machine.accept()
    return machine.data_to_send(), told


def test_dsn_is_offered() -> None:
    assert b"\r\n250-DSN\r\n" in OFFER.ehlo


def test_what_is_given_is_kept_as_it_was_written() -> None:
    said, told = answer(
        b"MAIL FROM:<s@x> RET=hdrs ENVID=QQ+2B314+3D159",
        b"RCPT TO:<r@x> NOTIFY=success,Delay ORCPT=rfc822;Bob+2B1@x.test",
    )
    assert said.startswith(b"250 ")
    assert told == [
        events.Mail(b"s@x", ret=b"HDRS", envid=b"QQ+2B314+3D159"),
        events.Rcpt(Recipient(b"r@x", b"SUCCESS,DELAY", b"rfc822;Bob+2B1@x.test")),
    ]
    _, told = answer(b"MAIL FROM:<> ENVID=" + LONG_ENVID, b"RCPT TO:<r@x> NOTIFY=NEVER ORCPT=" + LONG_ORCPT)
    assert told == [events.Mail(b"", envid=LONG_ENVID), events.Rcpt(Recipient(b"r@x", b"NEVER", LONG_ORCPT))]


@pytest.mark.parametrize(
    "parameters",
    [
        b"RET",
        b"RET=ALL",
        b"RET=FULL,HDRS",
        b"RET=FULL RET=HDRS",
        b"ENVID",
        b"ENVID=a ENVID=a",
        b"ENVID=a+2b",  # hexadecimal digits are upper case
        b"ENVID=a+2",
        b"ENVID=a+0A",  # a line end
        b"ENVID=a+C3+BC",
        b"ENVID=" + "ü".encode(),
        b"ENVID=" + LONG_ENVID + b"e",
    ],
)
def test_parameters_of_mail_that_are_none(parameters: bytes) -> None:
    assert answer(b"MAIL FROM:<s@x> SMTPUTF8 " + parameters)[0].startswith(b"501 5.5.4 ")


@pytest.mark.parametrize(
    "parameters",
    [
        b"NOTIFY",
        b"NOTIFY=ALWAYS",
        b"NOTIFY=NEVER,FAILURE",
        b"NOTIFY=FAILURE,NEVER",
        b"NOTIFY=DELAY,DELAY",
        b"NOTIFY=DELAY,",
        b"NOTIFY=,DELAY",
        b"NOTIFY=NEVER NOTIFY=NEVER",
        b"ORCPT=bob@x.test",
        b"ORCPT=;bob@x.test",
        b"ORCPT=rfc822;",
        b"ORCPT=rfc_822;bob@x.test",
        b"ORCPT=rfc822-;bob@x.test",
        b"ORCPT=" + b"x" * 65 + b";bob@x.test",
        b"ORCPT=rfc822;bob+0D+0AX-Injected:+20yes",
        b"ORCPT=rfc822;a ORCPT=rfc822;a",
        b"ORCPT=rfc822;" + "jörg@x.test".encode(),
        b"ORCPT=utf-8;" + "jörg@x.test".encode(),  # without SMTPUTF8
        b"ORCPT=utf-8;j\\x{A}@x.test",
        b"ORCPT=utf-8;j\\x{D800}@x.test",
        b"ORCPT=utf-8;j\\x{110000}@x.test",
        b"ORCPT=utf-8;j\\n@x.test",
        b"ORCPT=" + LONG_ORCPT + b"o",
    ],
)
def test_parameters_of_rcpt_that_are_none(parameters: bytes) -> None:
    said, told = answer(b"MAIL FROM:<s@x>", b"RCPT TO:<r@x> " + parameters)
    assert said.startswith(b"501 5.5.4 ") and len(told) == 1


def test_an_original_recipient_beyond_ascii() -> None:
    _, told = answer(
        b"MAIL FROM:<s@x> SMTPUTF8",
        b"RCPT TO:<r@x> ORCPT=utf-8;" + "jörg@x.test".encode(),
        b"RCPT TO:<r@x> ORCPT=utf-8;j\\x{F6}rg@x.test",
    )
    originals = [event.recipient.orcpt for event in told if isinstance(event, events.Rcpt)]
    assert originals == ["utf-8;jörg@x.test".encode(), b"utf-8;j\\x{F6}rg@x.test"]
    assert [notify.decode_utf8(one.partition(b";")[2]).decode() for one in originals] == ["jörg@x.test"] * 2


@given(st.text(st.characters(min_codepoint=0x20, exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30))
@example("jörg+\\x=a@x.test")
def test_an_address_in_ascii_says_the_same(address: str) -> None:
    written = notify.encode_utf8(address.encode())
    assert written.isascii() and notify.is_orcpt(b"utf-8;" + written, False)
    assert notify.decode_utf8(written).decode() == address


def said_to(ehlo: bytes, transaction: Transaction) -> bytes:
    session = ClientSession(b"c.test")
    session.receive_data(b"220 hi\r\n")
    session.next_event()
    session.receive_data(ehlo)
    session.next_event()
    session.data_to_send()
    session.begin(transaction)
    return session.data_to_send()


WISHES = Transaction(
    b"s@x",
    (b"a@y", b"b@y", b"c@y"),
    envid=b"QQ+2B1",
    ret=b"HDRS",
    dsn=((b"SUCCESS,DELAY", b"rfc822;A@y"), (b"", b""), (b"NEVER", "utf-8;jörg@y".encode())),
)


def test_the_client_says_them_to_a_peer_that_offers_dsn() -> None:
    assert said_to(b"250-hi\r\n250-PIPELINING\r\n250 DSN\r\n", WISHES) == (
        b"MAIL FROM:<s@x> RET=HDRS ENVID=QQ+2B1\r\n"
        b"RCPT TO:<a@y> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;A@y\r\n"
        b"RCPT TO:<b@y>\r\n"
        b"RCPT TO:<c@y> NOTIFY=NEVER ORCPT=utf-8;j\\x{F6}rg@y\r\n"
        b"DATA\r\n"
    )


def test_the_client_says_none_to_any_other() -> None:
    assert said_to(b"250-hi\r\n250 PIPELINING\r\n", WISHES) == (
        b"MAIL FROM:<s@x>\r\nRCPT TO:<a@y>\r\nRCPT TO:<b@y>\r\nRCPT TO:<c@y>\r\nDATA\r\n"
    )


@given(st.binary(max_size=40), st.binary(max_size=40))
@example(b"NEVER\r\nQUIT", b"rfc822;a> X")
def test_nothing_kept_in_a_queue_can_add_a_command_or_a_parameter(wish: bytes, original: bytes) -> None:
    said = said_to(
        b"250-hi\r\n250-PIPELINING\r\n250 DSN\r\n",
        Transaction(b"s@x", (b"a@y",), envid=original, ret=wish, dsn=((wish, original),)),
    )
    assert said.count(b"\r\n") == 3 and said.count(b"\n") == 3 and said.count(b"\r") == 3
    mail, rcpt, data = said[:-2].split(b"\r\n")
    assert data == b"DATA" and mail.count(b" ") <= 3 and rcpt.count(b" ") <= 3


def test_both_machines_agree() -> None:
    heard = said_to(b"250-hi\r\n250-PIPELINING\r\n250-SMTPUTF8\r\n250 DSN\r\n", WISHES)
    _, told = answer(*heard.split(b"\r\n")[:4])
    assert isinstance(told[0], events.Mail) and (told[0].ret, told[0].envid) == (WISHES.ret, WISHES.envid)
    kept = [(one.recipient.notify, one.recipient.orcpt) for one in told if isinstance(one, events.Rcpt)]
    assert kept == [*WISHES.dsn[:2], (b"NEVER", b"utf-8;j\\x{F6}rg@y")]
