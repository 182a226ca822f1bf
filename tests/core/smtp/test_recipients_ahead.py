"""Which recipients the server machine sees behind the one that waits: those whose turn is next."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqmail.core.smtp import Offer, ServerSession, events
from openqmail.core.values import Recipient

OFFER = Offer(name=b"mx.test", size=5000, max_recipients=8, timeout=300.0, dsn=True)


def begun(offer=OFFER):
    """A session with an open transaction."""
    machine = ServerSession(offer)
    machine.accept()
    machine.receive_data(b"EHLO c\r\nMAIL FROM:<s@x>\r\n")
    for _ in range(2):
        machine.next_event()
        machine.accept()
    return machine


def rcpt(*names):
    return b"".join(b"RCPT TO:<%s@x>\r\n" % name for name in names)


def ahead(machine, most=100):
    return [one.address.removesuffix(b"@x") for one in machine.recipients_ahead(most)]


def test_they_are_seen_in_their_order_and_still_get_their_turn():
    machine = begun()
    machine.receive_data(rcpt(b"a", b"b", b"c", b"d"))
    for turn in range(4):
        assert machine.next_event().recipient.address == b"abcd"[turn : turn + 1] + b"@x"
        assert ahead(machine) == [b"b", b"c", b"d"][turn:]
        assert ahead(machine, 1) == [b"b", b"c", b"d"][turn : turn + 1]
        machine.accept()
    assert isinstance(machine.next_event(), events.NeedData)


@pytest.mark.parametrize(
    "line",
    [
        b"RSET\r\n",
        b"DATA\r\n",
        b"NOOP\r\n",
        b"BDAT 3\r\n",
        b"MAIL FROM:<s@x>\r\n",
        b"RCPT TO:<y@x> UNHEARD=OF\r\n",
        b"RCPT TO:<\xff@x>\r\n",
        b"RCPT TO:<y@x>\n",
        b"RCPT TO:<y@x>\r\r\n",
        b"RCPT TO:<y@x>",
        b"RCPT TO:<" + b"y" * 3000 + b"@x>\r\n",
        b"\r\n",
        b"\n",
    ],
)
def test_nothing_is_seen_behind_any_other_line(line):
    machine = begun()
    machine.receive_data(rcpt(b"a", b"b") + line + b"RCPT TO:<z@x>\r\n")
    machine.next_event()
    assert ahead(machine) == [b"b"]


def test_parameters_are_read_as_they_are_in_their_turn():
    machine = begun()
    machine.receive_data(rcpt(b"a") + b"rcpt to:<b@x> notify=never orcpt=rfc822;b@x  \r\n")
    machine.next_event()
    seen = machine.recipients_ahead(9)
    assert seen == [Recipient(b"b@x", b"NEVER", b"rfc822;b@x")]
    machine.accept()
    assert machine.next_event().recipient == seen[0]


def test_no_more_are_seen_than_a_message_may_have():
    machine = begun(msgspec.structs.replace(OFFER, max_recipients=3))
    machine.receive_data(rcpt(b"a", b"b", b"c", b"d", b"e"))
    for seen in ([b"b", b"c"], [b"c"], []):
        machine.next_event()
        assert ahead(machine) == seen
        machine.accept()


def test_none_are_seen_while_no_recipient_waits():
    machine = begun()
    machine.receive_data(rcpt(b"a", b"b"))
    assert ahead(machine) == []
    machine.next_event()
    machine.accept()
    assert ahead(machine) == []


LINES = st.sampled_from(
    [
        *[rcpt(b"r%d" % at) for at in range(4)],
        b"Rcpt To:<q@x> NOTIFY=SUCCESS\r\n",
        b'RCPT TO:<"a b"@x>\r\n',
        b"RCPT TO:<@route:c@x>\r\n",
        b"RCPT TO:<bad\r\n",
        b"RCPT TO:<w@x> NOTIFY=NEVER,DELAY\r\n",
        b"RCPT\r\n",
        b"NOOP\r\n",
        b"RSET\r\n",
        b"DATA\r\nx\r\n.\r\n",
        b"QUIT\r\n",
        b"RCPT TO:<n@x>\n",
    ]
)


@given(st.lists(LINES, max_size=12), st.integers(0, 6), st.integers(0, 20))
def test_who_is_seen_is_who_comes_next(lines, most, cut):
    machine = begun()
    text = rcpt(b"first") + b"".join(lines)
    machine.receive_data(text[: len(text) - cut])
    if not isinstance(machine.next_event(), events.Rcpt):
        return
    seen = machine.recipients_ahead(most)
    assert len(seen) <= most
    machine.accept()
    machine.data_to_send()
    for one in seen:
        assert machine.next_event() == events.Rcpt(one)
        machine.accept()
        assert machine.data_to_send()[:3] == b"250", "something else was answered before it"
    if len(seen) < most:
        following = machine.next_event()
        assert not isinstance(following, events.Rcpt) or machine.data_to_send(), "one more was to be seen"
