"""The LMTP client machine: LHLO, and a reply after the message for each recipient that was accepted."""

from hypothesis import given
from hypothesis import strategies as st

from openqmail.core.smtp import LmtpSession, Transaction
from openqmail.core.smtp import client_events as events

PIPELINING = b"250-store.test\r\n250-PIPELINING\r\n250 8BITMIME\r\n"
BARE = b"250 store.test\r\n"
ABC = (b"a@y", b"b@y", b"c@y")


class Peer:
    """A scripted peer beside the machine."""

    def __init__(self, lhlo: bytes = PIPELINING) -> None:
        self.session = LmtpSession(b"client.test")
        assert self.says(b"220 store.test LMTP\r\n") == []
        assert self.heard() == b"LHLO client.test\r\n"
        (ready,) = self.says(lhlo)
        assert isinstance(ready, events.Ready)

    def says(self, data: bytes, step: int = 1 << 20) -> list[events.Event]:
        found: list[events.Event] = []
        for at in range(0, len(data), step):
            self.session.receive_data(data[at : at + step])
            while not isinstance(event := self.session.next_event(), events.NeedData):
                found.append(event)
        return found

    def heard(self) -> bytes:
        return self.session.data_to_send()

    def body(self) -> None:
        self.session.send_body(b".text\n")
        self.session.end_body()
        assert self.heard() == b"..text\r\n.\r\n"


def outcomes(event: events.Event) -> list[tuple[str, int]]:
    assert isinstance(event, events.Finished)
    return [(stage, reply.code) for stage, reply in event.outcomes]


def test_each_recipient_has_the_reply_of_its_own() -> None:
    peer = Peer()
    peer.session.begin(Transaction(b"s@x", ABC))
    assert peer.heard() == (b"MAIL FROM:<s@x>\r\nRCPT TO:<a@y>\r\nRCPT TO:<b@y>\r\nRCPT TO:<c@y>\r\nDATA\r\n")
    assert peer.says(b"250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n") == [events.BodyWanted()]
    peer.body()
    assert peer.says(b"250 2.1.5 done\r\n452 4.2.2 full\r\n") == []
    assert not peer.session.ready
    (finished,) = peer.says(b"550 5.7.1 no\r\n")
    assert outcomes(finished) == [("message", 250), ("message", 452), ("message", 550)]
    assert peer.session.ready


def test_refused_recipients_get_no_reply_after_the_message() -> None:
    peer = Peer()
    peer.session.begin(Transaction(b"s@x", ABC))
    assert peer.says(b"250 ok\r\n550 no\r\n250 ok\r\n451 later\r\n354 go\r\n") == [events.BodyWanted()]
    peer.heard()
    peer.body()
    (finished,) = peer.says(b"250 done\r\n")
    assert outcomes(finished) == [("rcpt", 550), ("message", 250), ("rcpt", 451)]


def test_lhlo_refused_is_no_reason_for_helo() -> None:
    session = LmtpSession(b"client.test")
    session.receive_data(b"220 store.test\r\n")
    assert isinstance(session.next_event(), events.NeedData)
    session.data_to_send()
    session.receive_data(b"500 what?\r\n")
    refused = session.next_event()
    assert isinstance(refused, events.Refused) and refused.stage == "helo"
    assert session.data_to_send() == b""


def test_a_message_for_nobody_is_not_sent() -> None:
    peer = Peer()
    peer.session.begin(Transaction(b"s@x", ABC[:2]))
    peer.heard()
    (ended,) = peer.says(b"250 ok\r\n550 no\r\n551 no\r\n354 go\r\n")
    assert isinstance(ended, events.Ended) and peer.session.closing
    assert [outcome and outcome[1].code for outcome in ended.outcomes] == [550, 551]
    assert peer.heard() == b""


def test_503_for_nobody_leaves_a_session_of_use() -> None:
    peer = Peer()
    peer.session.begin(Transaction(b"s@x", ABC[:1]))
    peer.heard()
    (finished,) = peer.says(b"250 ok\r\n550 no\r\n503 5.5.1 no valid recipients\r\n")
    assert outcomes(finished) == [("rcpt", 550)]
    assert peer.session.ready


def test_what_was_said_before_the_connection_broke_stands() -> None:
    peer = Peer()
    peer.session.begin(Transaction(b"s@x", ABC))
    peer.heard()
    peer.says(b"250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n")
    peer.body()
    (ended,) = (*peer.says(b"250 done\r\n550 no\r\n"), *_left(peer))
    assert isinstance(ended, events.Ended) and ended.stage == "message"
    assert [outcome and outcome[1].code for outcome in ended.outcomes] == [250, 550, None]


def _left(peer: Peer) -> list[events.Event]:
    peer.session.receive_data(b"")
    return [peer.session.next_event()]


def test_421_in_the_midst_of_the_replies_is_for_those_who_have_none() -> None:
    peer = Peer()
    peer.session.begin(Transaction(b"s@x", ABC))
    peer.heard()
    peer.says(b"250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n")
    peer.body()
    found = peer.says(b"250 done\r\n421 4.3.2 going down\r\n")
    assert outcomes(found[0]) == [("message", 250), ("message", 421), ("message", 421)]
    assert peer.session.closing


@given(
    st.lists(
        st.tuples(st.sampled_from([250, 251, 450, 550]), st.sampled_from([250, 452, 552])),
        min_size=1,
        max_size=8,
    ),
    st.booleans(),
    st.integers(1, 200),
    st.integers(1, 3),
)
def test_whatever_the_peer_decides_is_what_each_recipient_gets(
    answers: list[tuple[int, int]], pipelining: bool, step: int, times: int
) -> None:
    peer = Peer(PIPELINING if pipelining else BARE)
    recipients = tuple(b"%d@y" % number for number in range(len(answers)))
    expected = [("rcpt", first) if first >= 400 else ("message", last) for first, last in answers]
    accepted = [last for first, last in answers if first < 400]
    for _ in range(times):
        peer.session.begin(Transaction(b"s@x", recipients))
        found: list[events.Event] = []
        said = [250, *(first for first, _ in answers), 354 if accepted else 503]
        heard = b""
        for code in said:
            heard += peer.heard()
            if pipelining or heard:
                while heard.startswith(b"RSET"):
                    heard = heard.partition(b"\r\n")[2]
                    assert peer.says(b"250 ok\r\n", step) == []
                    heard += peer.heard()
                heard = heard.partition(b"\r\n")[2]
                found += peer.says(b"%d text\r\n" % code, step)
        assert heard == b""
        if accepted:
            assert found == [events.BodyWanted()]
            peer.body()
            found = peer.says(b"".join(b"%d text\r\n" % code for code in accepted), step)
        (finished,) = found
        assert outcomes(finished) == expected
        assert peer.session.ready


@given(
    st.lists(
        st.binary(max_size=60) | st.sampled_from([b"250 ok\r\n", b"354 go\r\n", b"421 bye\r\n"]), max_size=15
    )
)
def test_no_peer_makes_it_raise(chunks: list[bytes]) -> None:
    peer = Peer()
    peer.session.begin(Transaction(b"s@x", ABC))
    for chunk in chunks:
        peer.session.receive_data(chunk)
        while not isinstance(event := peer.session.next_event(), events.NeedData):
            if event == events.BodyWanted():
                peer.session.send_body(b"text\n")
                peer.session.end_body()
            elif isinstance(event, events.Ended):
                return
            elif isinstance(event, events.Finished):
                assert len(event.outcomes) == 3
