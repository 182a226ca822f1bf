"""Whether a result speaks of the whole host, or of one message."""

import asyncio

import pytest

from openqmail.core.control.settings import Route
from openqmail.core.dns import LookupFailed
from openqmail.core.values import Outcome

STAGES = ["", "EHLO", "MAIL", "RCPT", "DATA", "."]


def results_of(scene, answers, recipients=(b"r@remote.test",)):
    async def main():
        async with scene.Peer(answers) as peer:
            given = scene.settings(smtproutes=scene.to(peer), timeoutremote=0.3)
            async with scene.remote(given) as remote:
                return await remote.deliver(scene.job(recipients=recipients))

    return asyncio.run(asyncio.wait_for(main(), 30))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("reply", [b"421 4.3.2 closing", b"451 4.3.0 later", b"554 5.7.1 never"])
def test_a_refusal_is_the_hosts_where_it_greets_and_when_it_closes(scene, stage, reply):
    (result,) = results_of(scene, {stage: reply + b"\r\n", "HELO": reply + b"\r\n"})
    assert result.host is (stage in ("", "EHLO") or (stage == "MAIL" and reply.startswith(b"421")))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("how", ["CLOSE", "RESET", "HANG"])
def test_what_breaks_off_before_the_sender_is_taken_is_the_hosts(scene, stage, how):
    (result,) = results_of(scene, {stage: getattr(scene, how)})
    assert result.outcome is Outcome.DEFERRAL
    assert result.host is (stage in ("", "EHLO", "MAIL"))


def test_a_refused_recipient_says_nothing_of_the_host(scene):
    answers = {"RCPT": [b"250 ok\r\n", b"450 full\r\n", b"550 no\r\n"]}
    results = results_of(scene, answers, (b"a@remote.test", b"b@remote.test", b"c@remote.test"))
    assert [each.outcome for each in results] == [Outcome.SUCCESS, Outcome.DEFERRAL, Outcome.FAILURE]
    assert not any(each.host for each in results)


def test_where_nobody_listens_it_is_the_hosts(scene):
    async def main():
        async with scene.Peer() as peer:
            pass
        routes = {b"": Route("smtp", (b"[127.0.0.1]", b"[127.0.0.5]"), peer.port)}
        async with scene.remote(scene.settings(smtproutes=routes)) as remote:
            return await remote.deliver(scene.job())

    (result,) = asyncio.run(main())
    assert (result.outcome, result.host) == (Outcome.DEFERRAL, True)


def test_a_name_that_cannot_be_looked_up_is_the_hosts(scene):
    class Silent:
        async def mx(self, domain):
            raise LookupFailed(f"no answer about {domain}")

        async def addresses(self, host):
            raise LookupFailed(f"no answer about {host}")

    async def main():
        async with scene.remote(scene.settings(), resolver=Silent()) as remote:
            return await remote.deliver(scene.job())

    (result,) = asyncio.run(main())
    assert (result.outcome, result.host) == (Outcome.DEFERRAL, True)
