"""A body that leaves by BDAT with its envelope: in one write, to the octet, and whatever is answered."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqmail.core.message.lines import chunk_form, unfit, wire_form
from openqmail.core.smtp import ClientSession, Offer, ServerSession, Transaction, client_events, events
from openqmail.core.smtp.lmtp import LmtpSession
from openqmail.core.values import Reply

OFFER = Offer(name=b"mx.test", size=0, max_recipients=1000, timeout=300.0)
LINES = st.one_of(st.sampled_from([b"", b".", b"..", b".\xe9", b"z" * 998]), st.binary(max_size=30))
BODY = st.lists(LINES, max_size=12).map(b"\n".join).filter(lambda body: body and unfit(body) is None)
EHLO = b"220 mx\r\n250-mx\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 CHUNKING\r\n"
TWO = Transaction(b"s@x", (b"a@y", b"b@y"))


def session(ehlo: bytes = EHLO, kind: type[ClientSession] = ClientSession) -> ClientSession:
    client = kind(b"c.test")
    for reply in ehlo.split(b"\r\n", 1):
        client.receive_data(reply + b"\r\n" if reply.startswith(b"220") else reply)
        client.next_event()
    client.data_to_send()
    assert client.ready
    return client


def told(client: ClientSession, replies: bytes) -> list[client_events.Event]:
    client.receive_data(replies)
    found: list[client_events.Event] = []
    while not isinstance(event := client.next_event(), client_events.NeedData):
        found.append(event)
    return found


def codes(event: client_events.Event) -> list[tuple[str, int]]:
    assert isinstance(event, client_events.Finished)
    return [(stage, reply.code) for stage, reply in event.outcomes]


def test_all_leaves_in_one_write() -> None:
    client = session()
    assert client.begin(TWO, b"x\r\n.\r\n") is True
    assert client.data_to_send() == (
        b"MAIL FROM:<s@x>\r\nRCPT TO:<a@y>\r\nRCPT TO:<b@y>\r\nBDAT 6 LAST\r\nx\r\n.\r\n"
    )
    (finished,) = told(client, b"250 ok\r\n250 ok\r\n550 no\r\n250 queued\r\n")
    assert codes(finished) == [("message", 250), ("rcpt", 550)]
    assert client.ready
    client.begin(TWO)
    assert client.data_to_send().startswith(b"MAIL ")


@pytest.mark.parametrize("without", [b"PIPELINING", b"CHUNKING"])
def test_to_a_peer_that_lacks_an_extension_it_waits_for_the_go_ahead(without: bytes) -> None:
    client = session(EHLO.replace(without, b"OTHER"))
    assert client.begin(TWO, b"x\r\n") is False
    assert b"BDAT" not in client.data_to_send()


def test_lmtp_waits_for_the_go_ahead() -> None:
    client = session(kind=LmtpSession)
    assert client.begin(TWO, b"x\r\n") is False
    assert b"BDAT" not in client.data_to_send()


@pytest.mark.parametrize(
    ("replies", "outcomes"),
    [
        (b"451 no\r\n503 no\r\n503 no\r\n503 no\r\n", [("mail", 451)] * 2),
        (b"250 ok\r\n550 no\r\n450 no\r\n554 no valid recipients\r\n", [("rcpt", 550), ("rcpt", 450)]),
        (b"250 ok\r\n250 ok\r\n250 ok\r\n552 too big\r\n", [("message", 552)] * 2),
        (b"250 ok\r\n550 no\r\n250 ok\r\n452 later\r\n", [("rcpt", 550), ("message", 452)]),
    ],
)
def test_what_is_refused_is_told_and_rset_goes_before_the_next(
    replies: bytes, outcomes: list[tuple[str, int]]
) -> None:
    client = session()
    client.begin(TWO, b"x\r\n")
    client.data_to_send()
    (finished,) = told(client, replies)
    assert codes(finished) == outcomes
    client.begin(TWO)
    assert client.data_to_send().startswith(b"RSET\r\nMAIL ")


@pytest.mark.parametrize("replies", [b"354 go ahead\r\n", b"250 ok\r\n250 ok\r\n250 ok\r\n354 go ahead\r\n"])
def test_354_is_no_answer_to_a_chunk(replies: bytes) -> None:
    client = session()
    client.begin(TWO, b"x\r\n")
    (ended,) = told(client, replies)
    assert isinstance(ended, client_events.Ended)


def test_a_peer_that_leaves_before_it_answers_the_chunk_has_accepted_nothing() -> None:
    client = session()
    client.begin(TWO, b"x\r\n")
    ended = told(client, b"250 ok\r\n250 ok\r\n550 no\r\n") + told(client, b"")
    assert isinstance(ended[-1], client_events.Ended) and ended[-1].stage == "chunk"
    assert ended[-1].outcomes[0] is None and ended[-1].outcomes[1] is not None


@given(BODY)
@settings(max_examples=300)
def test_both_forms_on_the_wire_are_one_message(body: bytes) -> None:
    wire, size = wire_form(body)
    lines = chunk_form(wire)
    complete = body if body.endswith(b"\n") else body + b"\n"
    assert lines == complete.replace(b"\n", b"\r\n")
    assert len(lines) - size in (0, 2)


@given(st.lists(BODY, min_size=1, max_size=3), st.integers(1, 2000), st.booleans())
@settings(max_examples=200)
def test_what_leaves_arrives_to_the_octet(bodies: list[bytes], step: int, refuse: bool) -> None:
    client, server = ClientSession(b"c.test"), ServerSession(OFFER)
    server.accept()
    mails: list[bytes] = []
    body: list[bytes] = []
    waiting = list(bodies)
    while True:
        up, down = client.data_to_send(), server.data_to_send()
        if not up and not down:
            break
        for at in range(0, len(up), step):
            server.receive_data(up[at : at + step])
            while not isinstance(event := server.next_event(), events.NeedData):
                assert not isinstance(event, events.Aborted)
                if isinstance(event, events.Data):
                    body.clear()
                elif isinstance(event, events.Chunk):
                    body.append(event.data)
                    continue
                elif isinstance(event, events.MessageEnd):
                    mails.append(b"".join(body))
                if refuse and isinstance(event, events.Rcpt):
                    server.send(Reply(550, b"5.1.1", (b"no",)))
                else:
                    server.accept()
        for event in told(client, down) if down else []:
            if isinstance(event, client_events.Ready | client_events.Finished) and waiting:
                whole = chunk_form(wire_form(waiting.pop(0))[0])
                assert client.begin(Transaction(b"s@x", (b"r@y",), 0, True), whole)
    assert not waiting
    ends = [one if one.endswith(b"\n") else one + b"\n" for one in bodies]
    assert mails == ([] if refuse else ends)
