"""Deliveries by SMTP to peers on loopback that are polite, rude, slow or gone."""

import asyncio

import pytest

from openqmail.core.control.settings import Route
from openqmail.core.remote import connection
from openqmail.core.values import Outcome

TEXT_DIED = b"Connected to 127.0.0.1 but connection died. (#4.4.2)\n"
TEXT_DUPLICATE = b"Connected to 127.0.0.1 but connection died. Possible duplicate! (#4.4.2)\n"
TEXT_NOT_CONNECTED = b"Sorry, I wasn't able to establish an SMTP connection. (#4.4.1)\n"
TEXT_ACCEPTED = b"127.0.0.1 accepted message.\nRemote host said: 250 2.0.0 accepted\n"


def deliver(scene, answers, *jobs, **changes):
    """The results of deliveries one after the other, and the peer."""

    async def main():
        async with scene.Peer(answers) as peer:
            async with scene.remote(scene.settings(smtproutes=scene.to(peer), **changes)) as remote:
                results = [await remote.deliver(each) for each in jobs or (scene.job(),)]
            return results, peer

    return asyncio.run(asyncio.wait_for(main(), 30))


def only(results):
    ((result,),) = results
    return result.outcome, result.text


def test_a_message_arrives_as_it_was_stored(scene):
    body = b"Subject: dots\n\n.\n..\n.x\nx.\n\xe4\nlast"
    results, peer = deliver(scene, {}, scene.job(body))
    assert only(results) == (Outcome.SUCCESS, TEXT_ACCEPTED)
    assert peer.messages == [b"Subject: dots\r\n\r\n..\r\n...\r\n..x\r\nx.\r\n\xe4\r\nlast\r\n"]
    assert peer.commands[0] == b"EHLO mail.example.test"
    assert peer.commands[1].startswith(b"MAIL FROM:<s@example.test>")
    assert b"BODY=8BITMIME" in peer.commands[1]
    assert peer.commands[-1] == b"QUIT"


def test_connections_are_kept_and_used_again(scene):
    results, peer = deliver(scene, {}, *[scene.job() for _ in range(10)])
    assert [each.outcome for (each,) in results] == [Outcome.SUCCESS] * 10
    assert peer.connections == 1
    assert len(peer.messages) == 10
    assert peer.commands.count(b"QUIT") == 1


def test_a_connection_carries_so_many_messages_and_no_more(scene, monkeypatch):
    monkeypatch.setattr(connection, "MOST_TRANSACTIONS", 3)
    results, peer = deliver(scene, {}, *[scene.job() for _ in range(7)])
    assert [each.outcome for (each,) in results] == [Outcome.SUCCESS] * 7
    assert peer.connections == 3
    assert [line[:4] for line in peer.commands if line[:4] in (b"MAIL", b"QUIT")] == (
        ([b"MAIL"] * 3 + [b"QUIT"]) * 2 + [b"MAIL", b"QUIT"]
    )


def test_messages_at_once_go_over_connections_of_their_own(scene):
    async def main():
        async with scene.Peer() as peer:
            async with scene.remote(scene.settings(smtproutes=scene.to(peer))) as remote:
                for _ in range(2):
                    await asyncio.gather(*(remote.deliver(scene.job()) for _ in range(5)))
            return peer

    peer = asyncio.run(main())
    assert len(peer.messages) == 10
    assert peer.connections == 5


def test_no_more_connections_are_kept_than_a_destination_may_have(scene):
    async def main():
        async with scene.Peer() as peer:
            given = scene.settings(smtproutes=scene.to(peer), concurrencydestination=2)
            async with scene.remote(given) as remote:
                for _ in range(2):
                    await asyncio.gather(*(remote.deliver(scene.job()) for _ in range(5)))
                return peer.connections

    assert asyncio.run(main()) == 8


def test_a_kept_connection_that_the_peer_has_closed_is_replaced(scene):
    async def main():
        async with scene.Peer() as peer:
            async with scene.remote(scene.settings(smtproutes=scene.to(peer))) as remote:
                first = await remote.deliver(scene.job())
                await peer.hang_up()
                second = await remote.deliver(scene.job())
            return first + second, peer

    results, peer = asyncio.run(main())
    assert [each.outcome for each in results] == [Outcome.SUCCESS] * 2
    assert peer.connections == 2


@pytest.mark.parametrize("how", ["CLOSE", "RESET", "421"])
def test_a_kept_connection_that_ends_at_the_next_message_is_replaced_once(scene, how):
    end = (b"421 4.4.2 idle too long\r\n",) if how == "421" else getattr(scene, how)
    answers = {"MAIL": [scene.POLITE["MAIL"], end, scene.POLITE["MAIL"]], "EHLO": scene.PLAIN}
    results, peer = deliver(scene, answers, scene.job(), scene.job())
    assert [each.outcome for (each,) in results] == [Outcome.SUCCESS] * 2
    assert peer.connections == 2
    assert len(peer.messages) == 2


def test_a_connection_that_ends_after_the_message_is_not_tried_again(scene):
    answers = {".": [scene.POLITE["."], scene.CLOSE]}
    results, peer = deliver(scene, answers, scene.job(), scene.job())
    assert [each.text for (each,) in results] == [TEXT_ACCEPTED, TEXT_DUPLICATE]
    assert results[1][0].outcome is Outcome.DEFERRAL
    assert len(peer.messages) == 2


def test_a_new_connection_that_ends_is_not_replaced(scene):
    results, peer = deliver(scene, {"MAIL": scene.CLOSE})
    assert only(results) == (Outcome.DEFERRAL, TEXT_DIED)
    assert peer.connections == 1


@pytest.mark.parametrize("stage", ["", "EHLO", "MAIL", "RCPT", "DATA", "."])
@pytest.mark.parametrize("how", ["CLOSE", "RESET", "HANG", "half", "endless", "nonsense"])
@pytest.mark.parametrize("extended", [True, False])
def test_a_peer_that_breaks_off_defers_the_message(scene, stage, how, extended):
    ends = {
        "half": (b"250-only half of",),
        "endless": (b"250-more\r\n" * 100_000,),
        "nonsense": (b"\x00\xff what\r\n" * 3,),
    }
    end = ends.get(how) or getattr(scene, how)
    answers = {"EHLO": scene.EXTENSIONS if extended else scene.PLAIN, stage: end}
    results, _ = deliver(scene, answers, timeoutremote=0.3)
    outcome, text = only(results)
    assert outcome is Outcome.DEFERRAL
    assert text == (TEXT_DUPLICATE if stage == "." else TEXT_DIED)


STAGES = {
    "": b"Connected to 127.0.0.1 but greeting failed.\nRemote host said: %s\n",
    "EHLO": b"Connected to 127.0.0.1 but my name was rejected.\nRemote host said: %s\n",
    "MAIL": b"Connected to 127.0.0.1 but sender was rejected.\nRemote host said: %s\n",
    "RCPT": b"127.0.0.1 does not like recipient.\nRemote host said: %s\nGiving up on 127.0.0.1.\n",
    "DATA": b"127.0.0.1 failed on DATA command.\nRemote host said: %s\n",
    ".": b"127.0.0.1 failed after I sent the message.\nRemote host said: %s\n",
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("reply", [b"421 4.3.2 shutting down", b"451 4.3.0 later", b"554 5.7.1 never"])
def test_a_refusal_at_any_stage_is_quoted(scene, stage, reply):
    results, peer = deliver(scene, {stage: reply + b"\r\n", "HELO": reply + b"\r\n"})
    outcome, text = only(results)
    permanent = reply.startswith(b"5") and stage not in ("", "EHLO")
    assert outcome is (Outcome.FAILURE if permanent else Outcome.DEFERRAL)
    assert text == STAGES[stage] % reply
    assert all(not message.strip(b".\r\n") or stage == "." for message in peer.messages)


def test_each_recipient_gets_its_own_result(scene):
    recipients = [b"a@x.test", b"b@x.test", b"c@x.test", b"d@x.test"]
    answers = [b"250 ok\r\n", b"450-later\r\n450 4.2.0 please\r\n", b"550 5.1.1 no\r\n", b"250 ok\r\n"]
    for greeting in (scene.EXTENSIONS, scene.PLAIN):
        (results,), peer = deliver(
            scene, {"EHLO": greeting, "RCPT": list(answers)}, scene.job(recipients=recipients)
        )
        assert [each.outcome.value for each in results] == [b"K", b"Z", b"D", b"K"]
        assert results[0].text == TEXT_ACCEPTED
        assert results[1].text == STAGES["RCPT"] % b"450-later\n450 4.2.0 please"
        assert results[2].text == STAGES["RCPT"] % b"550 5.1.1 no"
        assert len(peer.messages) == 1


def test_a_connection_is_kept_after_a_refused_transaction(scene):
    answers = {"RCPT": [b"550 no\r\n", b"250 ok\r\n"]}
    results, peer = deliver(scene, answers, scene.job(), scene.job())
    assert [each.outcome.value for (each,) in results] == [b"D", b"K"]
    assert peer.connections == 1
    assert len([message for message in peer.messages if message.strip(b".\r\n")]) == 1


def test_what_a_peer_cannot_do_is_a_permanent_failure_and_the_connection_stays(scene):
    results, peer = deliver(
        scene,
        {"EHLO": b"250-peer.test\r\n250 SIZE 100\r\n"},
        scene.job(smtputf8=True),
        scene.job(b"\xe4\n"),
        scene.job(b"x" * 90 + b"\n" + b"y" * 90 + b"\n"),
        scene.job(),
    )
    assert [each.outcome.value for (each,) in results] == [b"D", b"D", b"D", b"K"]
    assert b"SMTPUTF8" in results[0][0].text
    assert b"8BITMIME" in results[1][0].text
    assert all(each.text.startswith(b"127.0.0.1") and each.text.endswith(b"\n") for (each,) in results)
    assert peer.connections == 1
    assert len(peer.messages) == 1


@pytest.mark.parametrize("body", [b"a\rb\n", b"a\0b\n", b"x" * 999 + b"\n", b"a\r\n"])
def test_what_smtp_cannot_carry_fails_without_bothering_anybody(scene, body):
    results, peer = deliver(scene, {}, scene.job(body))
    outcome, text = only(results)
    assert outcome is Outcome.FAILURE
    assert text.startswith(b"Sorry, SMTP cannot carry this message: it ")
    assert text.endswith(b"(#5.6.0)\n")
    assert peer.connections == 0


def test_the_next_address_is_tried_until_one_greets(scene):
    async def main():
        async with scene.Peer({"": b"421 full\r\n"}, "127.0.0.2") as first:
            port = first.port
            async with (
                scene.Peer({"": scene.HANG}, "127.0.0.3", port) as second,
                scene.Peer({"EHLO": b"502 no\r\n", "HELO": scene.CLOSE}, "127.0.0.4", port) as third,
                scene.Peer({}, "127.0.0.6", port) as last,
            ):
                hosts = tuple(b"[127.0.0.%d]" % number for number in (2, 3, 4, 5, 6))
                routes = {b"": Route("smtp", hosts, port)}
                async with scene.remote(scene.settings(smtproutes=routes, timeoutremote=0.3)) as remote:
                    results = await remote.deliver(scene.job())
                return results, [each.connections for each in (first, second, third, last)]

    (result,), connections = asyncio.run(main())
    assert result.text == b"127.0.0.6 accepted message.\nRemote host said: 250 2.0.0 accepted\n"
    assert connections == [1, 1, 1, 1]


def test_when_none_greets_the_last_that_spoke_is_quoted(scene):
    async def main():
        async with scene.Peer({"": b"421 full\r\n"}) as peer:
            routes = {b"": Route("smtp", (b"[127.0.0.1]", b"[127.0.0.5]"), peer.port)}
            async with scene.remote(scene.settings(smtproutes=routes)) as remote:
                return await remote.deliver(scene.job())

    (result,) = asyncio.run(main())
    assert (result.outcome, result.text) == (Outcome.DEFERRAL, STAGES[""] % b"421 full")


def test_nobody_listens(scene):
    async def main():
        async with scene.Peer() as peer:
            pass
        async with scene.remote(scene.settings(smtproutes=scene.to(peer))) as remote:
            return await remote.deliver(scene.job(recipients=[b"a@x.test", b"b@x.test"]))

    results = asyncio.run(main())
    assert [(each.outcome, each.text) for each in results] == [(Outcome.DEFERRAL, TEXT_NOT_CONNECTED)] * 2


def test_which_addresses_were_tried_and_why_in_vain_is_for_the_administrator(scene):
    async def main():
        async with scene.Peer() as peer:
            port = peer.port
        routes = {b"": Route("smtp", (b"[127.0.0.1]", b"[127.0.0.2]"), port)}
        async with scene.remote(scene.settings(smtproutes=routes)) as remote:
            return (await remote.deliver(scene.job()))[0], port

    result, port = asyncio.run(main())
    assert result.text == TEXT_NOT_CONNECTED
    assert result.why == (
        f"no connection: 127.0.0.1 port {port}: connection refused; 127.0.0.2 port {port}: connection refused"
    )


def test_a_word_nobody_asked_for_ends_a_kept_connection(scene):
    async def main():
        answers = {".": [scene.POLITE["."] + b"421 4.3.2 bye\r\n", scene.POLITE["."]]}
        async with scene.Peer(answers) as peer:
            async with scene.remote(scene.settings(smtproutes=scene.to(peer))) as remote:
                first = await remote.deliver(scene.job())
                second = await remote.deliver(scene.job())
            return first + second, len(peer.messages)

    results, messages = asyncio.run(main())
    assert [each.outcome for each in results] == [Outcome.SUCCESS] * 2
    assert messages == 2


def test_an_unknown_transport_defers_and_names_itself(scene):
    async def main():
        routes = {b"": Route("carrier-pigeon", (b"[127.0.0.1]",), 25)}
        async with scene.remote(scene.settings(smtproutes=routes)) as remote:
            return await remote.deliver(scene.job())

    (result,) = asyncio.run(main())
    assert result.outcome is Outcome.DEFERRAL
    assert b"carrier-pigeon" in result.text


def test_new_settings_hold_for_the_next_message(scene):
    async def main():
        async with scene.Peer() as old, scene.Peer() as new:
            async with scene.remote(scene.settings(smtproutes=scene.to(old))) as remote:
                await remote.deliver(scene.job())
                remote.reconfigure(scene.settings(smtproutes=scene.to(new), helohost=b"other.test"))
                await remote.deliver(scene.job())
                await old.ended.wait()
            return old, new

    old, new = asyncio.run(main())
    assert (len(old.messages), len(new.messages)) == (1, 1)
    assert old.commands[-1] == b"QUIT"
    assert new.commands[0] == b"EHLO other.test"


def test_an_idle_connection_takes_its_leave(scene, monkeypatch):
    monkeypatch.setattr("openqmail.core.remote.smtp.IDLE_SECONDS", 0.1)

    async def main():
        async with scene.Peer() as peer, scene.remote(scene.settings(smtproutes=scene.to(peer))) as remote:
            await remote.deliver(scene.job())
            await peer.ended.wait()
            return peer.commands[-1]

    assert asyncio.run(asyncio.wait_for(main(), 20)) == b"QUIT"


def test_closing_does_not_wait_for_a_peer_that_says_nothing(scene):
    async def main():
        async with scene.Peer({"MAIL": scene.HANG}) as peer:
            async with scene.remote(scene.settings(smtproutes=scene.to(peer), timeoutremote=600)) as remote:
                delivery = remote.deliver(scene.job())
                while not peer.commands:
                    await asyncio.sleep(0.01)
            return await delivery

    (result,) = asyncio.run(asyncio.wait_for(main(), 20))
    assert (result.outcome, result.text) == (Outcome.DEFERRAL, TEXT_DIED)


def test_it_works_on_uvloop(scene):
    uvloop = pytest.importorskip("uvloop")

    async def main():
        async with scene.Peer() as peer, scene.remote(scene.settings(smtproutes=scene.to(peer))) as remote:
            return [await remote.deliver(scene.job()) for _ in range(3)], peer.connections

    loop = uvloop.new_event_loop()
    try:
        results, connections = loop.run_until_complete(main())
    finally:
        loop.close()
    assert [each.text for (each,) in results] == [TEXT_ACCEPTED] * 3
    assert connections == 1
