"""BDAT as it comes in (RFC 3030): chunks of a message, what breaks them, and what is never a command."""

import itertools

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqmail.core.message.lines import MAX_LINE
from openqmail.core.smtp import Offer, ServerSession, events
from openqmail.core.smtp.receiving import SWALLOWED
from openqmail.core.smtp.tables import State
from openqmail.core.values import Reply

OFFER = Offer(name=b"mx.test", size=5000, max_recipients=3, timeout=300.0)
ENVELOPE = b"EHLO c\r\nMAIL FROM:<s@x>\r\nRCPT TO:<r@x>\r\n"
NO = Reply(450, b"4.7.1", (b"not now",))


class Talk:
    """A shell that accepts all but what it is told to refuse."""

    def __init__(self, offer: Offer = OFFER, refuse: type | None = None, reply: Reply = NO) -> None:
        self.machine = ServerSession(offer)
        self.machine.accept()
        self.machine.data_to_send()
        self.refuse, self.reply = refuse, reply
        self.events: list[events.Event] = []
        self.body: list[bytes] = []
        self.mails: list[bytes] = []

    def say(self, data: bytes, step: int = 1 << 20) -> list[int]:
        """The codes of the answers."""
        for at in range(0, len(data), step):
            self.machine.receive_data(data[at : at + step])
            self._serve()
        lines = self.machine.data_to_send().splitlines()
        return [int(line[:3]) for line in lines if line[3:4] == b" "]

    def _serve(self) -> None:
        while not isinstance(event := self.machine.next_event(), events.NeedData):
            assert not isinstance(event, events.Paused)
            self.events.append(event)
            if isinstance(event, events.Mail | events.Reset):
                self.body.clear()
            elif isinstance(event, events.Chunk):
                self.body.append(event.data)
            elif isinstance(event, events.MessageEnd):
                self.mails.append(b"".join(self.body))
            if self.refuse is not None and isinstance(event, self.refuse):
                self.machine.send(self.reply)
            elif not isinstance(event, events.Chunk):
                self.machine.accept()


def talk(offer: Offer = OFFER, **more: object) -> Talk:
    """As far as a transaction with one recipient."""
    made = Talk(offer, **more)  # type: ignore[arg-type]
    assert made.say(ENVELOPE) == [250, 250, 250]
    made.events.clear()
    return made


def chunk(data: bytes, last: bool = False) -> bytes:
    return b"BDAT %d%s\r\n%s" % (len(data), b" LAST" if last else b"", data)


def test_chunks_make_one_message() -> None:
    peer = talk()
    assert peer.say(chunk(b"Subject: x\r\n\r\n") + chunk(b"one\r\ntwo") + chunk(b"\r\n", True)) == [
        250,
        250,
        250,
    ]
    assert peer.mails == [b"Subject: x\n\none\ntwo\n"]
    assert peer.events[-1] == events.MessageEnd(24)
    assert peer.machine.state is State.READY


def test_a_dot_means_nothing_in_a_chunk() -> None:
    peer = talk()
    assert peer.say(chunk(b".\r\n..\r\n.\r\nQUIT\r\n.\r\n", True)) == [250]
    assert peer.mails == [b".\n..\n.\nQUIT\n.\n"]


def test_a_message_may_end_without_a_line_end() -> None:
    peer = talk()
    assert peer.say(chunk(b"no end", True)) == [250]
    assert peer.mails == [b"no end"]


@pytest.mark.parametrize(
    "whole", [b"BDAT 0 LAST\r\n", b"BDAT 0\r\nBDAT 0\r\nBDAT 0 LAST\r\n", b"bdat 00 last\r\n"]
)
def test_a_chunk_may_be_empty_and_so_may_the_message(whole: bytes) -> None:
    peer = talk()
    assert set(peer.say(whole)) == {250}
    assert peer.mails == [b""] and peer.events[-1] == events.MessageEnd(0)


def test_an_empty_last_chunk_ends_what_came_before_and_commands_behind_it_wait_their_turn() -> None:
    peer = talk()
    said = peer.say(
        chunk(b"x\r\n") + b"BDAT 0 LAST\r\nMAIL FROM:<t@x>\r\nRCPT TO:<r@x>\r\n" + chunk(b"y\r\n", True)
    )
    assert said == [250] * 5
    assert peer.mails == [b"x\n", b"y\n"]


def test_a_line_end_may_be_divided_between_chunks() -> None:
    peer = talk()
    assert peer.say(chunk(b"one\r") + chunk(b"") + chunk(b"\ntwo\r\n", True)) == [250, 250, 250]
    assert peer.mails == [b"one\ntwo\n"]


PIECES = st.sampled_from([b"\r\n", b".\r\n", b"\r\n.\r\n", b"BDAT 3\r\n", b"QUIT\r\n", b"\xe9", b"text", b""])


@given(st.lists(st.lists(PIECES, max_size=5).map(b"".join), min_size=1, max_size=6), st.integers(1, 60))
@settings(max_examples=200)
def test_whatever_the_division_the_message_is_the_same(chunks: list[bytes], step: int) -> None:
    peer = talk()
    wire = b"".join([chunk(data) for data in chunks[:-1]]) + chunk(chunks[-1], True)
    assert set(peer.say(wire + b"NOOP\r\n", step)) == {250}
    assert peer.mails == [b"".join(chunks).replace(b"\r\n", b"\n")]


@given(st.binary(max_size=80), st.lists(st.integers(0, 80), max_size=5), st.integers(1, 90))
@settings(max_examples=400)
def test_any_octets_are_taken_whole_or_refused_and_never_obeyed(
    data: bytes, cuts: list[int], step: int
) -> None:
    peer = talk()
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    parts = [data[a:b] for a, b in itertools.pairwise(places)]
    wire = b"".join([chunk(part) for part in parts[:-1]]) + chunk(parts[-1], True)
    codes = peer.say(wire + b"NOOP\r\n", step)
    plain = data.replace(b"\r\n", b"")
    fit = not set(plain) & {0, 10, 13}
    assert len(codes) == len(parts) + 1 and codes[-1] == 250
    assert peer.mails == ([data.replace(b"\r\n", b"\n")] if fit else [])
    if not fit:
        at = next(index for index, code in enumerate(codes) if code != 250)
        assert codes[at] == 554 and set(codes[at + 1 : -1]) <= {503}
    assert not any(isinstance(event, events.Mail | events.Quit | events.Aborted) for event in peer.events)


@pytest.mark.parametrize("bare", [b"a\nb", b"a\rb", b"\n.\n", b"\r.\r", b"a\0b", b"\r", b"\n", b"x\r\r\n"])
def test_what_is_no_text_is_refused_when_its_chunk_is_over(bare: bytes) -> None:
    peer = talk()
    assert peer.say(b"BDAT %d LAST\r\n" % (len(bare) + 30) + bare) == []
    assert peer.say(b"MAIL FROM:<evil@x>\r\nRSET\r\nxx\r\nNOOP\r\n") == [554, 250]
    assert peer.mails == [] and peer.machine.state is State.READY
    assert isinstance(peer.events[-1], events.Reset)


def test_a_line_may_not_be_longer_for_being_divided() -> None:
    peer = talk()
    assert peer.say(chunk(b"x" * MAX_LINE) + chunk(b"\r\n", True)) == [250, 250]
    peer = talk()
    assert peer.say(chunk(b"x" * MAX_LINE) + chunk(b"x\r\n", True)) == [250, 554]


def test_size_bounds_all_chunks_together_and_is_told_when_the_chunk_was_swallowed() -> None:
    peer = talk()
    half = b"x" * 498 + b"\r\n"
    assert peer.say(chunk(half * 5)) == [250]
    assert peer.say(b"BDAT 2501 LAST\r\n") == []
    assert peer.say(b"QUIT\r\n" * 416 + b"12345") == [552]
    assert peer.say(b"NOOP\r\n") == [250] and peer.mails == []


def test_who_announces_more_than_is_swallowed_is_sent_away() -> None:
    peer = talk()
    assert peer.say(b"BDAT %d LAST\r\nQUIT\r\n" % (SWALLOWED + 1)) == [552]
    assert peer.machine.closing and isinstance(peer.events[-1], events.Aborted)
    peer = talk(msgspec.structs.replace(OFFER, size=0))
    assert peer.say(b"BDAT %d LAST\r\nfine so far\r\n" % (SWALLOWED * 2)) == []
    assert peer.say(b"\0QUIT\r\n") == [554]
    assert peer.machine.closing


NO_LENGTH = [
    b"BDAT",
    b"BDAT ",
    b"BDAT x",
    b"BDAT -1 LAST",
    b"BDAT 1 LAST more",
    b"BDAT 1LAST",
    b"BDAT +1",
    b"BDAT 0x10",
    b"BDAT LAST",
    b"BDAT 1 2",
    b"BDAT 1\tLAST",
    b"BDAT " + b"9" * 21,
    b"BDAT \xd9\xa3",
    b"BDAT 1 FIRST",
]


@pytest.mark.parametrize("line", NO_LENGTH)
def test_an_announcement_that_tells_no_length_ends_the_session(line: bytes) -> None:
    peer = talk()
    assert peer.say(line + b"\r\nMAIL FROM:<evil@x>\r\n") == [501]
    assert peer.machine.closing
    assert not any(isinstance(event, events.Mail) for event in peer.events)


OUT_OF_PLACE = {
    "before EHLO": (b"", 503),
    "before MAIL": (b"EHLO c\r\n", 503),
    "before RCPT": (b"EHLO c\r\nMAIL FROM:<s@x>\r\n", 554),
    "after a message": (ENVELOPE + chunk(b"x\r\n", True), 503),
    "after DATA's message": (ENVELOPE + b"DATA\r\nx\r\n.\r\n", 503),
    "after RSET": (ENVELOPE + chunk(b"x\r\n") + b"RSET\r\n", 503),
    "after EHLO within": (ENVELOPE + chunk(b"x\r\n") + b"EHLO d\r\n", 503),
    "after a chunk that was refused": (ENVELOPE + chunk(b"\0"), 503),
}


@pytest.mark.parametrize("where", OUT_OF_PLACE)
def test_out_of_place_it_is_refused_and_its_octets_are_no_commands(where: str) -> None:
    before, code = OUT_OF_PLACE[where]
    peer = Talk()
    peer.say(before)
    had = list(peer.mails)
    peer.events.clear()
    assert peer.say(chunk(b"QUIT\r\nMAIL FROM:<evil@x>\r\n", True) + b"NOOP\r\n", 3) == [code, 250]
    assert peer.mails == had
    assert not any(isinstance(event, events.Mail | events.Quit | events.Chunk) for event in peer.events)


def test_chunks_that_were_sent_ahead_of_a_refusal_are_swallowed_however_many() -> None:
    peer = talk()
    assert peer.say(chunk(b"\0") + chunk(b"QUIT\r\n") * 100 + chunk(b"", True) + b"NOOP\r\n") == [554] + [
        503
    ] * 101 + [250]
    assert not peer.machine.closing


OTHERS = [
    b"MAIL FROM:<t@x>",
    b"RCPT TO:<t@x>",
    b"DATA",
    b"STARTTLS",
    b"AUTH PLAIN AGEAYg==",
    b"XCLIENT PORT=1",
]


@pytest.mark.parametrize("command", OTHERS)
def test_within_a_message_of_chunks_nothing_else_begins(command: bytes) -> None:
    peer = talk(msgspec.structs.replace(OFFER, starttls=True, auth=(b"PLAIN",), xclient=True))
    assert peer.say(chunk(b"one\r\n") + command + b"\r\n" + chunk(b"two\r\n", True)) == [250, 503, 250]
    assert peer.mails == [b"one\ntwo\n"]


@pytest.mark.parametrize("command", [b"RSET", b"EHLO d", b"HELO d"])
def test_what_resets_forgets_the_chunks(command: bytes) -> None:
    peer = talk()
    assert peer.say(chunk(b"one\r\n") + command + b"\r\nMAIL FROM:<t@x>\r\nRCPT TO:<r@x>\r\n") == [250] * 4
    assert peer.say(b"DATA\r\ntwo\r\n.\r\n") == [354, 250]
    assert peer.mails == [b"two\n"]


@pytest.mark.parametrize("harmless", [b"NOOP", b"VRFY x", b"HELP"])
def test_between_chunks_harmless_commands_are_obeyed(harmless: bytes) -> None:
    peer = talk()
    said = peer.say(chunk(b"one\r\n") + harmless + b"\r\n" + chunk(b"two\r\n", True))
    assert said[0] == said[2] == 250 and peer.mails == [b"one\ntwo\n"]


@pytest.mark.parametrize("octets", [0, 1, 20])
def test_when_the_shell_refuses_the_beginning_the_transaction_is_over(octets: int) -> None:
    peer = talk(refuse=events.Data)
    body = (b"QUIT\r\n" * 4)[:octets]
    assert peer.say(chunk(body) + chunk(b"RSET\r\n", True) + b"NOOP\r\n", 1) == [450, 503, 250]
    assert [one.command for one in peer.machine.refused] == ["bdat", "bdat"]
    assert isinstance(peer.events[-1], events.Reset) and peer.mails == []


def test_when_the_shell_refuses_the_message_another_may_follow() -> None:
    peer = talk(refuse=events.MessageEnd)
    assert peer.say(chunk(b"x\r\n", True) + b"MAIL FROM:<t@x>\r\n") == [450, 250]


def test_421_in_the_answer_to_a_chunk_ends_the_session() -> None:
    peer = talk(refuse=events.Data, reply=Reply(421, b"4.3.2", (b"bye",)))
    assert peer.say(chunk(b"x\r\n", True)) == [421]
    assert peer.machine.closing


@pytest.mark.parametrize("so_far", [b"BDAT 10\r\n", b"BDAT 10\r\nhalf", chunk(b"one"), b"BDAT 3 LAST\r\n\0"])
def test_the_end_of_input_in_the_midst_makes_no_message(so_far: bytes) -> None:
    peer = talk()
    peer.say(so_far)
    peer.machine.receive_data(b"")
    peer.say(b" ")
    assert peer.machine.closing and peer.mails == []


def test_it_leaves_between_commands_but_not_between_chunks() -> None:
    peer = talk()
    assert peer.say(chunk(b"one\r\n")) == [250]
    peer.machine.shutdown(Reply(421, b"4.3.2", (b"leaving",)))
    assert peer.say(chunk(b"two\r\n", True)) == [250, 421]
    assert peer.mails == [b"one\ntwo\n"]


def test_chunks_are_handed_on_in_pieces() -> None:
    peer = talk(msgspec.structs.replace(OFFER, size=0))
    peer.say(b"BDAT 1000000 LAST\r\n")
    for _ in range(10):
        peer.say((b"y" * 98 + b"\r\n") * 1000)
    pieces = [event for event in peer.events if isinstance(event, events.Chunk)]
    assert len(pieces) == 10 and len(peer.mails[0]) == 990_000


def test_limits_are_told() -> None:
    assert b"\r\n250-LIMITS RCPTMAX=3\r\n" in OFFER.ehlo and b"\r\n250-CHUNKING\r\n" in OFFER.ehlo
    assert b"\r\n250-LIMITS MAILMAX=7 RCPTMAX=3\r\n" in msgspec.structs.replace(OFFER, max_messages=7).ehlo
    assert b"BINARYMIME" not in OFFER.ehlo
    peer = Talk()
    assert peer.say(b"EHLO c\r\nMAIL FROM:<s@x> BODY=BINARYMIME\r\n") == [250, 501]
