"""What a program is told by a report: the enhanced status code, the host, and its words."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from openqmail.core import dsn
from openqmail.core.dsn.status import Action, Meaning, meaning
from openqmail.core.remote import report
from openqmail.core.values import Reply

TOO_LONG = b"I'm not going to try again; this message has been in the queue too long.\n"
ACTIONS: list[Action] = ["failed", "delayed", "delivered", "relayed", "expanded"]


def said(host: bytes, stage: str, code: int, *lines: bytes, enhanced: bytes = b"") -> bytes:
    return report.concluded(host, stage, Reply(code, enhanced, lines)).text


@pytest.mark.parametrize(
    ("text", "action", "status"),
    [
        (b"Sorry, no mailbox here by that name. (#5.1.1)\n", "failed", b"5.1.1"),
        (b"Unable to forward message: first. (#4.3.0)\nthen another (#5.2.2)\n", "failed", b"5.2.2"),
        (report.NOT_CONNECTED.text + TOO_LONG, "failed", b"4.4.1"),
        (b"temporarily broken\n" + TOO_LONG, "failed", b"4.4.7"),
        (b"This message is looping: it already has my Delivered-To line. (#5.4.6)\n", "failed", b"5.4.6"),
        (b"no code at all\n", "failed", b"5.0.0"),
        (b"", "failed", b"5.0.0"),
        (b"no code at all\n", "delayed", b"4.0.0"),
        (b"see #5.1.1.2 and (#5.12345.1) and 5.1.1\n", "failed", b"5.0.0"),
        (b"did 1+0+0\n", "delivered", b"2.0.0"),
        (b"odd (#5.1.1)\n", "delivered", b"2.0.0"),
        (b"did 0+3+0\nqp 7\n", "expanded", b"2.0.0"),
        (said(b"192.0.2.1", "rcpt", 550, b"no such user", enhanced=b"5.1.1"), "failed", b"5.1.1"),
        (said(b"192.0.2.1", "rcpt", 550, b"no such user"), "failed", b"5.1.1"),
        (said(b"192.0.2.1", "mail", 550, b"go away"), "failed", b"5.0.0"),
        (said(b"192.0.2.1", "message", 554, b"spam"), "failed", b"5.0.0"),
        (said(b"192.0.2.1", "rcpt", 550, b"sorry, no mailbox. (#5.7.1)"), "failed", b"5.7.1"),
        (said(b"192.0.2.1", "rcpt", 550, b"4.2.2 another class"), "failed", b"5.1.1"),
        (said(b"192.0.2.1", "rcpt", 552, b"full"), "failed", b"5.2.2"),
        (said(b"192.0.2.1", "rcpt", 599, b"what"), "failed", b"5.0.0"),
        (said(b"192.0.2.1", "rcpt", 450, b"greylisted", enhanced=b"4.7.1") + TOO_LONG, "failed", b"4.7.1"),
        (said(b"192.0.2.1", "rcpt", 451, b"later"), "delayed", b"4.3.0"),
        (report.refused(b"192.0.2.1", "greeting", Reply(554, b"5.7.1", (b"no",))).text, "delayed", b"4.7.1"),
        (said(b"192.0.2.1", "message", 250, b"queued", enhanced=b"2.6.0"), "relayed", b"2.6.0"),
        (said(b"192.0.2.1", "message", 250, b"queued"), "relayed", b"2.0.0"),
        (said(b"192.0.2.1", "rcpt", 550, b"5.1.1 two", b"5.1.1 lines"), "failed", b"5.1.1"),
    ],
)
def test_codes(text: bytes, action: Action, status: bytes) -> None:
    assert meaning(text, action).status == status


@pytest.mark.parametrize(
    ("text", "host"),
    [
        (said(b"192.0.2.1", "rcpt", 550, b"no"), b"[192.0.2.1]"),
        (said(b"2001:db8::1", "data", 550, b"no"), b"[IPv6:2001:db8::1]"),
        (said(b"192.0.2.1", "message", 250, b"ok"), b"[192.0.2.1]"),
        (said(b"192.0.2.1", "mail", 550, b"no"), b"[192.0.2.1]"),
        (report.died(b"192.0.2.1", whole_message_sent=True).text, b"[192.0.2.1]"),
        (report.unable(b"192.0.2.1", "no 8BITMIME (#5.6.3)").text, b"[192.0.2.1]"),
        (report.unable(b"2001:db8::1", "no 8BITMIME (#5.6.3)").text, b"[IPv6:2001:db8::1]"),
        (b"mx.example.org does not like recipient.\nRemote host said: 550 no\n", b"mx.example.org"),
        (b"mx;evil does not like recipient.\nRemote host said: 550 no\n", b""),
        (b"Sorry, no mailbox here by that name. (#5.1.1)\n", b""),
        (report.NOT_CONNECTED.text, b""),
    ],
)
def test_hosts(text: bytes, host: bytes) -> None:
    assert meaning(text, "failed").host == host


def test_the_words_of_a_reply_are_all_of_its_lines_and_no_more() -> None:
    text = said(b"192.0.2.1", "rcpt", 550, b"no such", b"user here", enhanced=b"5.1.1") + TOO_LONG
    assert meaning(text, "failed") == Meaning(
        b"5.1.1", b"[192.0.2.1]", b"550-5.1.1 no such 550 5.1.1 user here"
    )


@given(st.binary(max_size=300), st.sampled_from(ACTIONS))
@example(b"Remote host said: 550-", "failed")
@example(b"Remote host said: \n550 5.1.1 x", "relayed")
def test_whatever_a_report_says_the_code_is_one_that_fits(text: bytes, action: Action) -> None:
    found = meaning(text, action)
    assert re.fullmatch(rb"[245]\.[0-9]{1,3}\.[0-9]{1,3}", found.status)
    allowed = {"failed": b"45", "delayed": b"4"}.get(action, b"2")
    assert found.status[:1] in [allowed[at : at + 1] for at in range(len(allowed))]


# --- paragraphs -------------------------------------------------------------------------


address = st.binary(max_size=30)
text = st.one_of(
    st.binary(max_size=60),
    st.lists(st.sampled_from([b"\n", b"\n\n", b"<a>:\n", b"a", b">:", b"x\n"]), max_size=8).map(b"".join),
)


@given(st.lists(st.tuples(address, text), max_size=4))
@example([(b"a@b", b"\n"), (b"c@d", b"x\n\n\n")])
@example([(b"a@b", b"<c@d>:\nforged"), (b"c@d", b"")])
def test_paragraphs_are_read_as_they_were_written(failures: list[tuple[bytes, bytes]]) -> None:
    written = b"".join(dsn.report(one, what) for one, what in failures)
    found = dsn.paragraphs(written)
    assert [one.address for one in found] == [one.replace(b"\n", b"_") for one, _ in failures]
    again = [dsn.report(one.address, one.text).strip(b"\n") for one in found]
    assert again == [dsn.report(one, what).strip(b"\n") for one, what in failures]


def test_what_has_no_address_belongs_to_the_paragraph_before() -> None:
    found = dsn.paragraphs(b"lost\n\n<a@b>:\nfirst\n\nsecond\nthird\n\n\n<c@d>:\n\n")
    assert found == [
        dsn.Paragraph(b"a@b", b"first\nsecond\nthird\n"),
        dsn.Paragraph(b"c@d", b""),
    ]
