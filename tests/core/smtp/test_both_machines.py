"""The client machine talks to the server machine: what goes in comes out, to the byte."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqmail.core.message.lines import unfit
from openqmail.core.smtp import ClientSession, Offer, ServerSession, Transaction, client_events, events
from openqmail.core.values import Reply

OFFER = Offer(name=b"mx.test", size=0, max_recipients=1000, timeout=300.0)
LINES = st.one_of(st.sampled_from([b"", b".", b"..", b".\xe9", b"z" * 998]), st.binary(max_size=30))
BODY = st.lists(LINES, max_size=12).map(b"\n".join).filter(lambda body: unfit(body) is None)
LOCAL = st.text(st.characters(codec="utf-8", min_codepoint=32, exclude_characters="\x7f"), max_size=12)
ADDRESS = st.one_of(
    st.just(b"a@x.test"),
    st.builds(
        lambda local, domain: local.encode() + domain, LOCAL, st.sampled_from([b"@x.test", b"@[10.0.0.1]"])
    ),
)


class Wire:
    """The two machines and what passes between them, in pieces of `step` bytes."""

    def __init__(self, step: int, refuse: frozenset[bytes] = frozenset()) -> None:
        self.client, self.server = ClientSession(b"c.test"), ServerSession(OFFER)
        self.step, self.refuse = step, refuse
        self.server.accept()
        self.mail: list[tuple[events.Mail, list[bytes], bytes]] = []
        self.body: list[bytes] = []

    def turn(self) -> list[client_events.Event]:
        """Carry bytes both ways until nothing moves; the client's events."""
        found: list[client_events.Event] = []
        while True:
            up, down = self.client.data_to_send(), self.server.data_to_send()
            if not up and not down:
                return found
            for i in range(0, len(up), self.step):
                self.server.receive_data(up[i : i + self.step])
                self.serve()
            for i in range(0, len(down), self.step):
                self.client.receive_data(down[i : i + self.step])
                while not isinstance(event := self.client.next_event(), client_events.NeedData):
                    found.append(event)

    def serve(self) -> None:
        while not isinstance(event := self.server.next_event(), events.NeedData):
            if isinstance(event, events.Mail):
                self.mail.append((event, [], b""))
                self.body.clear()
            elif isinstance(event, events.Rcpt):
                if event.recipient.address in self.refuse:
                    self.server.send(Reply(550, b"5.1.1", (b"no",)))
                    continue
                self.mail[-1][1].append(event.recipient.address)
            elif isinstance(event, events.Chunk):
                self.body.append(event.data)
            elif isinstance(event, events.MessageEnd):
                self.mail[-1] = (*self.mail[-1][:2], b"".join(self.body))
            assert not isinstance(event, events.Aborted)
            self.server.accept()


@given(BODY, ADDRESS, st.lists(ADDRESS, min_size=1, max_size=4), st.integers(1, 2000), st.integers(1, 40))
@settings(max_examples=150)
def test_a_message_arrives_as_it_left(
    body: bytes, sender: bytes, recipients: list[bytes], step: int, piece: int
) -> None:
    wire = Wire(step)
    assert isinstance(wire.turn()[-1], client_events.Ready)
    wire.client.begin(Transaction(sender, tuple(recipients), len(body), not body.isascii()))
    assert wire.turn() == [client_events.BodyWanted()]
    for i in range(0, len(body), piece):
        wire.client.send_body(body[i : i + piece])
    wire.client.end_body()
    found = wire.turn()
    assert isinstance(found[0], client_events.Finished)
    assert all(stage == "message" and reply.code == 250 for stage, reply in found[0].outcomes)
    mail, heard, arrived = wire.mail[0]
    assert mail.sender == sender and heard == recipients
    assert arrived == (body if body.endswith(b"\n") or not body else body + b"\n")


@pytest.mark.parametrize("refuse", [b"", b"a", b"b", b"ab"])
def test_refused_recipients_in_several_transactions(refuse: bytes) -> None:
    refused = frozenset(b"%c@x" % letter for letter in refuse)
    wire = Wire(7, refused)
    wire.turn()
    for _ in range(3):
        wire.client.begin(Transaction(b"s@x", (b"a@x", b"b@x")))
        found = wire.turn()
        if found == [client_events.BodyWanted()]:
            wire.client.send_body(b"text\n")
            wire.client.end_body()
            found = wire.turn()
        assert isinstance(found[0], client_events.Finished)
        codes = [reply.code for _, reply in found[0].outcomes]
        assert codes == [550 if letter in refuse else 250 for letter in b"ab"]
        assert wire.client.ready
    wire.client.quit()
    assert isinstance(wire.turn()[-1], client_events.Ended) and wire.server.closing
