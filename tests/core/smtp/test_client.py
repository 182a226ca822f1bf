"""The client machine: what it says at each step, and what it makes of each answer."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqmail.core.smtp import ClientSession, ExtensionMissing, Transaction
from openqmail.core.smtp import client_events as events
from openqmail.core.values import PermanentFailure, Reply

FULL = (
    b"250-mx.test hello\r\n250-PIPELINING\r\n250-SIZE 1000\r\n"
    b"250-8bitmime\r\n250-SMTPUTF8\r\n250 AUTH PLAIN LOGIN\r\n"
)
BARE = b"250 mx.test\r\n"
TWO = Transaction(b"s@x", (b"a@y", b"b@y"))


class Peer:
    """A scripted peer beside the machine."""

    def __init__(self) -> None:
        self.session = ClientSession(b"client.test")

    def says(self, data: bytes) -> list[events.Event]:
        self.session.receive_data(data)
        found: list[events.Event] = []
        while not isinstance(event := self.session.next_event(), events.NeedData):
            found.append(event)
        return found

    def heard(self) -> bytes:
        return self.session.data_to_send()

    def ready(self, ehlo: bytes = FULL) -> "Peer":
        assert self.says(b"220 mx.test ESMTP\r\n") == []
        assert self.heard() == b"EHLO client.test\r\n"
        found = self.says(ehlo)
        assert len(found) == 1 and isinstance(found[0], events.Ready) and self.session.ready
        return self


def outcomes(found: list[events.Event]) -> list[tuple[str, int]]:
    assert isinstance(found[0], events.Finished)
    return [(stage, reply.code) for stage, reply in found[0].outcomes]


def test_a_transaction_leaves_in_one_write_where_pipelining_is_offered() -> None:
    peer = Peer().ready()
    peer.session.begin(Transaction(b"s@x", (b"a@y", b"b c@y"), 42, eight_bit=True))
    assert peer.heard() == (
        b'MAIL FROM:<s@x> SIZE=42 BODY=8BITMIME\r\nRCPT TO:<a@y>\r\nRCPT TO:<"b c"@y>\r\nDATA\r\n'
    )
    assert peer.says(b"250 2.1.0 ok\r\n250 ok\r\n550 5.1.1 no such user\r\n") == []
    assert peer.says(b"354 go\r\n") == [events.BodyWanted()]
    peer.session.send_body(b".hello\n")
    peer.session.send_body(b".")
    peer.session.end_body()
    assert peer.heard() == b"..hello\r\n..\r\n.\r\n"
    found = peer.says(b"250 2.0.0 queued\r\n")
    assert found == [
        events.Finished(
            (
                ("message", Reply(250, b"2.0.0", (b"queued",))),
                ("rcpt", Reply(550, b"5.1.1", (b"no such user",))),
            )
        )
    ]
    assert peer.session.ready and peer.session.deadline() is None


def test_without_pipelining_one_command_at_a_time() -> None:
    peer = Peer().ready(BARE)
    peer.session.begin(TWO)
    for heard, said in (
        (b"MAIL FROM:<s@x>\r\n", b"250 ok\r\n"),
        (b"RCPT TO:<a@y>\r\n", b"250 ok\r\n"),
        (b"RCPT TO:<b@y>\r\n", b"451 later\r\n"),
    ):
        assert peer.heard() == heard
        assert peer.says(said) == []
    assert peer.heard() == b"DATA\r\n"
    assert peer.says(b"354\r\n") == [events.BodyWanted()]
    peer.session.end_body()
    assert outcomes(peer.says(b"250\r\n")) == [("message", 250), ("rcpt", 451)]


def test_ehlo_refused_means_helo() -> None:
    peer = Peer()
    peer.says(b"220 mx\r\n")
    peer.heard()
    assert peer.says(b"502 what\r\n") == [] and peer.heard() == b"HELO client.test\r\n"
    assert peer.says(b"250 mx\r\n") == [events.Ready({})]


@pytest.mark.parametrize(
    ("script", "stage", "code"),
    [
        ([b"554 no\r\n"], "greeting", 554),
        ([b"421 busy\r\n"], "greeting", 421),
        ([b"220 hi\r\n", b"451 no\r\n"], "helo", 451),
        ([b"220 hi\r\n", b"500 no\r\n", b"550 no\r\n"], "helo", 550),
        ([b"220 hi\r\n", b"500 no\r\n", b"354 odd\r\n"], "helo", 354),
    ],
)
def test_a_peer_that_wants_no_mail(script: list[bytes], stage: str, code: int) -> None:
    peer = Peer()
    found = [event for said in script for event in peer.says(said)]
    assert isinstance(found[0], events.Refused) and (found[0].stage, found[0].reply.code) == (stage, code)
    assert not peer.session.ready
    if code != 421:
        peer.heard()
        peer.session.quit()
        assert peer.heard() == b"QUIT\r\n"
    else:
        assert isinstance(found[1], events.Ended) and peer.session.closing


@pytest.mark.parametrize("ehlo", [FULL, BARE])
@pytest.mark.parametrize("code", [450, 550])
def test_a_sender_refused(ehlo: bytes, code: int) -> None:
    peer = Peer().ready(ehlo)
    peer.session.begin(TWO)
    found = peer.says(b"%d no\r\n" % code)
    if ehlo is FULL:
        assert found == [] and peer.says(b"503 x\r\n503 x\r\n") == []
        found = peer.says(b"503 x\r\n")
    assert outcomes(found) == [("mail", code), ("mail", code)] and peer.session.ready


@pytest.mark.parametrize("ehlo", [FULL, BARE])
def test_all_recipients_refused_and_the_next_transaction_begins_with_rset(ehlo: bytes) -> None:
    peer = Peer().ready(ehlo)
    peer.session.begin(TWO)
    found = peer.says(b"250 ok\r\n")
    found += peer.says(b"550 a\r\n")
    found += peer.says(b"450 b\r\n")
    if ehlo is FULL:
        found += peer.says(b"554 none\r\n")
    assert outcomes(found) == [("rcpt", 550), ("rcpt", 450)]
    peer.heard()
    peer.session.begin(TWO)
    assert peer.heard().startswith(b"RSET\r\n" if ehlo is BARE else b"RSET\r\nMAIL FROM:<s@x>\r\n")
    peer.says(b"250 ok\r\n")
    if ehlo is BARE:
        assert peer.heard() == b"MAIL FROM:<s@x>\r\n"


def test_354_for_nobody_gets_an_empty_message() -> None:
    peer = Peer().ready()
    peer.session.begin(TWO)
    peer.heard()
    assert peer.says(b"250 ok\r\n550 a\r\n550 b\r\n354 go\r\n") == []
    assert peer.heard() == b".\r\n"
    assert outcomes(peer.says(b"554 no valid recipients\r\n")) == [("rcpt", 550), ("rcpt", 550)]
    peer.session.begin(TWO)
    assert peer.heard().startswith(b"MAIL FROM")


@pytest.mark.parametrize("ehlo", [FULL, BARE])
def test_data_refused(ehlo: bytes) -> None:
    peer = Peer().ready(ehlo)
    peer.session.begin(TWO)
    found = [
        e for said in (b"250 ok\r\n", b"250 ok\r\n", b"550 b\r\n", b"451 no\r\n") for e in peer.says(said)
    ]
    assert outcomes(found) == [("data", 451), ("rcpt", 550)]


@pytest.mark.parametrize("code", [250, 252, 451, 554])
def test_the_answer_to_the_message_is_everybodys(code: int) -> None:
    peer = Peer().ready()
    peer.session.begin(TWO)
    peer.says(b"250 ok\r\n250 ok\r\n251 ok\r\n354 go\r\n")
    peer.session.end_body()
    assert peer.session.deadline() == 600.0
    assert outcomes(peer.says(b"%d-a\r\n%d b\r\n" % (code, code))) == [("message", code)] * 2


def test_many_recipients_and_transactions_on_one_connection() -> None:
    peer = Peer().ready()
    for size in (1, 250, 1):
        peer.session.begin(Transaction(b"", tuple(b"u%d@y" % i for i in range(size))))
        assert peer.heard().count(b"RCPT TO:") == size
        assert peer.says(b"250 ok\r\n" * (size + 1) + b"354 go\r\n") == [events.BodyWanted()]
        peer.session.send_body(b"x\n")
        peer.session.end_body()
        assert outcomes(peer.says(b"250 ok\r\n")) == [("message", 250)] * size
        peer.heard()
    peer.session.quit()
    assert peer.heard() == b"QUIT\r\n"
    assert peer.says(b"221 bye\r\n") == [events.Ended("the session was closed", "quit")]
    assert peer.session.closing


SCRIPT = [
    (b"220 mx\r\n", "greeting"),
    (FULL, "ehlo"),
    (b"250 ok\r\n", "mail"),
    (b"550 a\r\n", "rcpt"),
    (b"250 ok\r\n", "rcpt"),
    (b"354 go\r\n", "data"),
    (b"250 ok\r\n", "message"),
]


def until(step: int) -> Peer:
    """A peer that has said the first lines of the script."""
    peer = Peer()
    for said, stage in SCRIPT[:step]:
        peer.says(said)
        if stage == "ehlo":
            peer.session.begin(TWO)
        if stage == "data":
            peer.session.send_body(b"x\n")
            peer.session.end_body()
    return peer


@pytest.mark.parametrize("step", range(len(SCRIPT)))
@pytest.mark.parametrize(
    "said", [b"", b"hello\r\n", b"250\n", b"250 a\rb\r\n", b"199 x\r\n", b"666 x\r\n", b"250-a\r\n251 b\r\n"]
)
def test_a_broken_peer_ends_the_session_and_says_where(step: int, said: bytes) -> None:
    peer = until(step)
    found = peer.says(said)
    assert len(found) == 1 and isinstance(found[0], events.Ended)
    assert found[0].stage == SCRIPT[step][1] and peer.session.closing
    if step > 3:
        assert found[0].outcomes == (("rcpt", Reply(550, b"", (b"a",))), None)
    assert peer.says(b"250 ok\r\n") == [] and peer.session.deadline() is None


@pytest.mark.parametrize("step", range(len(SCRIPT)))
def test_silence_ends_the_session(step: int) -> None:
    peer = until(step)
    wait = peer.session.deadline()
    assert wait is not None and 120 <= wait <= 600
    peer.session.timed_out()
    found = peer.says(b"")
    assert len(found) == 1 and isinstance(found[0], events.Ended)
    assert found[0].stage == SCRIPT[step][1]


def test_patience_has_a_cap() -> None:
    assert ClientSession(b"c", 7.0).deadline() == 7.0


@pytest.mark.parametrize("step", range(2, len(SCRIPT)))
def test_421_is_an_outcome_and_an_end(step: int) -> None:
    found = until(step).says(b"421 4.3.2 going\r\n")
    stage = SCRIPT[step][1]
    first = (stage, 421) if step <= 3 else ("rcpt", 550)
    assert outcomes(found) == [first, (stage, 421)]
    assert isinstance(found[1], events.Ended)


@pytest.mark.parametrize(
    ("step", "said"), [(2, b"354 x\r\n"), (3, b"354 x\r\n"), (5, b"250 x\r\n"), (6, b"354 x\r\n")]
)
def test_a_reply_that_fits_nothing_ends_the_session(step: int, said: bytes) -> None:
    found = until(step).says(said)
    assert isinstance(found[0], events.Ended) and found[0].stage == SCRIPT[step][1]


def test_an_answer_before_the_end_of_the_body() -> None:
    peer = until(5)
    peer.session.receive_data(b"354 go\r\n")
    assert peer.session.next_event() == events.BodyWanted()
    peer.session.send_body(b"x\n")
    assert peer.session.deadline() == 180.0
    found = peer.says(b"452 disk full\r\n")
    assert outcomes(found) == [("rcpt", 550), ("message", 452)]
    assert isinstance(found[1], events.Ended) and peer.session.closing
    peer.session.send_body(b"more\n")
    peer.session.end_body()
    assert peer.heard() == b""


def test_death_in_the_body_is_told_from_death_after_it() -> None:
    peer = until(5)
    peer.says(b"354 go\r\n")
    found = peer.says(b"")
    assert isinstance(found[0], events.Ended) and found[0].stage == "body"


def test_replies_are_bounded() -> None:
    assert isinstance(Peer().says(b"2" * 2048)[0], events.Ended)
    assert isinstance(Peer().says(b"220-x\r\n" * 101)[0], events.Ended)
    assert isinstance(Peer().says((b"220-" + b"x" * 1500 + b"\r\n") * 60)[0], events.Ended)
    assert Peer().says(b"220-x\r\n" * 99 + b"220 " + b"x" * 2000 + b"\r\n") == []


def test_something_unasked_ends_the_session() -> None:
    peer = Peer().ready()
    assert isinstance(peer.says(b"250 surprise\r\n")[0], events.Ended)


# --- extensions ----------------------------------------------------------------------------


def test_what_the_peer_cannot_take_is_a_permanent_failure() -> None:
    peer = Peer().ready(BARE)
    with pytest.raises(ExtensionMissing, match="8BITMIME"):
        peer.session.begin(Transaction(b"s@x", (b"r@y",), eight_bit=True))
    with pytest.raises(ExtensionMissing, match="SMTPUTF8"):
        peer.session.begin(Transaction(b"s@x", (b"r@y",), smtputf8=True))
    with pytest.raises(ExtensionMissing, match="SMTPUTF8"):
        peer.session.begin(Transaction(b"s@x", ("ü@y".encode(),)))
    with pytest.raises(PermanentFailure, match="1000"):
        Peer().ready().session.begin(Transaction(b"s@x", (b"r@y",), 1001))
    assert peer.heard() == b"" and peer.session.ready
    assert issubclass(ExtensionMissing, PermanentFailure)


def test_smtputf8_only_where_it_is_needed() -> None:
    peer = Peer().ready()
    peer.session.begin(Transaction(b"s@x", ("r@bücher.example".encode(),)))
    assert peer.heard() == b"MAIL FROM:<s@x>\r\nRCPT TO:<r@xn--bcher-kva.example>\r\nDATA\r\n"
    peer = Peer().ready()
    peer.session.begin(Transaction("ü@bücher.example".encode(), (b"r@y",), smtputf8=True))
    assert peer.heard().startswith("MAIL FROM:<ü@bücher.example> SMTPUTF8\r\n".encode())


def test_a_double_bounce_leaves_from_the_null_path() -> None:
    peer = Peer().ready()
    peer.session.begin(Transaction(b"#@[]", (b"postmaster@y",)))
    assert peer.heard().startswith(b"MAIL FROM:<>\r\n")


def test_reset_asks_whether_the_peer_is_still_there() -> None:
    peer = Peer().ready()
    peer.session.reset()
    assert peer.heard() == b"RSET\r\n"
    with pytest.raises(RuntimeError):
        peer.session.begin(TWO)
    assert isinstance(peer.says(b"250 ok\r\n")[0], events.Ready) and peer.session.ready


# --- any chunking, any junk ----------------------------------------------------------------

CODES = st.sampled_from(
    [b"250 ok", b"250-more", b"354 go", b"450 no", b"550 5.1.1 no", b"421 bye", b"junk", b"", b"250"]
)


def drive(data: bytes, cuts: list[int]) -> list[events.Event]:
    peer = Peer().ready()
    peer.session.begin(TWO)
    found: list[events.Event] = []
    places = sorted({0, len(data), *[c for c in cuts if c < len(data)]})
    for a, b in pairwise(places):
        peer.session.receive_data(data[a:b])
        while not isinstance(event := peer.session.next_event(), events.NeedData):
            found.append(event)
            if isinstance(event, events.BodyWanted):
                peer.session.end_body()
    return found + (peer.says(b"") if not peer.session.closing else [])


@given(
    st.lists(CODES, max_size=12).map(lambda lines: b"".join([line + b"\r\n" for line in lines])),
    st.lists(st.integers(1, 90)),
)
@settings(max_examples=200)
def test_replies_may_be_cut_anywhere(data: bytes, cuts: list[int]) -> None:
    go = data.find(b"354")
    if go >= 0:  # whether what comes behind it is early, or answers the message, is for the cut to say
        data = data[: data.index(b"\n", go) + 1]
    found = drive(data, cuts)
    assert found == drive(data, [])
    assert sum(isinstance(event, events.Finished) for event in found) <= 1
    assert isinstance(found[-1], events.Ended)


@given(st.lists(st.binary(max_size=100), max_size=12))
@settings(max_examples=100)
def test_random_bytes_never_raise(chunks: list[bytes]) -> None:
    peer = Peer()
    for chunk in chunks:
        peer.session.receive_data(chunk)
        peer.session.next_event()


def test_an_answer_before_the_message_was_sent_is_no_answer_to_it() -> None:
    peer = Peer().ready()
    peer.session.begin(TWO)
    peer.heard()
    found = peer.says(b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n250 accepted early\r\n")
    assert [type(event) for event in found] == [events.Ended]
    assert "before it was asked" in found[0].why  # type: ignore[union-attr]


def test_answers_that_came_before_the_transaction_end_it() -> None:
    peer = Peer()
    peer.says(b"220 mx.test ESMTP\r\n")
    peer.heard()
    found = peer.says(FULL + b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n250 accepted early\r\n")
    assert [type(event) for event in found] == [events.Ready, events.Ended]
    assert not peer.session.ready
