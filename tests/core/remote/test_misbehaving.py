"""Receivers that misbehave: bounded memory and time, the right outcome, nothing lost, one line in the log.

Each is met twice: what was deferred goes through once the receiver has come to its senses.
"""

import asyncio
import tracemalloc

import pytest

from openqmail.core.dns import Patience, StubResolver
from openqmail.core.log.events import DeliveryEnded
from openqmail.core.values import Outcome

K, Z, D = Outcome.SUCCESS, Outcome.DEFERRAL, Outcome.FAILURE
DIED = b"Connected to 127.0.0.1 but connection died. (#4.4.2)\n"
DUPLICATE = b"Connected to 127.0.0.1 but connection died. Possible duplicate! (#4.4.2)\n"
STAGES = ("", "EHLO", "MAIL", "RCPT", "DATA", ".")
BEFORE_THE_MESSAGE = STAGES[:-1]


@pytest.fixture(params=[True, False], ids=["pipelining", "one by one"])
def ehlo(request, scene):
    return scene.EXTENSIONS if request.param else scene.PLAIN


def meet(scene, peer, job=None, again=True, **changes):
    """The result beside the receiver as it is, and when it has become polite."""

    async def main():
        async with peer:
            given = scene.settings(smtproutes=scene.to(peer), **{"timeoutremote": 0.3, **changes})
            async with scene.remote(given) as remote:
                (first,) = await remote.deliver(job or scene.job())
                peer.answers.update(scene.POLITE)
                peer.healed = True
                if again:
                    (second,) = await remote.deliver(job or scene.job())
                    assert second.outcome is K, second.text
        line = DeliveryEnded(1, first.outcome, first.text, 7).line()
        assert all(0x20 <= octet < 0x7F for octet in line) and line.count(b" ") == 3
        return first

    return asyncio.run(asyncio.wait_for(main(), 60))


# --- wrong codes --------------------------------------------------------------------------------

NONSENSE = {
    "1xx": b"150 hold on\r\n",
    "6xx": b"650 beyond\r\n",
    "999": b"999 no such code\r\n",
    "000": b"000 nothing\r\n",
    "no code": b"welcome to our host\r\n",
    "an empty line": b"\r\n",
    "two digits": b"25 ok\r\n",
    "four digits": b"2500 ok\r\n",
    "a bare LF": b"250 ok\n",
    "a bare CR": b"250 ok\r250 ok\r\n",
    "only NULs": b"\0" * 100 + b"\r\n",
    "codes that change": b"250-ok\r\n550 no\r\n",
    "no code in the second line": b"250-ok\r\nhello\r\n250 ok\r\n",
    "a control character for a space": b"250\tok\r\n",
    "HTTP": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "TLS": b"\x15\x03\x01\x00\x02\x02\x0a\r\n",
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("nonsense", NONSENSE)
def test_what_is_no_reply_defers_at_every_stage(scene, ehlo, stage, nonsense):
    peer = scene.Peer({"EHLO": ehlo, stage: NONSENSE[nonsense]})
    result = meet(scene, peer)
    assert (result.outcome, result.text) == (Z, DUPLICATE if stage == "." else DIED)


@pytest.mark.parametrize(
    ("stage", "reply"),
    [
        ("MAIL", b"354 go ahead\r\n"),
        ("RCPT", b"354 go ahead\r\n"),
        ("DATA", b"250 ok\r\n"),
        ("DATA", b"220 hello\r\n"),
        ("DATA", b"300 what\r\n"),
        (".", b"354 more\r\n"),
    ],
)
def test_a_reply_that_cannot_stand_there_defers(scene, ehlo, stage, reply):
    result = meet(scene, scene.Peer({"EHLO": ehlo, stage: reply}))
    assert (result.outcome, result.text) == (Z, DUPLICATE if stage == "." else DIED)


@pytest.mark.parametrize("stage", ["", "EHLO"])
@pytest.mark.parametrize("reply", [b"354 go\r\n", b"334 Zm9v\r\n"])
def test_a_greeting_that_is_none_is_quoted_and_defers(scene, stage, reply):
    result = meet(scene, scene.Peer({stage: reply}))
    assert result.outcome is Z and reply.strip() in result.text


def test_what_stands_in_a_reply_is_quoted_without_what_breaks_a_line(scene):
    reply = b"554-\x1b[2J\0 \x07%n%s\xff\r\n554 delivery 1: success: forged\r\n"
    result = meet(scene, scene.Peer({"RCPT": reply}), again=False)
    assert result.outcome is D
    assert b"\0" not in result.text


# --- the end of the connection ------------------------------------------------------------------


class InTheBody:
    """Mixed into a peer: it reads so much of a message, then does what `act` says."""

    def __init__(self, act, octets=20_000):
        super().__init__()
        self.act, self.octets, self.healed = act, octets, False

    async def _session(self, reader, writer):
        self.writer = writer
        await super()._session(reader, writer)

    async def _message(self, reader):
        if self.healed:
            return await super()._message(reader)
        await reader.readexactly(self.octets)
        if self.act == "HANG":
            await asyncio.Event().wait()
        if self.act == "RESET":
            self.writer.transport.abort()
        elif self.act != "CLOSE":
            self.writer.write(self.act)
            while await reader.read(1 << 16):
                pass
        raise ConnectionResetError


@pytest.mark.parametrize("act", ["HANG", "RESET", "CLOSE"])
def test_an_end_in_the_midst_of_the_body(scene, act):
    class Peer(InTheBody, scene.Peer):
        pass

    result = meet(scene, Peer(act), scene.job(b"x" * 70 + b"\n" + b"y" * 70 + b"\n" * 100_000))
    # The whole message may be in the socket's buffer: then nobody knows.
    assert result.outcome is Z and result.text in (DIED, DUPLICATE)
    assert not result.host


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [(b"421 4.3.2 closing\r\n", Z), (b"452 4.3.1 full\r\n", Z), (b"552 5.3.4 too much\r\n", D)],
)
def test_a_refusal_in_the_midst_of_the_body_decides(scene, reply, outcome):
    class Peer(InTheBody, scene.Peer):
        pass

    result = meet(scene, Peer(reply), scene.job(b"z" * 70 + b"\n" * 100_000), again=outcome is Z)
    assert result.outcome is outcome
    assert reply.strip() in result.text


def slow(scene, seconds, verbs):
    class Slow(scene.Peer):
        async def _say(self, writer, verb, answer=None):
            if verb in verbs:
                await asyncio.sleep(seconds)
            return await super()._say(writer, verb, answer)

    return Slow({"EHLO": scene.PLAIN})


@pytest.fixture
def hurry(monkeypatch):
    monkeypatch.setattr("openqmail.core.remote.attempt.SECONDS_TO_AGREE", 0.6)
    monkeypatch.setattr("openqmail.core.remote.attempt.SECONDS_A_RECIPIENT", 0.0)


def test_it_answers_each_time_at_the_last_moment(scene, hurry):
    peer = slow(scene, 0.15, ("RCPT",))

    async def main():
        async with peer, scene.remote(scene.settings(smtproutes=scene.to(peer))) as remote:
            recipients = [b"u%d@remote.test" % at for at in range(100)]
            return await remote.deliver(scene.job(recipients=recipients))

    results = asyncio.run(asyncio.wait_for(main(), 60))
    assert {each.outcome for each in results} == {Z} and all(each.host for each in results)
    assert b"took too long" in results[0].text
    assert 0 < len([command for command in peer.commands if b"RCPT" in command]) < 100


def test_many_exchangers_do_not_win_it_more_time(scene, hurry):
    first, second = scene.Peer({"": scene.HANG}), scene.Peer({"": scene.HANG}, host="127.0.0.2")

    async def main():
        async with first:
            second.port = first.port
            async with second:
                given = scene.settings(smtproutes=scene.to(first, second), timeoutremote=30)
                async with scene.remote(given) as remote:
                    return await remote.deliver(scene.job())

    (result,) = asyncio.run(asyncio.wait_for(main(), 20))
    assert result.outcome is Z and result.host
    assert (first.connections, second.connections) == (1, 0)


def test_who_takes_his_time_over_the_message_itself_is_waited_for(scene, hurry):
    result = meet(scene, slow(scene, 1.5, (".",)), again=False, timeoutremote=10)
    assert result.outcome is K


@pytest.mark.parametrize("act", ["RESET", "CLOSE", "HANG", "421", "gigabyte"])
def test_whatever_it_does_at_quit_the_message_is_delivered_once(scene, act, monkeypatch):
    monkeypatch.setattr("openqmail.core.remote.smtp.CLOSE_SECONDS", 0.2)
    answer = {"421": b"421 bye\r\n", "gigabyte": (b"221-" + b"x" * 500 + b"\r\n") * 2000}.get(act)
    peer = scene.Peer({"QUIT": answer or getattr(scene, act)})
    result = meet(scene, peer, again=False)
    assert result.outcome is K and len(peer.messages) == 1


def test_it_takes_the_message_and_never_answers(scene):
    peer = scene.Peer({".": scene.HANG})
    result = meet(scene, peer)
    assert (result.outcome, result.text) == (Z, DUPLICATE)
    assert not result.host, "the message may be to blame"
    assert len(peer.messages) == 2


def test_a_recipient_that_was_refused_before_the_silence_stays_refused(scene, ehlo):
    async def main():
        async with scene.Peer(
            {"EHLO": ehlo, "RCPT": [b"550 5.1.1 no\r\n", b"250 ok\r\n"], ".": scene.HANG}
        ) as peer:
            given = scene.settings(smtproutes=scene.to(peer), timeoutremote=0.3)
            async with scene.remote(given) as remote:
                return await remote.deliver(scene.job(recipients=(b"a@x.test", b"b@x.test")))

    refused, unknown = asyncio.run(asyncio.wait_for(main(), 30))
    assert (refused.outcome, unknown.text) == (D, DUPLICATE)


@pytest.mark.parametrize("stage", ["MAIL", "RCPT", "."])
def test_greylisting_passes_at_the_second_time(scene, ehlo, stage):
    peer = scene.Peer({"EHLO": ehlo, stage: b"450 4.7.1 greylisted, come back\r\n"})
    result = meet(scene, peer)
    assert result.outcome is Z and b"450 4.7.1 greylisted" in result.text
    assert not result.host, "greylisting speaks of the message, not of the host"


# --- too much, too slowly -----------------------------------------------------------------------

GIGABYTE = 1 << 30


class Talkative:
    """Mixed into a peer: at one stage it says a gigabyte, of pieces of `piece`, or what of it is taken."""

    def __init__(self, stage, piece, ehlo):
        super().__init__({"EHLO": ehlo})
        self.stage, self.piece = stage, piece
        self.said, self.healed = 0, False

    async def _say(self, writer, verb, answer=None):
        if verb != self.stage or self.healed:
            return await super()._say(writer, verb, answer)
        block = self.piece * (1 + (1 << 16) // len(self.piece))
        while self.said < GIGABYTE:
            writer.write(block)
            await writer.drain()
            self.said += len(block)
        return False


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("piece", [b"x", b"250-more\r\n", b"250 ok\r\n", b"\r\n"], ids=repr)
def test_of_a_reply_of_a_gigabyte_little_is_taken(scene, ehlo, stage, piece):
    class Peer(Talkative, scene.Peer):
        pass

    peer = Peer(stage, piece, ehlo)
    tracemalloc.start()
    try:
        result = meet(scene, peer, again=piece != b"250 ok\r\n")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peer.said < GIGABYTE // 20, "it was listened to"
    assert most < 30 << 20
    if piece != b"250 ok\r\n":  # which is a reply, with too much behind it
        assert (result.outcome, result.text) == (Z, DUPLICATE if stage == "." else DIED)


class Trickling:
    """Mixed into a peer: at one stage it says this reply octet by octet, for as long as it is listened to."""

    def __init__(self, stage, ehlo, text):
        super().__init__({"EHLO": ehlo})
        self.stage, self.text = stage, text
        self.said, self.healed = 0, False

    async def _say(self, writer, verb, answer=None):
        if verb != self.stage or self.healed:
            return await super()._say(writer, verb, answer)
        for octet in self.text:
            writer.write(bytes((octet,)))
            await writer.drain()
            self.said += 1
            await asyncio.sleep(0.02)
        return False


@pytest.mark.parametrize("stage", STAGES)
def test_a_reply_of_one_octet_at_a_time_wins_no_time(scene, ehlo, stage):
    """The rest of a reply has to come within the time for the reply: two kilobytes would take 40 seconds."""

    class Peer(Trickling, scene.Peer):
        pass

    peer = Peer(stage, ehlo, b"250-" + b"x" * 2000)
    result = meet(scene, peer, timeoutremote=0.2)
    assert (result.outcome, result.text) == (Z, DUPLICATE if stage == "." else DIED)
    assert peer.said < 1000, "each octet was given the whole time again"


# --- the way there ------------------------------------------------------------------------------


def over(nameserver, scene, records, domain, peers=(), exchanger_port=25, **changes):
    """The result for a domain that is looked up, and the name server."""

    async def main():
        async with nameserver(records) as server:
            server.follows = False
            resolver = StubResolver([server.address], patience=Patience(a_try=1.0, a_lookup=5.0))
            given = scene.settings(timeoutconnect=0.2, **changes)
            more = {"resolver": resolver, "own": frozenset, "exchanger_port": exchanger_port}
            async with scene.remote(given, **more) as remote:
                (result,) = await remote.deliver(scene.job(domain=domain))
            return result, server

    return asyncio.run(asyncio.wait_for(main(), 60))


def test_of_500_exchangers_that_refuse_twenty_are_tried(scene, nameserver):
    tried = []

    async def main():
        async with scene.Peer(host="127.0.0.1") as peer:
            peer.answers[""] = b"554 not here\r\n"
            records = {("many.test", "MX"): [f"{n} mx{n}.many.test." for n in range(500)]}
            records |= {(f"mx{n}.many.test", "A"): [f"127.0.{n // 250}.{n % 250 + 1}"] for n in range(500)}
            everywhere = [
                scene.Peer({"": b"554 not here\r\n"}, f"127.0.0.{n}", peer.port) for n in range(2, 30)
            ]
            async with nameserver(records) as server:
                for each in everywhere:
                    await each.__aenter__()
                resolver = StubResolver([server.address], patience=Patience(a_try=2.0, a_lookup=10.0))
                more = {"resolver": resolver, "own": frozenset, "exchanger_port": peer.port}
                async with scene.remote(scene.settings(), **more) as remote:
                    (result,) = await remote.deliver(scene.job(domain=b"many.test"))
                for each in everywhere:
                    await each.__aexit__()
            tried.extend(each.host for each in (peer, *everywhere) if each.connections)
            return result, server

    result, server = asyncio.run(asyncio.wait_for(main(), 60))
    assert result.outcome is Z and b"554 not here" in result.text
    assert tried == [f"127.0.0.{n}" for n in range(1, 21)], "not the twenty best"
    assert sum(server.asked.values()) <= 202, "more than a hundred exchangers were looked up"


@pytest.mark.parametrize(
    "records",
    [
        {("loop.test", "CNAME"): ["loop.test."]},
        {("loop.test", "CNAME"): ["b.test."], ("b.test", "CNAME"): ["loop.test."]},
        {
            ("loop.test", "MX"): ["1 c.test."],
            ("c.test", "CNAME"): ["d.test."],
            ("d.test", "CNAME"): ["c.test."],
        },
        {
            (name, "CNAME"): [f"n{i + 1}.test."]
            for i, name in enumerate(["loop.test", *(f"n{i}.test" for i in range(1, 60))])
        },
    ],
    ids=["itself", "two", "an exchanger's", "sixty in a row"],
)
def test_aliases_without_end_defer_and_are_not_asked_for_without_end(scene, nameserver, records):
    result, server = over(nameserver, scene, records, b"loop.test")
    assert result.outcome is Z, result.text
    assert result.host
    assert sum(server.asked.values()) < 50
