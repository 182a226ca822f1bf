"""Mail that leaves by BDAT: only where it is asked for and offered, on a new connection, to the octet."""

import asyncio
import random

import pytest

from corpus import corpus
from openqmail.core.message.lines import unfit
from openqmail.core.smtp import Offer, ServerSession, events
from openqmail.core.values import Outcome, Reply

OFFER = Offer(name=b"strict.test", size=0, max_recipients=10, timeout=300.0)
PIECES = [
    b".",
    b"..",
    b"\n",
    b"\n.\n",
    b"\n..\n",
    b".\n",
    b" ",
    b"a",
    b"DATA",
    b"QUIT\n",
    b"BDAT 3\n",
    b"\xe4",
    b"x" * 998,
]


class Strict(asyncio.Protocol):
    """Our server machine; `once`: a connection is good for one message."""

    def __init__(self, server):
        self.server, self.machine, self.body = server, ServerSession(OFFER), []

    def connection_made(self, transport):
        self.wire = transport
        self.server.connections += 1
        self.machine.accept()
        transport.write(self.machine.data_to_send())

    def data_received(self, data):
        self.server.stream += data
        self.machine.receive_data(data)
        over = False
        while not isinstance(event := self.machine.next_event(), events.NeedData):
            assert not isinstance(event, events.Aborted), "the strict server broke off"
            if isinstance(event, events.Mail):
                self.body.clear()
            elif isinstance(event, events.Chunk):
                self.body.append(event.data)
                continue
            elif isinstance(event, events.MessageEnd):
                self.server.taken.append(b"".join(self.body))
                over = self.server.once
            refusal = self.server.refuse.get(type(event))
            if refusal is None:
                self.machine.accept()
            else:
                self.machine.send(refusal)
        self.wire.write(self.machine.data_to_send())
        if over or self.machine.closing:
            self.wire.close()


class Server:
    def __init__(self, once, refuse):
        self.once, self.refuse = once, refuse or {}
        self.taken, self.stream, self.connections = [], bytearray(), 0


def carry(scene, bodies, once=True, refuse=None, **changes):
    """(results, the server) after these bodies went one after the other."""
    server = Server(once, refuse)

    async def main():
        listening = await asyncio.get_running_loop().create_server(lambda: Strict(server), "127.0.0.1", 0)
        peer = scene.Peer(port=listening.sockets[0].getsockname()[1])
        given = scene.settings(smtproutes=scene.to(peer), timeoutremote=30, **changes)
        async with scene.remote(given) as remote:
            results = [(await remote.deliver(scene.job(body)))[0] for body in bodies]
        listening.close()
        return results

    return asyncio.run(asyncio.wait_for(main(), 60)), server


def complete(body):
    return body if body.endswith(b"\n") else body + b"\n"


def test_what_leaves_by_chunks_is_what_was_stored(scene):
    dice = random.Random(5)
    drawn = [b"".join(dice.choice(PIECES) for _ in range(dice.randrange(1, 12))) for _ in range(200)]
    bodies = [body for body in drawn if unfit(body) is None] + [
        mail.text for mail in corpus() if len(mail.text) < 131072
    ]
    results, server = carry(scene, bodies, chunkingremote=True)
    assert {each.outcome for each in results} == {Outcome.SUCCESS}
    assert server.taken == [complete(body) for body in bodies]
    assert server.stream.count(b" LAST\r\n") == len(bodies)
    assert server.connections >= len(bodies)


def test_a_kept_connection_has_data(scene):
    results, server = carry(scene, [b"one\n", b"two\n", b"three\n"], once=False, chunkingremote=True)
    assert [each.outcome for each in results] == [Outcome.SUCCESS] * 3
    assert server.connections == 1 and server.taken == [b"one\n", b"two\n", b"three\n"]
    assert server.stream.count(b"BDAT ") == 1 and server.stream.count(b"DATA\r\n") == 2


def test_without_being_told_nothing_leaves_before_its_go_ahead(scene):
    results, server = carry(scene, [b"one\n"] * 3)
    assert [each.outcome for each in results] == [Outcome.SUCCESS] * 3
    assert b"BDAT" not in server.stream


@pytest.mark.parametrize(
    ("step", "code", "outcome"),
    [
        (events.Mail, 451, Outcome.DEFERRAL),
        (events.Rcpt, 550, Outcome.FAILURE),
        (events.Data, 450, Outcome.DEFERRAL),
        (events.MessageEnd, 554, Outcome.FAILURE),
        (events.MessageEnd, 452, Outcome.DEFERRAL),
        (events.Mail, 421, Outcome.DEFERRAL),
    ],
)
def test_what_the_peer_says_decides_as_with_data(scene, step, code, outcome):
    refuse = {step: Reply(code, b"", (b"its own words",))}
    ((by_bdat,), _), ((by_data,), _) = [
        carry(scene, [b"x\n"], refuse=refuse, chunkingremote=told) for told in (True, False)
    ]
    assert by_bdat.outcome is by_data.outcome is outcome
    assert b"its own words" in by_bdat.text
