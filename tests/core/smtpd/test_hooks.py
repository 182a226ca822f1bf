"""Hooks of mail coming in, asked by a real session: with direct calls, and with frames in between."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from breaking_body import BreakingBody
from openqmail.core.control.settings import Settings
from openqmail.core.hooks import (
    Accept,
    Defer,
    Drop,
    HangUp,
    Hold,
    Named,
    Next,
    Reject,
    Replace,
    SkipChecks,
)
from openqmail.core.ports import LARGE
from openqmail.core.values import Recipient, Reply

NO = Reject(Reply(550, b"5.7.1", (b"not this",)))
MESSAGE = b"From: a@c.example\r\nSubject: a\r\n long one\r\n\r\nhello\r\n.. dots\r\nworld\r\n.\r\n"
STORED = b"From: a@c.example\nSubject: a\n long one\n\nhello\n. dots\nworld\n"
BIG = b"Subject: big\n\n" + b"0123456789abcde\n" * (LARGE // 8)


class Told:
    """Answers as it was made to, one answer for each step; remembers what it was asked."""

    def __init__(self, slow: bool = False, **answers: Any) -> None:
        self.slow, self.answers = slow, answers
        self.asked: list[tuple[Any, ...]] = []
        self.ids: set[int] = set()

    def __getattr__(self, step: str) -> Any:
        if step not in STEPS:
            raise AttributeError(step)

        def plain(session: Any, *facts: Any) -> Any:
            self.ids.add(session.id)
            if step == "message":
                facts = (facts[0], b"".join(facts[1].chunks()))
            self.asked.append((step, *facts))
            return self.answers.get(step)

        async def slowly(session: Any, *facts: Any) -> Any:
            await asyncio.sleep(0)
            return plain(session, *facts)

        return slowly if self.slow else plain

    def steps(self) -> list[str]:
        return [one[0] for one in self.asked]


STEPS = ("connect", "helo", "auth", "mail", "rcpt", "data", "header", "chunk", "message", "reset")


async def say(client: Any, message: bytes = MESSAGE, *recipients: bytes) -> bytes:
    """A whole message; the answer to its end."""
    await client.data(*recipients)
    client.writer.write(message)
    return await client.reply()


def wire(stored: bytes) -> bytes:
    return stored.replace(b"\n", b"\r\n") + b".\r\n"


def behind_ours(body: bytes) -> bytes:
    """Without our Received field."""
    first, _, rest = bytes(body).partition(b"\n")
    assert first.startswith(b"Received:")
    while rest.startswith((b" ", b"\t")):
        rest = rest.partition(b"\n")[2]
    return rest


@pytest.mark.parametrize("slow", [False, True])
def test_a_hook_sees_a_session_from_its_beginning_to_its_end(
    settings: Settings, running: Any, slow: bool
) -> None:
    hook = Told(slow)

    async def story() -> None:
        async with running(settings, [("told", hook)]) as server:
            client = await (await server.client()).hello()
            assert (await say(client))[:3] == b"250"
            assert behind_ours(server.queue.messages[0][1]) == STORED
            await client.say(b"MAIL FROM:<x@c.example>")
            await client.say(b"RSET")
            await client.say(b"QUIT")
            await server.quiet()
            async with asyncio.timeout(10):
                while hook.asked[-1] != ("reset", "end"):
                    await asyncio.sleep(0)

    asyncio.run(story())
    fields = [one[1] for one in hook.asked if one[0] == "header"]
    assert [(field.name, field.value) for field in fields] == [
        (b"From", b" a@c.example"),
        (b"Subject", b" a\n long one"),
    ]
    assert b"".join(one[1] for one in hook.asked if one[0] == "chunk") == STORED.partition(b"\n\n")[2]
    assert [one for one in hook.asked if one[0] in ("helo", "mail", "rcpt", "reset")] == [
        ("helo", b"client.example"),
        ("mail", b"s@client.example"),
        ("rcpt", Recipient(b"alice@a.example")),
        ("reset", "done"),
        ("mail", b"x@c.example"),
        ("reset", "abandoned"),
        ("reset", "end"),
    ]
    ((envelope, body),) = [one[1:] for one in hook.asked if one[0] == "message"]
    assert envelope.recipients == (Recipient(b"alice@a.example"),)
    assert body == STORED
    assert len(hook.ids) == 1


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("step", ["header", "chunk", "message"])
def test_what_is_refused_on_its_way_is_told_at_the_end(
    settings: Settings, running: Any, step: str, slow: bool
) -> None:
    hook = Told(slow, **{step: NO})

    async def story() -> None:
        async with running(settings, [("told", hook)]) as server:
            client = await (await server.client()).hello()
            assert await say(client) == b"550 5.7.1 not this\r\n"
            assert server.queue.messages == []
            assert hook.steps().count(step) == 1, "nothing is asked behind a refusal"
            hook.answers.clear()
            assert (await say(client))[:3] == b"250"

    asyncio.run(story())


def test_a_slow_hook_holds_the_client_up_and_not_the_memory(settings: Settings, running: Any) -> None:
    class Gate:
        """Takes nothing until it is opened."""

        def __init__(self) -> None:
            self.opened = asyncio.Event()
            self.got = 0

        async def chunk(self, session: Any, data: bytes) -> None:
            await self.opened.wait()
            self.got += len(data)

    async def story() -> None:
        gate = Gate()
        async with running(settings, [("gate", gate)]) as server:
            client = await (await server.client()).hello()
            await client.data()
            size = 64 * 1024 * 1024
            filling = asyncio.create_task(fill(client.writer, size))
            (session,) = server.service.sessions
            async with asyncio.timeout(20):
                while not session._paused:
                    await asyncio.sleep(0)
            for _ in range(200):
                await asyncio.sleep(0)
            assert session._record.size < size / 4, "the client is read no further"
            gate.opened.set()
            async with asyncio.timeout(60):
                await filling
            client.writer.write(b".\r\n")
            assert (await client.reply())[:3] == b"250"
            assert gate.got == size // 64 * 63

    async def fill(writer: Any, size: int) -> None:
        for _ in range(size // 64 // 1024):
            writer.write((b"x" * 62 + b"\r\n") * 1024)
            await writer.drain()

    asyncio.run(story())


class Editor:
    def __init__(self, name: bytes, **more: Any) -> None:
        self.name, self.more = name, more
        self.saw: list[bytes] = []

    def message(self, session: Any, envelope: Any, body: Any, edits: Any) -> None:
        self.saw.append(body.header())
        assert sum(map(len, body.chunks())) == body.size
        edits.prepend(self.name + b": seen\r\n")
        for name, value in self.more.items():
            if name in ("sender", "recipients"):
                setattr(edits, name, value)
            else:
                getattr(edits, name)(value)


@pytest.mark.parametrize("stored", [STORED, BIG], ids=["small", "large"])
def test_each_sees_the_edits_of_those_before(settings: Settings, running: Any, stored: bytes) -> None:
    first = Editor(b"First", remove=b"subject")
    second = Editor(b"Second", replace_body=lambda: [b"new\r", b"\nbody"])
    third = Editor(b"Third", sender=b"t@a.example", recipients=[Recipient(b"far@far.example")])

    async def story() -> None:
        async with running(settings, [("1", first), ("2", second), ("3", third)]) as server:
            client = await (await server.client()).hello()
            assert (await say(client, wire(stored.replace(b"\n.", b"\n..")), b"alice@a.example"))[
                :3
            ] == b"250"
            ((envelope, body),) = server.queue.messages
            kept = b"From: a@c.example\n" if stored is STORED else b""
            assert behind_ours(body) == b"Third: seen\nSecond: seen\nFirst: seen\n" + kept + b"\nnew\nbody\n"
            assert envelope.sender == b"t@a.example"
            assert envelope.recipients == (Recipient(b"far@far.example"),)
            assert first.saw == [stored.partition(b"\n\n")[0] + b"\n"]
            assert second.saw == [b"First: seen\n" + kept]
            assert third.saw == [b"Second: seen\nFirst: seen\n" + kept]

    asyncio.run(story())


def test_an_edited_large_message_is_stored_whole_and_its_first_form_given_up(
    settings: Settings, running: Any
) -> None:
    async def story() -> None:
        async with running(settings, [("1", Editor(b"First"))]) as server:
            client = await (await server.client()).hello()
            assert (await say(client, wire(BIG)))[:3] == b"250"
            ((_, body),) = server.queue.messages
            assert behind_ours(body) == b"First: seen\n" + BIG
            first, second = server.queue.bodies
            async with asyncio.timeout(10):
                while not first.aborted:
                    await asyncio.sleep(0)
            assert not second.aborted

    asyncio.run(story())


def test_an_edited_large_message_that_loses_its_recipients_leaves_nothing(
    settings: Settings, running: Any
) -> None:
    async def story() -> None:
        async with running(settings, [("1", Editor(b"First", recipients=[]))]) as server:
            client = await (await server.client()).hello()
            assert (await say(client, wire(BIG)))[:3] == b"250"
            assert server.queue.messages == []
            async with asyncio.timeout(10):
                while any(not one.aborted for one in server.queue.bodies):
                    await asyncio.sleep(0)

    asyncio.run(story())


def test_a_hook_that_never_returns_keeps_no_other_and_no_large_message_waiting(
    settings: Settings, running: Any
) -> None:
    """However many of its calls hang, be it in threads of ours or in those that `to_thread` takes."""
    returns = threading.Event()

    class Hangs:
        def message(self, *facts: Any) -> None:
            returns.wait()

    class HangsElsewhere:
        async def message(self, *facts: Any) -> None:
            await asyncio.to_thread(returns.wait)

    hooks = [
        Named("hangs", Hangs(), 0.01, "pass"),
        Named("elsewhere", HangsElsewhere(), 0.01, "pass"),
        Named("edits", Editor(b"First")),
    ]

    async def story() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
        async with running(settings, hooks) as server:
            client = await (await server.client()).hello()
            for number in range(1, 7):
                assert (await say(client, wire(BIG)))[:3] == b"250"
                assert len(server.queue.messages) == number
                assert behind_ours(server.queue.messages[-1][1]) == b"First: seen\n" + BIG
            returns.set()

    try:
        asyncio.run(story())
    finally:
        returns.set()


def test_a_new_body_that_breaks_defers_the_message(settings: Settings, running: Any) -> None:
    def broken() -> Any:
        yield b"x"
        raise RuntimeError("no more")

    async def story(stored: bytes) -> None:
        async with running(settings, [("1", Editor(b"First", replace_body=broken))]) as server:
            client = await (await server.client()).hello()
            assert (await say(client, wire(stored)))[:3] == b"451"
            assert server.queue.messages == []
            assert (await client.say(b"NOOP"))[:3] == b"250"

    asyncio.run(story(b"a: b\n\nc\n"))
    asyncio.run(story(BIG))


class Breaks(BreakingBody):
    def message(self, session: Any, envelope: Any, body: Any, edits: Any) -> None:
        edits.prepend(b"Broken: yes")
        edits.recipients = [Recipient(b"else@a.example")]
        edits.replace_body(self.pieces)


@pytest.mark.parametrize("on_error", ["pass", "defer"])
@pytest.mark.parametrize("how", ["raises", "exits", "hangs"])
def test_a_function_that_breaks_for_a_large_message_is_a_failed_hook(
    settings: Settings, running: Any, how: str, on_error: Any
) -> None:
    """Nothing of what it wished counts, as with a small message, however often it breaks."""
    hook = Breaks(how, 1)

    async def story() -> None:
        hooks = [Named("bad", hook, 0.05, on_error), Named("good", Editor(b"First"))]
        async with running(settings, hooks) as server:
            client = await (await server.client()).hello()
            for number in range(1, 7):
                answer = await say(client, wire(BIG))
                if on_error == "pass":
                    assert answer[:3] == b"250"
                    envelope, body = server.queue.messages[number - 1]
                    assert behind_ours(body) == b"First: seen\n" + BIG
                    assert envelope.recipients == (Recipient(b"alice@a.example"),)
                else:
                    assert answer == b"451 4.3.0 a check of ours failed; try again later\r\n"
                    assert server.queue.messages == []
                assert sum(b"hook bad " in line for line in server.log.lines()) == number
            hook.returns.set()

    try:
        asyncio.run(story())
    finally:
        hook.returns.set()


class Busy:
    """Gives a new body for the message of `first`, and keeps all others until that has been taken."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Semaphore(0), threading.Event()
        self.calls = 0

    def message(self, session: Any, envelope: Any, body: Any, edits: Any) -> None:
        if envelope.sender == b"first@c.example":
            edits.replace_body(self.pieces)
        else:
            self.begun.release()
            self.go.wait(20)

    def pieces(self) -> Any:
        self.calls += 1
        yield b"x\n"
        for _ in range(3 if self.calls == 1 else 0):
            assert self.begun.acquire(timeout=20)
        yield b"y\n"


def test_a_new_body_is_read_while_the_same_hook_looks_at_as_many_others_as_it_may(
    settings: Settings, running: Any
) -> None:
    hook = Busy()

    async def story() -> None:
        async with running(settings, [Named("busy", hook, 10.0)]) as server:
            clients = [await (await server.client()).hello() for _ in range(7)]
            for number, client in enumerate(clients):
                await client.data(sender=b"other@c.example" if number else b"first@c.example")
                client.writer.write(wire(BIG))
            assert (await clients[0].reply())[:3] == b"250"
            hook.go.set()
            for client in clients[1:]:
                assert (await client.reply())[:3] == b"250"

    try:
        asyncio.run(story())
    finally:
        hook.go.set()


@pytest.mark.parametrize("how", ["raises", "exits", "hangs"])
def test_a_function_that_breaks_when_its_large_message_is_stored_puts_that_off(
    settings: Settings, running: Any, how: str
) -> None:
    """It has been read before, by others behind, who need not know; no other message waits for it."""
    hook = Breaks(how, 4)

    async def story() -> None:
        hooks = [Named("bad", hook, 0.5, "pass"), Named("good", Editor(b"First"))]
        async with running(settings, hooks) as server:
            client = await (await server.client()).hello()
            assert (await say(client, wire(BIG)))[:3] == b"451"
            assert server.queue.messages == []
            assert any(line.startswith(b"alert: hook bad ") for line in server.log.lines())
            async with asyncio.timeout(10):
                while any(not one.aborted for one in server.queue.bodies):
                    await asyncio.sleep(0)
            hook.bad = 100
            hook.returns.set()
            assert (await say(client, wire(BIG)))[:3] == b"250"
            ((_, body),) = server.queue.messages
            assert behind_ours(body) == b"First: seen\nBroken: yes\nSubject: big\n\nx\n"

    try:
        asyncio.run(story())
    finally:
        hook.returns.set()


@pytest.mark.parametrize("step", ["mail", "rcpt", "data", "header", "chunk", "message"])
def test_what_is_dropped_is_taken_and_thrown_away(settings: Settings, running: Any, step: str) -> None:
    later = Told()

    async def story() -> None:
        async with running(settings, [("drop", Told(**{step: Drop()})), ("later", later)]) as server:
            client = await (await server.client()).hello()
            assert await say(client) == b"250 2.0.0 ok\r\n"
            assert server.queue.messages == []
            assert b"thrown away" in b"".join(server.log.lines())

    asyncio.run(story())
    assert "message" not in later.steps()


@pytest.mark.parametrize("step", ["mail", "rcpt", "data", "header", "message"])
def test_what_is_held_is_held_by_the_queue(settings: Settings, running: Any, step: str) -> None:
    hook = Told(**{step: Hold("odd")})

    async def story() -> None:
        async with running(settings, [("hold", hook)]) as server:
            client = await (await server.client()).hello()
            assert (await say(client))[:3] == b"250"
            hook.answers.clear()
            assert (await say(client))[:3] == b"250"
            assert (await say(client, wire(BIG)))[:3] == b"250"
            assert server.queue.reasons == ["odd", "", ""]

    asyncio.run(story())


@pytest.mark.parametrize("step", ["connect", "helo"])
def test_hold_before_there_is_a_message_is_no_answer(settings: Settings, running: Any, step: str) -> None:
    """Nothing that a hook wanted held is delivered instead."""
    hook = Told(**{step: Hold("odd")})

    async def story() -> None:
        async with running(settings, [("hasty", hook)]) as server:
            client = await server.client()
            said = await client.reply()
            if step == "helo":
                said = await client.say(b"EHLO client.example")
            assert said[:3] in (b"421", b"451")
            alert = f"hook hasty answered Hold(reason='odd') at {step}; deferred".encode()
            assert alert in b"".join(server.log.lines())

    asyncio.run(story())


def test_a_replaced_recipient_is_checked_anew(settings: Settings, running: Any, mailboxes: Any) -> None:
    class Alias:
        def rcpt(self, session: Any, recipient: Recipient) -> Any:
            names = {b"away@a.example": b"x@far.example", b"info@a.example": b"alice@a.example"}
            names |= {b"old@far.example": b"bob@a.example", b"void@a.example": b"no-one@a.example"}
            found = names.get(recipient.address)
            return Replace(found) if found else None

    async def story() -> None:
        async with running(settings, [("alias", Alias())], mailboxes) as server:
            client = await (await server.client()).hello()
            await client.say(b"MAIL FROM:<>")
            said = {
                name: (await client.say(b"RCPT TO:<%s>" % name))[:3]
                for name in (b"away@a.example", b"info@a.example", b"old@far.example", b"void@a.example")
            }
            assert list(said.values()) == [b"553", b"250", b"250", b"550"]
            await client.say(b"DATA")
            client.writer.write(MESSAGE)
            await client.reply()
            ((envelope, _),) = server.queue.messages
            assert [one.address for one in envelope.recipients] == [b"alice@a.example", b"bob@a.example"]

    asyncio.run(story())


def test_skipped_checks_hold_for_one_command(settings: Settings, running: Any, mailboxes: Any) -> None:
    listed: list[bool] = []

    class Partner:
        def rcpt(self, session: Any, recipient: Recipient) -> Any:
            listed.append(session.listed)
            return SkipChecks() if recipient.address.startswith(b"partner") else None

    async def story() -> None:
        async with running(settings, [("partner", Partner()), ("no", Told(rcpt=None))], mailboxes) as server:
            client = await (await server.client()).hello()
            await client.say(b"MAIL FROM:<>")
            for name, code in (
                (b"partner@far.example", b"250"),
                (b"x@far.example", b"553"),
                (b"no@a.example", b"550"),
                (b"partner-no@a.example", b"250"),
            ):
                assert (await client.say(b"RCPT TO:<%s>" % name))[:3] == code
            assert listed == [False, False, True, True]

    asyncio.run(story())


def test_a_replaced_sender_is_the_envelopes(settings: Settings, running: Any) -> None:
    second = Told()

    async def story() -> None:
        async with running(settings, [("1", Told(mail=Replace(b"new@c.example"))), ("2", second)]) as server:
            client = await (await server.client()).hello()
            assert (await say(client))[:3] == b"250"
            assert server.queue.messages[0][0].sender == b"new@c.example"
            assert ("mail", b"new@c.example") in second.asked

    asyncio.run(story())


def test_accept_is_for_the_message_or_before_it_for_the_session(settings: Settings, running: Any) -> None:
    async def story(step: str, again: bool) -> None:
        later = Told(message=NO)
        async with running(settings, [("accept", Told(**{step: Accept()})), ("later", later)]) as server:
            client = await (await server.client()).hello()
            assert (await say(client))[:3] == b"250"
            assert later.steps().count("mail") == again
            assert set(later.steps()) <= {"connect", "helo", "mail", "reset"}

    asyncio.run(story("helo", False))
    asyncio.run(story("rcpt", True))


def test_next_is_for_one_command(settings: Settings, running: Any) -> None:
    later = Told(rcpt=NO)

    async def story() -> None:
        async with running(settings, [("next", Told(rcpt=Next())), ("later", later)]) as server:
            client = await (await server.client()).hello()
            assert (await say(client))[:3] == b"250"

    asyncio.run(story())
    assert "rcpt" not in later.steps() and "message" in later.steps()


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("reply", [None, Reply(554, b"5.7.1", (b"go away",))])
def test_hang_up_ends_the_session_whatever_was_sent_ahead(
    settings: Settings, running: Any, reply: Reply | None, slow: bool
) -> None:
    hook = Told(slow, rcpt=HangUp(reply))

    async def story() -> None:
        async with running(settings, [("hang up", hook)]) as server:
            client = await (await server.client()).hello()
            client.writer.write(
                b"MAIL FROM:<s@c.example>\r\nRCPT TO:<a@a.example>\r\nRSET\r\nMAIL FROM:<t@c.example>\r\n"
            )
            said = await client.rest()
            assert said.startswith(b"250")
            assert said.partition(b"\r\n")[2] == (reply.encode() if reply else b"")
            await server.quiet()
            async with asyncio.timeout(10):
                while "reset" not in hook.steps() or hook.asked[-1] != ("reset", "end"):
                    await asyncio.sleep(0)
            assert hook.steps().count("mail") == 1

    asyncio.run(story())


def test_drop_at_connect_says_nothing(settings: Settings, running: Any) -> None:
    async def story() -> None:
        async with running(settings, [("drop", Told(connect=Drop()))]) as server:
            assert await (await server.client()).rest() == b""

    asyncio.run(story())


def test_the_next_message_waits_until_hooks_know_that_the_last_is_over(
    settings: Settings, running: Any
) -> None:
    order: list[str] = []

    class Slow:
        async def reset(self, session: Any, why: str) -> None:
            order.append("resetting")
            await asyncio.sleep(0.01)
            order.append("reset")

        def mail(self, session: Any, sender: bytes) -> None:
            order.append("mail")

    async def story() -> None:
        async with running(settings, [("slow", Slow())]) as server:
            client = await (await server.client()).hello()
            client.writer.write(b"MAIL FROM:<s@c.example>\r\nRSET\r\nMAIL FROM:<t@c.example>\r\n")
            for _ in range(3):
                assert (await client.reply())[:3] == b"250"
            assert order == ["mail", "resetting", "reset", "mail"]

    asyncio.run(story())


def test_a_message_is_looked_at_when_hooks_know_that_the_last_is_over(
    settings: Settings, running: Any
) -> None:
    order: list[str] = []

    class Slow:
        async def reset(self, session: Any, why: str) -> None:
            order.append("resetting")
            await asyncio.sleep(0.01)
            order.append("reset")

        def message(self, *facts: Any) -> None:
            order.append("message")

    async def story() -> None:
        async with running(settings, [("slow", Slow())]) as server:
            client = await (await server.client()).hello()
            assert (await say(client))[:3] == b"250"
            assert (await say(client))[:3] == b"250"
            assert order[:4] == ["message", "resetting", "reset", "message"]

    asyncio.run(story())


def test_a_session_that_ends_while_a_hook_looks_at_its_message_leaves_nothing(
    settings: Settings, running: Any
) -> None:
    class Slow:
        def __init__(self) -> None:
            self.begun, self.go = asyncio.Event(), asyncio.Event()

        async def message(self, session: Any, envelope: Any, body: Any, edits: Any) -> None:
            self.begun.set()
            await self.go.wait()
            edits.prepend(b"X-Late: yes")

    async def story(stored: bytes) -> None:
        hook = Slow()
        async with running(settings, [("slow", hook)]) as server:
            client = await (await server.client()).hello()
            await client.data()
            client.writer.write(wire(stored))
            await asyncio.wait_for(hook.begun.wait(), 10)
            (session,) = server.service.sessions
            examining = session._dialogue._examining
            session.abort()
            await server.quiet()
            hook.go.set()
            async with asyncio.timeout(10):
                await examining
                while any(not one.aborted for one in server.queue.bodies):
                    await asyncio.sleep(0)
            assert server.queue.messages == []

    asyncio.run(story(STORED))
    asyncio.run(story(BIG))


def test_a_hook_that_is_passed_over_costs_no_mail(settings: Settings, running: Any) -> None:
    from openqmail.core.hooks import Named

    class Broken:
        def __getattr__(self, step: str) -> Any:
            if step not in STEPS:
                raise AttributeError(step)

            def broken(*_: Any) -> Any:
                raise RuntimeError(step)

            return broken

    async def story() -> None:
        async with running(settings, [Named("broken", Broken(), on_error="pass")]) as server:
            client = await (await server.client()).hello()
            assert (await say(client))[:3] == b"250"
        async with running(settings, [Named("broken", Broken())]) as server:
            assert (await (await server.client()).reply())[:3] == b"451"

    asyncio.run(story())


def test_a_greylister_is_a_few_lines(settings: Settings, running: Any) -> None:
    class Greylist:
        def __init__(self, clock: Any) -> None:
            self.clock, self.seen = clock, {}

        def rcpt(self, session: Any, recipient: Recipient) -> Any:
            if session.relay or not session.listed:
                return None
            triplet = (session.client, session.sender, recipient.address)
            first = self.seen.setdefault(triplet, self.clock.monotonic())
            if self.clock.monotonic() - first < 60:
                return Defer(Reply(450, b"4.7.1", (b"not known yet, try again later",)))
            return None

    async def story() -> None:
        hook = Greylist(None)
        async with running(settings, [("greylist", hook)]) as server:
            hook.clock = server.clock
            client = await (await server.client()).hello()
            codes = []
            for seconds in (0, 30, 31):
                server.clock.advance(seconds)
                await client.say(b"MAIL FROM:<s@c.example>")
                codes.append((await client.say(b"RCPT TO:<alice@a.example>"))[:3])
                codes.append((await client.say(b"RCPT TO:<x@far.example>"))[:3])
                await client.say(b"RSET")
            assert codes == [b"450", b"553", b"450", b"553", b"250", b"553"]

    asyncio.run(story())


def test_a_rate_limiter_is_a_few_lines(settings: Settings, running: Any) -> None:
    class Limit:
        """So many recipients an hour from one address."""

        def __init__(self, most: int) -> None:
            self.most, self.taken = most, {}
            self.clock: Any = None

        def rcpt(self, session: Any, recipient: Recipient) -> Any:
            hour = int(self.clock.monotonic() // 3600)
            key = (session.client, hour)
            self.taken = {one: count for one, count in self.taken.items() if one[1] == hour}
            if self.taken.get(key, 0) >= self.most:
                return Defer(Reply(452, b"4.5.3", (b"too many recipients this hour",)))
            self.taken[key] = self.taken.get(key, 0) + 1
            return None

    async def story() -> None:
        hook = Limit(2)
        async with running(settings, [("limit", hook)]) as server:
            hook.clock = server.clock
            client = await (await server.client()).hello()
            await client.say(b"MAIL FROM:<s@c.example>")
            codes = [(await client.say(b"RCPT TO:<alice@a.example>"))[:3] for _ in range(3)]
            server.clock.advance(3600)
            codes.append((await client.say(b"RCPT TO:<alice@a.example>"))[:3])
            assert codes == [b"250", b"250", b"452", b"250"]

    asyncio.run(story())
