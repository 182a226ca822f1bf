"""The front end on a real socket: who is believed, what is answered, what is bounded."""

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from openqmail.core.control.settings import Settings
from openqmail.core.hooks import Answer, Defer, Drop, HangUp, Hold, Reject, SessionFacts
from openqmail.core.ports import LARGE
from openqmail.core.submit import session as module
from openqmail.core.submit.caller import caller
from openqmail.core.submit.incoming import as_text
from openqmail.core.submit.service import CONNECTIONS, CONNECTIONS_OF_ONE, KEPT_FOR_ROOT
from openqmail.core.submit.wire import request_head
from openqmail.core.values import Envelope, Origin, QueueFull, Recipient, Reply, TemporaryFailure

Running = Callable[..., Any]
QP = b"qp %d" % os.getpid()
HOP = b"Received: (qmail %d invoked by uid %d); " % (os.getpid(), os.getuid())


def request(message: bytes, *recipients: bytes, sender: bytes = b"s@a.example") -> bytes:
    chosen = list(recipients) or [b"alice@a.example"]
    return request_head(sender, chosen, len(message)) + message + b","


def told(answer: bytes) -> bytes:
    """The content of the one netstring that came."""
    length, _, rest = answer.partition(b":")
    assert rest == rest[: int(length)] + b","
    return rest[:-1]


def test_a_message_is_accepted_with_the_kernels_word_for_who_sent_it(running: Running) -> None:
    async def scene() -> None:
        async with running() as server:
            answer = await server.say(request(b"Subject: s\n\nbody\n", b"a@a.example", b"bob", sender=b""))
            assert told(answer) == b"Kok message 1 " + QP
            ((envelope, body),) = server.queue.messages
            assert envelope == Envelope(
                b"", (Recipient(b"a@a.example"), Recipient(b"bob")), Origin(os.getuid(), os.getpid())
            )
            assert body.startswith(HOP)
            assert body.partition(b"\n")[2] == b"Subject: s\n\nbody\n"

    asyncio.run(scene())


def test_accepted_is_said_only_when_the_queue_has_it(running: Running) -> None:
    async def scene() -> None:
        async with running() as server:
            server.queue.hold = True
            client = await server.client()
            answer = asyncio.create_task(client.say(request(b"x\n")))
            await server.queue.arrived.wait()
            for _ in range(20):
                await asyncio.sleep(0)
            assert not answer.done()
            server.queue.answers[0].set_exception(QueueFull("no room"))
            assert told(await answer) == b"Z" + module._FULL

    asyncio.run(scene())


def test_a_client_that_stops_sending_still_gets_its_answer(running: Running) -> None:
    async def scene() -> None:
        async with running() as server:
            server.queue.hold = True
            client = await server.client()
            client.writer.write(request(b"x\n"))
            client.writer.write_eof()
            await server.queue.arrived.wait()
            for _ in range(20):
                await asyncio.sleep(0)
            server.queue.answers[0].set_result(server_id())
            assert told(await client.all()).startswith(b"K")

    asyncio.run(scene())


def server_id() -> Any:
    from openqmail.core.values import MessageId

    return MessageId(7, b"k" * 24)


@pytest.mark.parametrize(
    ("message", "stored"),
    [
        (b"a: b\r\n\r\nc\r\n", b"a: b\n\nc\n"),
        (b"a: b\r\n\r\nc\n", b"a: b\r\n\r\nc\n"),
        (b"a\rb\r\n", b"a\rb\r\n"),
        (b"\0\xff\r no end", b"\0\xff\r no end"),
        (b"", b""),
    ],
)
def test_what_is_kept_of_a_message(running: Running, message: bytes, stored: bytes) -> None:
    async def scene() -> None:
        async with running() as server:
            assert told(await server.say(request(message))).startswith(b"K")
            assert server.queue.messages[0][1].partition(b"\n")[2] == stored

    asyncio.run(scene())


@given(st.text("a\r\n", max_size=12).map(str.encode))
def test_only_what_ends_its_lines_with_crlf_throughout_is_text(message: bytes) -> None:
    lines = message.split(b"\r\n")
    is_text = len(lines) > 1 and not any(b"\r" in line or b"\n" in line for line in lines)
    assert as_text(message) == (b"\n".join(lines) if is_text else message)


def test_a_large_message_is_streamed_no_faster_than_the_disk_takes_it(running: Running) -> None:
    async def scene() -> None:
        async with running() as server:
            server.queue.hold = True
            message = b"Subject: noise\n\n" + os.urandom(8 * 1024 * 1024)
            client = await server.client()
            client.writer.write(request(message, "tést@a.example".encode()))
            answer = asyncio.create_task(client.all())
            most = 0
            async with asyncio.timeout(30):
                while not server.queue.answers:
                    await asyncio.sleep(0)
                    most = max(most, len(server.queue.writes))
                    if server.queue.writes:
                        server.queue.writes.pop(0).set_result(None)
            server.queue.answers[0].set_result(server_id())
            assert told(await answer) == b"Kok message 7 " + QP
            envelope, body = server.queue.messages[0]
            assert body.startswith(HOP)
            assert body.partition(b"\n")[2] == message
            assert envelope.smtputf8
            assert most <= 4

    asyncio.run(scene())


def test_a_large_message_whose_client_goes_is_forgotten(running: Running) -> None:
    async def scene() -> None:
        async with running() as server:
            client = await server.client()
            client.writer.write(request(b"x" * LARGE * 2)[:-1])
            await client.writer.drain()
            client.writer.close()
            async with asyncio.timeout(10):
                while not (server.queue.bodies and server.queue.bodies[0].aborted):
                    await asyncio.sleep(0)
            assert server.queue.messages == []

    asyncio.run(scene())


@pytest.mark.parametrize("size", [10, LARGE * 4])
def test_trouble_of_the_queue_is_put_off_once(running: Running, size: int) -> None:
    async def scene() -> None:
        async with running() as server:
            server.queue.error = server.queue.broken = TemporaryFailure("the disk is odd")
            assert told(await server.say(request(b"x" * size))) == b"Z" + module._TROUBLE

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"EHLO x\r\n", b"no netstring"),
        (b"1:2,", b"version"),
        (request(b"x", b"a" * 901), b"longer than 900"),
        (request(b"x", b"a\nb"), b"newline"),
        (request(b"x", sender=b"a\0b"), b"NUL"),
        (request(b"x", *[b"r"] * 6), b"more than 5 recipients"),
        (request(b"x" * 1001), b"larger than 1000 bytes"),
        (b"1:1,0:,0:,", b"no recipient"),
    ],
)
def test_what_is_wrong_is_said(running: Running, data: bytes, why: bytes) -> None:
    async def scene() -> None:
        async with running(maxrecipients=5, databytes=1000) as server:
            answer = told(await server.say(data))
            assert answer.startswith(b"D")
            assert why in answer
            assert server.queue.messages == []
            assert told(await server.say(request(b"x" * 1000))).startswith(b"K")

    asyncio.run(scene())


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.binary(min_size=1, max_size=100), st.integers(0, 60))
def test_garbage_closes_only_that_client(running: Running, garbage: bytes, place: int) -> None:
    good = request(b"Subject: s\n\nbody\n")

    async def scene() -> None:
        async with running() as server:
            client = await server.client()
            client.writer.write(good[:20])
            await client.writer.drain()
            bad = await server.client()
            bad.writer.write(good[: place % len(good)] + garbage)
            bad.writer.write_eof()
            await bad.all()
            assert told(await client.say(good[20:])).startswith(b"K")

    asyncio.run(scene())


def test_one_user_cannot_take_every_connection(running: Running) -> None:
    async def scene() -> None:
        async with running() as server:
            clients = [await server.client() for _ in range(CONNECTIONS_OF_ONE)]
            await server.until(CONNECTIONS_OF_ONE)
            answer = told(await server.say(request(b"x")))
            assert answer.startswith(b"Z")
            assert answer.endswith(b"(#4.3.2)")
            clients[0].writer.close()
            await server.until(CONNECTIONS_OF_ONE - 1)
            assert told(await server.say(request(b"x"))).startswith(b"K")

    asyncio.run(scene())


def test_all_users_together_have_a_limit_that_leaves_room_for_root(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        uids = iter(range(1, 1000))
        monkeypatch.setattr(module, "caller", lambda connection: Origin(next(uids), 1))
        async with running() as server:
            room = CONNECTIONS - KEPT_FOR_ROOT
            for _ in range(room):
                await server.client()
            await server.until(room)
            assert told(await server.say(b"")).startswith(b"Z")
            monkeypatch.setattr(module, "caller", lambda connection: Origin(0, 1))
            for _ in range(KEPT_FOR_ROOT):
                await server.client()
            await server.until(CONNECTIONS)
            assert told(await server.say(b"")).startswith(b"Z")

    asyncio.run(scene())


def test_a_silent_client_is_closed_and_a_busy_one_is_not(running: Running) -> None:
    async def scene() -> None:
        async with running() as server:
            silent, slow, waiting = [await server.client() for _ in range(3)]
            await server.until(3)
            server.queue.hold = True
            waiting.writer.write(request(b"x"))
            await server.queue.arrived.wait()
            for second in range(module.SILENCE + 1):
                for session in list(server.service._sessions):
                    session.look()
                if second % 20 == 0:
                    slow.writer.write(b"1:1," if not second else b"0")
                    await slow.writer.drain()
                    for _ in range(20):
                        await asyncio.sleep(0)
            assert await silent.all() == b""
            await server.until(2)
            server.queue.answers[0].set_result(server_id())
            assert told(await waiting.all()).startswith(b"K")
            await server.until(1)

    asyncio.run(scene())


def test_who_drips_bytes_for_minutes_is_closed(running: Running) -> None:
    async def scene() -> None:
        async with running() as server:
            client = await server.client()
            await server.until(1)
            (session,) = server.service._sessions
            for second in range(module.WHOLE + 1):
                if second % 20 == 0:
                    session.data_received(b"x" if second else b"1:1,800:")
                session.look()
            assert await client.all() == b""
            await server.until(0)

    asyncio.run(scene())


def test_draining_ends_what_has_not_begun_and_answers_what_has(running: Running) -> None:
    async def scene() -> None:
        async with running() as server:
            idle, begun = await server.client(), await server.client()
            good = request(b"x\n")
            begun.writer.write(good[:10])
            async with asyncio.timeout(10):
                while not any(session._began for session in server.service._sessions):
                    await asyncio.sleep(0)
            await server.until(2)
            server.service.drain()
            assert told(await idle.all()).endswith(b"(#4.3.2)")
            assert told(await server.say(b"")).endswith(b"(#4.3.2)")
            assert told(await begun.say(good[10:])).startswith(b"K")
            await server.until(0)

    asyncio.run(scene())


def test_new_settings_are_for_new_requests(running: Running, settings: Settings) -> None:
    import msgspec

    async def scene() -> None:
        async with running() as server:
            before = await server.client()
            await server.until(1)
            changed = msgspec.structs.replace(settings, databytes=1)
            server.service.reconfigure(msgspec.structs.replace(server.service.context, settings=changed))
            assert told(await server.say(request(b"xx"))).startswith(b"D")
            assert told(await before.say(request(b"xx"))).startswith(b"K")

    asyncio.run(scene())


class Hook:
    """Refuses at one step, and remembers what it was asked."""

    def __init__(self, step: str, code: int) -> None:
        self.asked: list[tuple[str, tuple[object, ...]]] = []
        for name in ("mail", "rcpt", "data", "message"):
            setattr(self, name, self._method(name, code if name == step else 0))

    def _method(self, name: str, code: int) -> Callable[..., object]:
        async def method(session: SessionFacts, *facts: object) -> Answer:
            await asyncio.sleep(0)
            assert session.relay
            assert session.service == "submit"
            if name == "message":
                facts = (facts[0], facts[1].data)
            self.asked.append((name, facts))
            reply = Reply(code, b"5.7.1", (b"not", b"you"))
            return None if not code else Reject(reply) if code >= 500 else Defer(reply)

        return method


@pytest.mark.parametrize("step", ["mail", "rcpt", "data", "message"])
@pytest.mark.parametrize(("code", "letter"), [(550, b"D"), (451, b"Z")])
def test_a_hook_can_refuse_at_each_step(running: Running, step: str, code: int, letter: bytes) -> None:
    async def scene() -> None:
        hook = Hook(step, code)
        async with running([("toy", hook)]) as server:
            answer = await server.say(request(b"x\n", b"a@a.example", b"b@a.example"))
            assert told(answer) == letter + b"not you (#5.7.1)"
            assert server.queue.messages == []
            assert hook.asked[-1][0] == step

    asyncio.run(scene())


def test_hooks_are_told_what_they_decide_on(running: Running) -> None:
    async def scene() -> None:
        hook = Hook("", 0)
        async with running([("toy", hook)]) as server:
            assert told(await server.say(request(b"x\n", b"a@x", b"b@x"))).startswith(b"K")
        sender, first, second = b"s@a.example", Recipient(b"a@x"), Recipient(b"b@x")
        envelope = Envelope(sender, (first, second), Origin(os.getuid(), os.getpid()))
        assert hook.asked == [
            ("mail", (sender,)), ("rcpt", (first,)), ("rcpt", (second,)),
            ("data", (envelope,)), ("message", (envelope, b"\nx\n")),
        ]  # fmt: skip

    asyncio.run(scene())


def test_somebody_whom_the_kernel_does_not_name_is_put_off(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        monkeypatch.setattr(module, "caller", lambda connection: None)
        async with running() as server:
            assert told(await server.say(request(b"x"))) == b"Z" + module._NOBODY
            assert server.service.active == 0

    asyncio.run(scene())


def test_who_calls_is_read_from_the_kernel() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        assert caller(ours) == Origin(os.getuid(), os.getpid())
    assert caller(ours) is None, "a closed socket names nobody"


def test_whom_the_kernel_gives_no_uid_is_nobody() -> None:
    class Linux:
        def getsockopt(self, level: int, option: int, size: int) -> bytes:
            return struct.pack("iII", 0, 0xFFFFFFFF, 0xFFFFFFFF)

    assert caller(Linux()) is None


def test_who_calls_on_a_system_without_so_peercred(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bsd:
        def __init__(self, told: bytes) -> None:
            self.told = told

        def getsockopt(self, level: int, option: int, size: int) -> bytes:
            assert (level, option) == (0, 1)
            return self.told

    monkeypatch.delattr(socket, "SO_PEERCRED")
    monkeypatch.setattr(socket, "LOCAL_PEERCRED", 1, raising=False)
    version, uid = (0).to_bytes(4, "little"), (501).to_bytes(4, "little")
    assert caller(Bsd(version + uid + bytes(68))) == Origin(501, 0)
    assert caller(Bsd(uid + uid)) is None
    assert caller(Bsd(version + b"\xff" * 4)) is None
    assert caller(Bsd(b"")) is None
    monkeypatch.delattr(socket, "LOCAL_PEERCRED")
    assert caller(Bsd(version + uid)) is None


def said(server: Any) -> list[bytes]:
    return [event.line() for event in server.service.context.log.events]


WHO = b"uid %d pid %d " % (os.getuid(), os.getpid())


def test_the_log_says_who_handed_a_message_in(running: Running) -> None:
    async def scene() -> None:
        async with running() as server:
            await server.say(request(b"x\n", b"a@a.example", b"b@a.example"))
            await server.until(0)
            assert said(server) == [b"submit: accepted msg 1: " + WHO + b"from <s@a.example> recipients 2"]

    asyncio.run(scene())


def test_the_log_says_who_was_refused_and_why(running: Running) -> None:
    async def scene() -> None:
        async with running([("toy", Hook("rcpt", 550))]) as server:
            await server.say(request(b"x\n"))
            await server.until(0)
            assert said(server) == [
                b"submit: refused, failure: " + WHO + b"from <s@a.example> text not_you_(#5.7.1)"
            ]
        async with running() as server:
            server.queue.error = QueueFull("full")
            await server.say(request(b"x\n"))
            await server.until(0)
            assert said(server)[0].startswith(b"submit: refused, deferral: " + WHO)

    asyncio.run(scene())


def test_the_log_says_that_a_client_went_in_the_midst(running: Running) -> None:
    async def scene() -> None:
        async with running() as server:
            client = await server.client()
            client.writer.write(request(b"x" * 100)[:-50])
            await client.writer.drain()
            await server.until(1)
            await asyncio.sleep(0)
            client.writer.close()
            await server.until(0)
            assert said(server)[0].startswith(b"submit: refused, gone: " + WHO)

    asyncio.run(scene())


def test_a_connection_that_said_nothing_is_not_told(running: Running) -> None:
    async def scene() -> None:
        async with running() as server:
            client = await server.client()
            await server.until(1)
            client.writer.close()
            await server.until(0)
            assert said(server) == []

    asyncio.run(scene())


class Judge:
    """Sees the message as it comes, and does with it as it was told."""

    def __init__(self, answer: object = None, wish: Callable[[Any], None] = lambda edits: None) -> None:
        self.answer, self.wish = answer, wish
        self.fields: list[bytes] = []
        self.body = b""
        self.over: list[str] = []

    def header(self, session: SessionFacts, field: Any) -> None:
        self.fields.append(field.name)

    async def chunk(self, session: SessionFacts, data: bytes) -> None:
        await asyncio.sleep(0)
        self.body += data

    def message(self, session: SessionFacts, envelope: Envelope, body: Any, edits: Any) -> Any:
        self.wish(edits)
        return self.answer

    def reset(self, session: SessionFacts, why: str) -> None:
        self.over.append(why)


SIZES = pytest.mark.parametrize(
    "text", [b"A: b\n\nhello\n", b"A: b\n\n" + b"hello\n" * 40_000], ids=["small", "large"]
)


@SIZES
def test_hooks_see_a_message_as_it_comes_and_edit_it(running: Running, text: bytes) -> None:
    def wish(edits: Any) -> None:
        edits.prepend(b"X-New: yes")
        edits.recipients = [Recipient(b"c@x")]

    async def scene() -> None:
        judge = Judge(wish=wish)
        async with running([("judge", judge)]) as server:
            assert told(await server.say(request(text, b"b@x"))).startswith(b"K")
            await server.until(0)
            ((envelope, body),) = server.queue.messages
            assert body.partition(b"\n")[2] == b"X-New: yes\n" + text
            assert envelope.recipients == (Recipient(b"c@x"),)
            assert (judge.fields, judge.body) == ([b"A"], text.partition(b"\n\n")[2])
            assert judge.over == ["done", "end"]

    asyncio.run(scene())


@SIZES
def test_a_message_may_be_held_or_dropped_or_refused_at_its_end(running: Running, text: bytes) -> None:
    async def scene(answer: Any, letter: bytes, reasons: list[str], why: str) -> None:
        judge = Judge(answer)
        async with running([("judge", judge)]) as server:
            assert told(await server.say(request(text, b"b@x")))[:1] == letter
            await server.until(0)
            assert server.queue.reasons == reasons
            assert judge.over == [why, "end"]

    asyncio.run(scene(Hold("odd"), b"K", ["odd"], "done"))
    asyncio.run(scene(Drop(), b"K", [], "done"))
    asyncio.run(scene(HangUp(), b"Z", [], "refused"))
    asyncio.run(scene(Reject(Reply(550, b"5.7.1", (b"no",))), b"D", [], "refused"))
