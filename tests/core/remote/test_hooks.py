"""Hooks of mail going out: another way for some, a last hand on the body, what became of it."""

import asyncio

import pytest

from breaking_body import BreakingBody
from openqmail.core.control.settings import Route
from openqmail.core.hooks import Defer, HookChain, Named
from openqmail.core.log import MemoryLog
from openqmail.core.values import BytesBody, Outcome, Reply

FAILED = b"Sorry, a check of this host failed; I will try again later. (#4.3.0)\n"


def deliver(scene, hooks, job, peers=1, **changes):
    """Results, the peers, and the log of the hooks; the first peer is where everything goes by itself."""
    log = MemoryLog()

    async def main():
        made = [scene.Peer() for _ in range(peers)]
        for at, peer in enumerate(made):
            peer.host = f"127.0.0.{at + 1}"
            await peer.__aenter__()
        try:
            for hook in hooks:
                if isinstance(hook, Ways):
                    hook.peers = made
            chain = HookChain(
                [one if isinstance(one, Named) else Named("hook", one) for one in hooks], log, "remote"
            )
            given = scene.settings(smtproutes=scene.to(made[0]), **changes)
            async with scene.remote(given, hooks=chain) as remote:
                return await remote.deliver(job), made
        finally:
            for peer in made:
                await peer.__aexit__()

    results, peers = asyncio.run(asyncio.wait_for(main(), 30))
    return results, peers, log


class Signer:
    """Tells how long the message is as it goes over the wire."""

    def __init__(self):
        self.asked = []

    def prepare(self, delivery, body, edits):
        self.asked.append(delivery)
        assert b"\n" not in b"".join(body.chunks()).replace(b"\r\n", b"")
        edits.prepend(b"Length: %d" % sum(map(len, body.chunks())))


class SlowSigner(Signer):
    async def prepare(self, delivery, body, edits):
        await asyncio.sleep(0)
        super().prepare(delivery, body, edits)


class Ways:
    """The recipients whose names begin with a digit go to that peer."""

    def route(self, recipient, proposed):
        if recipient[:1].isdigit():
            peer = self.peers[int(recipient[:1])]
            return Route("smtp", (b"[%s]" % peer.host.encode(),), peer.port)
        return None


class LargeBody:
    """As a body on the disk."""

    data = None

    def __init__(self, whole):
        self.whole, self.size = whole, len(whole)

    def chunks(self):
        for at in range(0, self.size, 1000):
            yield self.whole[at : at + 1000]


def received(peer):
    return [message.removesuffix(b".\r\n") for message in peer.messages]


@pytest.mark.parametrize("signer", [Signer, SlowSigner])
@pytest.mark.parametrize("body", [BytesBody, LargeBody])
@pytest.mark.parametrize("end", [b"\n", b""])
def test_each_signer_sees_what_goes_over_the_wire(scene, signer, body, end):
    stored = b"Subject: t\n\n.dot\nbody" + b"\nline" * 1000 + end
    hooks = [signer(), signer()]
    results, (peer,), log = deliver(scene, hooks, scene.job(body(stored)))
    assert [one.outcome for one in results] == [Outcome.SUCCESS]
    wire = stored.removesuffix(b"\n").replace(b"\n", b"\r\n") + b"\r\n"
    once = b"Length: %d\r\n" % len(wire) + wire
    twice = b"Length: %d\r\n" % len(once) + once
    assert received(peer) == [twice.replace(b"\r\n.", b"\r\n..")]
    assert not log.events


def test_recipients_that_go_different_ways_are_transactions_of_their_own(scene):
    signer = Signer()
    names = (b"1a@remote.test", b"r@remote.test", b"1b@remote.test")
    results, (usual, other), _ = deliver(scene, [Ways(), signer], scene.job(recipients=names), peers=2)
    assert [b"127.0.0.2" in one.text for one in results] == [True, False, True]
    assert [len(peer.messages) for peer in (usual, other)] == [1, 1]
    assert [one.recipients for one in signer.asked] == [names[::2], names[1:2]]
    assert other.commands.count(b"RCPT TO:<1a@remote.test>") == 1
    assert signer.asked[0].route.hosts == (b"[127.0.0.2]",)


def test_what_became_of_a_delivery_is_told(scene):
    class Clerk:
        def __init__(self):
            self.told = []

        async def finished(self, delivery, results):
            self.told.append((delivery.recipients, [one.outcome for one in results]))

    clerk = Clerk()
    deliver(scene, [clerk], scene.job())
    assert clerk.told == [((b"r@remote.test",), [Outcome.SUCCESS])]


class Broken:
    def __init__(self, step, answer=None):
        setattr(self, step, self._break)
        self.answer = answer

    def _break(self, *_):
        if self.answer is None:
            raise RuntimeError("no idea")
        return self.answer


@pytest.mark.parametrize("step", ["route", "prepare"])
def test_a_hook_that_fails_defers_and_is_passed_over_where_that_is_wanted(scene, step):
    results, (peer,), log = deliver(scene, [Broken(step)], scene.job())
    assert [(one.outcome, one.text) for one in results] == [(Outcome.DEFERRAL, FAILED)]
    assert peer.messages == []
    assert b"no idea" in log.lines()[0]

    results, (peer,), log = deliver(scene, [Named("broken", Broken(step), on_error="pass")], scene.job())
    assert [one.outcome for one in results] == [Outcome.SUCCESS]
    assert b"passed" in log.lines()[0]


class Breaks(BreakingBody):
    def prepare(self, delivery, body, edits):
        edits.replace_body(self.pieces)


@pytest.mark.parametrize("bad", [1, 2, 3], ids=["at once", "before it is sent", "while it is sent"])
@pytest.mark.parametrize("how", ["raises", "exits", "hangs"])
def test_a_large_body_of_a_hook_that_breaks_puts_off_its_delivery_alone(scene, how, bad):
    hook = Breaks(how, bad)
    stored = b"Subject: t\n\nbody" + b"\nline" * 1000
    try:
        results, (peer,), log = deliver(scene, [Named("bad", hook, 0.5)], scene.job(LargeBody(stored)))
        assert [one.outcome for one in results] == [Outcome.DEFERRAL]
        assert peer.messages == []
        [alert] = log.lines()
        assert alert.startswith(b"alert: hook bad ") and alert.endswith(b"; deferred")

        hook.bad, hook.calls = 1, 0
        passed = Named("bad", hook, 0.5, "pass")
        results, (peer,), log = deliver(scene, [passed], scene.job(LargeBody(stored)))
        assert [one.outcome for one in results] == [Outcome.SUCCESS]
        assert received(peer) == [stored.replace(b"\n", b"\r\n") + b"\r\n"]
    finally:
        hook.returns.set()


@pytest.mark.parametrize("step", ["route", "prepare"])
def test_a_hook_may_put_a_delivery_off(scene, step):
    later = Defer(Reply(450, b"4.7.1", (b"not now",)))
    results, (peer,), log = deliver(scene, [Broken(step, later)], scene.job())
    assert [one.outcome for one in results] == [Outcome.DEFERRAL]
    assert peer.messages == []
    assert not log.events, "that is no failure of the hook"


def test_one_answer_that_makes_no_sense_is_a_failure(scene):
    results, _, log = deliver(scene, [Broken("route", b"elsewhere")], scene.job())
    assert [one.text for one in results] == [FAILED]
    assert b"elsewhere" in log.lines()[0]
