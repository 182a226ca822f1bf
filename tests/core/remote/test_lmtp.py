"""Deliveries by the transport lmtp: each recipient has a result of its own."""

import asyncio

import pytest

from openqmail.core.control import syntax
from openqmail.core.values import Outcome

K, Z, D = Outcome.SUCCESS, Outcome.DEFERRAL, Outcome.FAILURE


@pytest.fixture(scope="session")
def store(scene):
    """The class of a peer that speaks LMTP: `finals` are its replies after a message."""

    class Store(scene.Peer):
        def __init__(self, finals, answers=None):
            super().__init__({"EHLO": b"500 what?\r\n", "LHLO": scene.EXTENSIONS, **(answers or {})})
            self.answers["."] = finals

    return Store


def deliver(scene, peer, *jobs):
    async def main():
        async with peer:
            given = scene.settings(smtproutes=scene.to(peer, transport="lmtp"), timeoutremote=1)
            async with scene.remote(given) as remote:
                return [await remote.deliver(each) for each in jobs]

    return asyncio.run(asyncio.wait_for(main(), 30))


RECIPIENTS = (b"a@remote.test", b"b@remote.test", b"c@remote.test")


def test_one_full_mailbox_keeps_no_other_waiting(scene, store):
    peer = store(b"250 2.1.5 a ok\r\n452 4.2.2 b is full\r\n552 5.2.2 c is closed\r\n")
    (results,) = deliver(scene, peer, scene.job(recipients=RECIPIENTS))
    assert [each.outcome for each in results] == [K, Z, D]
    assert results[0].text == b"127.0.0.1 accepted message.\nRemote host said: 250 2.1.5 a ok\n"
    assert b"452 4.2.2 b is full" in results[1].text and b"552 5.2.2 c is closed" in results[2].text
    assert peer.commands[0] == b"LHLO mail.example.test"
    assert len(peer.messages) == 1


def test_connections_are_kept(scene, store):
    peer = store([b"250 ok\r\n", b"250 ok\r\n" * 3])
    results = deliver(scene, peer, scene.job(), scene.job(recipients=RECIPIENTS))
    assert [each.outcome for result in results for each in result] == [K] * 4
    assert peer.connections == 1


def test_silence_after_some_of_the_replies_defers_the_others_and_warns_of_a_duplicate(scene, store):
    peer = store(b"250 ok\r\n552 no\r\n")
    (results,) = deliver(scene, peer, scene.job(recipients=RECIPIENTS))
    assert [each.outcome for each in results] == [K, D, Z]
    assert b"Possible duplicate!" in results[2].text


@pytest.mark.parametrize(
    ("line", "port"),
    [("x.test:lmtp!store.test", 24), ("x.test:lmtp!store.test:2424", 2424), ("x.test:store.test", 25)],
)
def test_lmtp_has_a_port_of_its_own(line, port):
    _, route = syntax.route(line)
    assert route.port == port
