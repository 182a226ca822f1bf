"""All that we send, as it is on the wire: no line ends but by CRLF, no message ends early, and our own
strict server reads back what was stored.

The corpus and ten thousand drawn bodies go through the transport over real sockets; every octet is captured.
"""

import asyncio
import random
import re

import pytest

from corpus import corpus
from openqmail.core.message.lines import unfit
from openqmail.core.smtp import Offer, ServerSession, events
from openqmail.core.values import BytesBody, Outcome

DRAWN = 10_000
AT_ONCE = 4
OFFER = Offer(name=b"strict.test", size=0, max_recipients=10, timeout=300.0)
BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")
PIECES = [
    b".",
    b"..",
    b"\n",
    b"\n.\n",
    b"\n..\n",
    b".\n",
    b"\r",
    b"\r\n",
    b"\r\n.\r\n",
    b"\n.\r\n",
    b"\0",
    b" ",
    b"a",
]
PIECES += [
    b"DATA",
    b"QUIT\n",
    b"MAIL FROM:<>",
    b"\xe4\xf6",
    b"\xff",
    b"-- \n",
    b"x" * 997,
    b"y" * 998,
    b"z" * 999,
]


class Strict(asyncio.Protocol):
    """Our server machine, and what it was sent."""

    def __init__(self, taken, streams):
        self.session, self.taken, self.stream = ServerSession(OFFER), taken, bytearray()
        streams.append(self.stream)
        self.body = []

    def connection_made(self, transport):
        self.wire = transport
        self.session.accept()
        transport.write(self.session.data_to_send())

    def data_received(self, data):
        self.stream += data
        self.session.receive_data(data)
        while not isinstance(event := self.session.next_event(), events.NeedData):
            assert not isinstance(event, events.Aborted), "the strict server broke off"
            if isinstance(event, events.Mail):
                self.body = []
            elif isinstance(event, events.Rcpt):
                self.recipient = event.recipient.address
            elif isinstance(event, events.Chunk):
                self.body.append(event.data)
            elif isinstance(event, events.MessageEnd):
                assert self.recipient not in self.taken, "a message was read twice"
                self.taken[self.recipient] = b"".join(self.body)
            self.session.accept()
        self.wire.write(self.session.data_to_send())
        if self.session.closing:
            self.wire.close()


class Pieces:
    """A body that is read in chunks, whose ends fall anywhere."""

    data = None

    def __init__(self, stored, dice):
        self.stored, self.size = stored, len(stored)
        self.steps = [dice.randrange(1, 50) for _ in range(20)]

    def chunks(self):
        at, number = 0, 0
        most = max(1, len(self.stored) // 200)
        while at < len(self.stored):
            step = self.steps[number % 20] * most
            yield self.stored[at : at + step]
            at, number = at + step, number + 1


def drawn(dice):
    """Mostly what SMTP can carry, of what is awkward in it."""
    pieces = PIECES if dice.random() < 0.1 else [each for each in PIECES if not set(each) & {0, 13}]
    return b"".join(dice.choice(pieces) for _ in range(dice.randrange(12)))


def carry(scene, bodies):
    """(results, what the server read, by recipient; the streams)."""
    taken, streams = {}, []

    async def main():
        server = await asyncio.get_running_loop().create_server(
            lambda: Strict(taken, streams), "127.0.0.1", 0
        )
        peer = scene.Peer(port=server.sockets[0].getsockname()[1])
        given = scene.settings(smtproutes=scene.to(peer), timeoutremote=30)
        results, left = {}, iter(enumerate(bodies))

        async def work(remote):
            for number, body in left:
                recipient = b"%d@remote.test" % number
                (results[recipient],) = await remote.deliver(scene.job(body, recipients=(recipient,)))

        async with scene.remote(given) as remote:
            await asyncio.gather(*(work(remote) for _ in range(AT_ONCE)))
        server.close()
        return results

    results = asyncio.run(asyncio.wait_for(main(), 110))
    return results, taken, streams


def proved(stored, results, taken, streams):
    """What holds for every stream; how many messages were taken."""
    whole = b"".join(streams)
    assert not BARE.search(whole), "a line ends with something else than CRLF"
    assert whole.count(b"\r\n.\r\n") == len(taken), "there are more ends of data than messages"
    for number, body in enumerate(stored):
        recipient = b"%d@remote.test" % number
        if unfit(body) is None:
            assert results[recipient].outcome is Outcome.SUCCESS, results[recipient].text
            assert taken[recipient] == (body if body.endswith(b"\n") or not body else body + b"\n"), body
        else:
            assert results[recipient].outcome is Outcome.FAILURE and recipient not in taken
    return len(taken)


def test_ten_thousand_drawn_bodies(scene):
    dice = random.Random(7)
    stored = [drawn(dice) for _ in range(DRAWN)]
    bodies = [
        Pieces(body, dice) if number % 10 == 0 else BytesBody(body) for number, body in enumerate(stored)
    ]
    results, taken, streams = carry(scene, bodies)
    count = proved(stored, results, taken, streams)
    assert DRAWN * 0.3 < count < DRAWN, "the lot drew bodies of one kind only"
    assert len(streams) < DRAWN / 100, "they went over few connections"


@pytest.mark.parametrize("whole", [True, False])
def test_the_corpus(scene, whole):
    dice = random.Random(11)
    stored = [mail.text for mail in corpus()]
    bodies = [BytesBody(text) if whole else Pieces(text, dice) for text in stored]
    assert proved(stored, *carry(scene, bodies)) == len(stored)
