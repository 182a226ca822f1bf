"""What a sender wants to be told: handed to a host that offers DSN, which then is the one to tell."""

import asyncio

import msgspec
import pytest

from openqmail.core.values import Outcome

OFFERS = b"250-peer.test\r\n250-PIPELINING\r\n250 DSN\r\n"
TWO = (b"a@remote.test", b"b@remote.test")
WISHES = ((b"SUCCESS", b"rfc822;first@old.test"), (b"", b""))


def told(scene, answers, dsn):
    async def main():
        async with (
            scene.Peer(answers) as peer,
            scene.remote(scene.settings(smtproutes=scene.to(peer))) as remote,
        ):
            job = msgspec.structs.replace(scene.job(recipients=TWO), ret=b"HDRS", envid=b"id", dsn=dsn)
            return await remote.deliver(job), peer.commands

    return asyncio.run(asyncio.wait_for(main(), 30))


def test_a_host_that_offers_dsn_gets_it_and_has_taken_over(scene):
    results, commands = told(scene, {"EHLO": OFFERS, "RCPT": [b"250 ok\r\n", b"550 no\r\n"]}, WISHES)
    assert b"MAIL FROM:<s@example.test> RET=HDRS ENVID=id" in commands
    assert b"RCPT TO:<a@remote.test> NOTIFY=SUCCESS ORCPT=rfc822;first@old.test" in commands
    assert b"RCPT TO:<b@remote.test>" in commands
    assert [(each.outcome, each.dsn) for each in results] == [
        (Outcome.SUCCESS, True),
        (Outcome.FAILURE, False),
    ]


@pytest.mark.parametrize("hello", [None, b"502 what\r\n"], ids=["EHLO without DSN", "HELO"])
def test_any_other_host_hears_nothing_of_it(scene, hello):
    results, commands = told(scene, {"EHLO": hello} if hello else {}, WISHES)
    assert not any(word in line for line in commands for word in (b"RET", b"ENVID", b"NOTIFY", b"ORCPT"))
    assert [(each.outcome, each.dsn) for each in results] == [(Outcome.SUCCESS, False)] * 2
