"""Mail goes out from the address that control/bindings gives its sender, or it waits."""

import asyncio
import contextlib
import socket

import pytest

from openqmail.core.control.bindings import Source
from openqmail.core.control.settings import Route
from openqmail.core.dns import Answer, MailExchanger
from openqmail.core.values import Outcome

ELSEWHERE = "192.0.2.1"
"""TEST-NET-1: nobody's, so not this host's."""


def v6():
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


V6 = pytest.mark.skipif(not v6(), reason="this machine has no IPv6 loopback")


def deliver(scene, bindings, *jobs, alerts=0, **changes):
    """The results, the peer, and the log's alerts, of deliveries one after the other."""

    async def main():
        async with scene.Peer() as peer:
            given = scene.settings(smtproutes=scene.to(peer), bindings=bindings, **changes)
            async with scene.remote(given) as remote:
                results = [(await remote.deliver(each))[0] for each in jobs]
                lines = remote.log.lines()
                assert len(lines) == alerts, lines
                remote.log.events.clear()
            return results, peer, lines

    return asyncio.run(asyncio.wait_for(main(), 30))


def helos(peer):
    return [line for line in peer.commands if line.startswith(b"EHLO")]


def test_each_sender_has_the_address_and_the_name_of_its_line(scene):
    bindings = {
        b"a.example": Source("127.0.0.2", None, b"mx.a.example"),
        b"user@a.example": Source("127.0.0.3", None, b"user.a.example"),
        b"<>": Source("127.0.0.4", None),
        b"*": Source("", ""),
    }
    senders = [b"x@a.example", b"user@a.example", b"", b"x@b.example"]
    _, peer, _ = deliver(scene, bindings, *[scene.job(sender=sender) for sender in senders])
    assert peer.sources == ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.1"]
    assert helos(peer) == [
        b"EHLO mx.a.example",
        b"EHLO user.a.example",
        b"EHLO mail.example.test",
        b"EHLO mail.example.test",
    ]


def test_a_kept_connection_serves_those_who_have_its_address_and_name_alone(scene):
    here = {
        b"a.example": Source("127.0.0.2", None, b"mx.example", "one place"),
        b"b.example": Source("127.0.0.2", "::1", b"mx.example", "another"),
        b"c.example": Source("127.0.0.3", None, b"mx.example"),
        b"d.example": Source("127.0.0.2", None, b"other.example"),
    }
    order = [b"a", b"b", b"c", b"d", b"a", b"b", b"c", b"d"]
    jobs = [scene.job(sender=b"x@" + one + b".example") for one in order]
    results, peer, _ = deliver(scene, here, *jobs)
    assert [each.outcome for each in results] == [Outcome.SUCCESS] * 8
    assert peer.sources == ["127.0.0.2", "127.0.0.3", "127.0.0.2"]


def test_an_address_that_cannot_be_bound_defers_and_the_alert_names_it_its_line_and_what_to_do(scene):
    source = Source(ELSEWHERE, None, place="control/bindings, line 7")
    results, peer, (alert,) = deliver(scene, {b"*": source}, scene.job(), scene.job(), alerts=1)
    for result in results:
        assert result.outcome is Outcome.DEFERRAL
        assert result.text == b"Sorry, I can't send from 192.0.2.1: it cannot be bound here. (#4.3.5)\n"
    assert peer.connections == 0
    assert alert.startswith(b"alert: control/bindings, line 7: 192.0.2.1 cannot be bound (")
    assert alert.endswith(b"give it to an interface of this host, or mend the line")


def test_other_senders_go_out_while_one_cannot(scene):
    bindings = {b"a.example": Source(ELSEWHERE, None)}
    jobs = scene.job(sender=b"x@a.example"), scene.job(sender=b"x@b.example")
    (bad, good), peer, _ = deliver(scene, bindings, *jobs, alerts=1)
    assert (bad.outcome, good.outcome) == (Outcome.DEFERRAL, Outcome.SUCCESS)
    assert peer.sources == ["127.0.0.1"]


@V6
def test_when_one_family_cannot_be_bound_the_other_is_not_tried_instead(scene):
    async def main():
        async with scene.Peer() as four, scene.Peer(host="::1", port=four.port) as six:
            given = scene.settings(
                smtproutes={b"": Route("smtp", (b"two.test",), four.port)},
                bindings={b"*": Source("", "2001:db8::1", place="control/bindings, line 1")},
            )
            async with scene.remote(given, resolver=Two()) as remote:
                (result,) = await remote.deliver(scene.job())
                assert len(remote.log.lines()) == 1
                remote.log.events.clear()
            return result, four.connections + six.connections

    result, connections = asyncio.run(asyncio.wait_for(main(), 30))
    assert result.outcome is Outcome.DEFERRAL
    assert connections == 0


class Two:
    """Every host has the two loopback addresses."""

    async def mx(self, domain):
        return Answer((MailExchanger(10, domain),), 60.0)

    async def addresses(self, host):
        return Answer(("127.0.0.1", "::1"), 60.0)


@V6
@pytest.mark.parametrize(
    ("source", "seen"),
    [
        (Source("", ""), "::1"),
        (Source("127.0.0.2", "::1"), "::1"),
        (Source("127.0.0.2", None), "127.0.0.2"),
        (Source(None, ""), "::1"),
    ],
)
def test_ipv6_is_first_and_a_family_that_is_not_used_is_not_tried(scene, source, seen):
    async def main():
        async with scene.Peer() as four, scene.Peer(host="::1", port=four.port) as six:
            given = scene.settings(
                smtproutes={b"": Route("smtp", (b"two.test",), four.port)}, bindings={b"*": source}
            )
            async with scene.remote(given, resolver=Two()) as remote:
                (result,) = await remote.deliver(scene.job())
            return result, four.sources + six.sources

    result, sources = asyncio.run(asyncio.wait_for(main(), 30))
    assert result.outcome is Outcome.SUCCESS
    assert sources == [seen]


def test_a_host_that_has_only_the_family_that_is_not_used_is_put_off_with_the_line(scene):
    source = Source(None, "", place="control/bindings, line 3")
    (result,), peer, _ = deliver(scene, {b"*": source}, scene.job())
    assert result.outcome is Outcome.DEFERRAL
    assert b"control/bindings, line 3" in result.text
    assert peer.connections == 0


@V6
def test_a_kept_connection_to_the_second_address_of_a_host_is_used_again(scene):
    """Where IPv6 is dead, only the first message tries it."""

    async def main():
        async with scene.Peer() as four:
            given = scene.settings(smtproutes={b"": Route("smtp", (b"two.test",), four.port)})
            async with scene.remote(given, resolver=Two()) as remote:
                for _ in range(3):
                    await remote.deliver(scene.job())
            return four

    peer = asyncio.run(asyncio.wait_for(main(), 30))
    assert (peer.connections, len(peer.messages)) == (1, 3)


def test_a_reload_gives_senders_their_new_addresses(scene):
    async def main():
        async with scene.Peer() as peer:
            given = scene.settings(smtproutes=scene.to(peer))
            async with scene.remote(given) as remote:
                await remote.deliver(scene.job())
                remote.reconfigure(
                    scene.settings(smtproutes=scene.to(peer), bindings={b"*": Source("127.0.0.2", None)})
                )
                await remote.deliver(scene.job())
            return peer.sources

    assert asyncio.run(main()) == ["127.0.0.1", "127.0.0.2"]


def test_a_stop_that_refuses_is_followed_by_the_other_addresses_and_then_the_worse(scene):
    """After the connection it is SMTP's turn: who greets badly makes way for the next."""

    async def main():
        bad = {"": b"554 not here\r\n"}
        async with (
            scene.Peer(bad) as first,
            scene.Peer(bad, "127.0.0.2", first.port) as second,
            scene.Peer(None, "127.0.0.3", first.port) as third,
        ):
            given = scene.settings(smtproutes=scene.to(first, second, third))
            async with scene.remote(given) as remote:
                (result,) = await remote.deliver(scene.job())
            return result, [each.connections for each in (first, second, third)]

    result, connections = asyncio.run(asyncio.wait_for(main(), 30))
    assert result.outcome is Outcome.SUCCESS
    assert connections == [1, 1, 1]
