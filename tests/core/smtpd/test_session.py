"""What a client of the SMTP service sees, and what reaches the queue."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from openqmail.core.control.rules import Rule, Rules
from openqmail.core.control.settings import Settings
from openqmail.core.hooks import Answer, Reject
from openqmail.core.ports import LARGE
from openqmail.core.service.loops import new_loop
from openqmail.core.smtpd import SubmissionService
from openqmail.core.values import QueueFull, Reply, TemporaryFailure

RELAY = Rules({"127.": Rule(True, {"RELAYCLIENT": ""})})


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def test_a_message_reaches_the_queue_with_one_received_field_on_top(settings: Settings, running: Any) -> None:
    async def story() -> None:
        async with running(settings) as server:
            client = await (await server.client()).hello()
            assert (await client.data(b"alice@a.example", b"bob@A.EXAMPLE"))[:3] == b"354"
            assert (await client.say(b"Subject: x\r\n\r\n..dot\r\n."))[:9] == b"250 2.0.0"
            [(envelope, body)] = server.queue.messages
            assert envelope.sender == b"s@client.example"
            assert [one.address for one in envelope.recipients] == [b"alice@a.example", b"bob@A.EXAMPLE"]
            trace, _, rest = body.partition(b"Subject: ")
            assert trace.startswith(b"Received: from client.example") and trace.count(b"Received:") == 1
            assert b"127.0.0.1" in trace and b"by a.example" in trace and b"ESMTP" in trace
            assert rest == b"x\n\n.dot\n"

    run(story())


def test_250_waits_until_the_queue_says_durable(settings: Settings, running: Any) -> None:
    async def story() -> None:
        async with running(settings) as server:
            server.queue.hold = True
            client = await (await server.client()).hello()
            await client.data()
            client.writer.write(b"x\r\n.\r\nNOOP\r\n")
            while not server.queue.answers:
                await asyncio.sleep(0)
            early = asyncio.ensure_future(client.reply())
            for _ in range(20):
                await asyncio.sleep(0)
            assert not early.done()
            server.queue.answers[0].set_result(server.queue.messages and _id())
            assert (await early)[:3] == b"250"
            assert (await client.reply())[:3] == b"250"

    run(story())


def _id() -> Any:
    from openqmail.core.values import MessageId

    return MessageId(7, b"k" * 24)


def test_a_full_queue_is_452_and_any_other_trouble_451(settings: Settings, running: Any) -> None:
    async def story() -> None:
        async with running(settings) as server:
            client = await (await server.client()).hello()
            for error, code in ((QueueFull("full"), b"452"), (TemporaryFailure("sync"), b"451")):
                server.queue.error = error
                await client.data()
                assert (await client.say(b"x\r\n."))[:3] == code
            server.queue.error = None
            await client.data()
            assert (await client.say(b"x\r\n."))[:3] == b"250"

    run(story())


def test_only_relay_clients_send_to_other_domains(settings: Settings, running: Any) -> None:
    async def story() -> None:
        async with running(settings) as server:
            client = await (await server.client()).hello()
            await client.say(b"MAIL FROM:<s@client.example>")
            assert (await client.say(b"RCPT TO:<x@other.example>")).startswith(b"553 5.7.1 sorry")
            assert (await client.say(b"RCPT TO:<x@deep.sub.example>"))[:3] == b"250"
            assert (await client.say(b"RCPT TO:<x@sub.example>"))[:3] == b"553"
            assert (await client.say(b"RCPT TO:<postmaster>"))[:3] == b"250"
        async with running(settings, rules=RELAY) as server:
            client = await (await server.client()).hello()
            await client.say(b"MAIL FROM:<s@client.example>")
            assert (await client.say(b"RCPT TO:<x@other.example>"))[:3] == b"250"

    run(story())


def test_no_rcpthosts_closes_the_door(settings: Settings, running: Any) -> None:
    async def story() -> None:
        async with running(settings, rcpthosts=frozenset()) as server:
            client = await (await server.client()).hello()
            await client.say(b"MAIL FROM:<s@client.example>")
            assert (await client.say(b"RCPT TO:<x@a.example>"))[:3] == b"553"

    run(story())


def test_relayclient_is_appended_and_databytes_overrides(settings: Settings, running: Any) -> None:
    rules = Rules({"127.": Rule(True, {"RELAYCLIENT": "@gate.example", "DATABYTES": "1000"})})

    async def story() -> None:
        async with running(settings, rules=rules, databytes=5) as server:
            client = await server.client()
            await client.reply()
            assert b"SIZE 1000" in await client.say(b"EHLO c.example")
            await client.data(b"x@other.example")
            assert (await client.say(b"0123456789\r\n."))[:3] == b"250"
            assert server.queue.messages[0][0].recipients[0].address == b"x@other.example@gate.example"

    run(story())


def test_a_denied_client_is_greeted_with_554(settings: Settings, running: Any) -> None:
    async def story() -> None:
        async with running(settings, rules=Rules({"127.": Rule(False, {})})) as server:
            client = await server.client()
            assert (await client.rest())[:3] == b"554"
            await server.quiet()

    run(story())


def test_too_many_connections_get_421_until_one_ends(settings: Settings, running: Any) -> None:
    async def story() -> None:
        async with running(settings, concurrencyincoming=1) as server:
            first = await (await server.client()).hello()
            assert (await (await server.client()).rest())[:3] == b"421"
            assert (await first.say(b"QUIT"))[:3] == b"221"
            await server.quiet()
            assert (await (await server.client()).reply())[:3] == b"220"

    run(story())


def test_a_message_that_passed_a_hundred_hosts_is_looping(settings: Settings, running: Any) -> None:
    async def story() -> None:
        async with running(settings) as server:
            client = await (await server.client()).hello()
            for count, code in ((99, b"250"), (100, b"554")):
                await client.data()
                header = b"Received: from x by y\r\n" * (count - 1) + b"Delivered-To: x@y\r\n"
                assert (await client.say(header + b"\r\nbody\r\n."))[:3] == code

    run(story())


def test_received_lines_in_the_body_are_no_hops(settings: Settings, running: Any) -> None:
    async def story() -> None:
        async with running(settings) as server:
            client = await (await server.client()).hello()
            await client.data()
            assert (await client.say(b"Subject: x\r\n\r\n" + b"Received: x\r\n" * 200 + b"."))[:3] == b"250"

    run(story())


def test_a_large_message_is_streamed_and_an_abandoned_one_aborted(settings: Settings, running: Any) -> None:
    line = b"x" * 997 + b"\r\n"

    async def story() -> None:
        async with running(settings) as server:
            client = await (await server.client()).hello()
            await client.data()
            client.writer.write(line * 400)
            assert (await client.say(b"."))[:3] == b"250"
            [(_, body)] = server.queue.messages
            assert len(body) > LARGE and body.endswith((line.replace(b"\r", b"")) * 400)
            assert len(server.queue.bodies) == 1
            await client.data()
            client.writer.write(line * 400)
            while len(server.queue.bodies) < 2:
                await asyncio.sleep(0)
            client.writer.close()
            await server.quiet()
            assert server.queue.bodies[1].aborted and len(server.queue.messages) == 1

    run(story())


def test_the_client_is_read_no_faster_than_the_disk_writes(settings: Settings, running: Any) -> None:
    async def story() -> None:
        async with running(settings) as server:
            server.queue.hold = True
            client = await (await server.client()).hello()
            await client.data()
            flood = (b"x" * 997 + b"\r\n") * 40_000
            client.writer.write(flood)
            while not server.queue.held:
                await asyncio.sleep(0)
            for _ in range(2000):
                await asyncio.sleep(0)
            assert len(server.queue.bodies[0].data) < 2_000_000
            server.queue.hold = False
            for future in server.queue.held:
                future.set_result(None)
            server.queue.held.clear()
            assert (await client.say(b"."))[:3] == b"250"
            assert len(server.queue.messages[0][1]) > 39_000_000

    run(story())


def test_a_silent_client_is_told_421(settings: Settings, running: Any) -> None:
    async def story() -> None:
        async with running(settings, timeoutsmtpd=1) as server:
            client = await server.client()
            await client.reply()
            assert (await client.rest())[:3] == b"421"
            await server.quiet()

    run(story())


def test_a_half_closed_connection_still_gets_its_answer(settings: Settings, running: Any) -> None:
    async def story() -> None:
        async with running(settings) as server:
            server.queue.hold = True
            client = await (await server.client()).hello()
            await client.data()
            client.writer.write(b"x\r\n.\r\n")
            client.writer.write_eof()
            while not server.queue.answers:
                await asyncio.sleep(0)
            server.queue.answers[0].set_result(_id())
            assert (await client.rest())[:3] == b"250"
            await server.quiet()

    run(story())


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_who_sends_all_at_once_and_closes_his_half_has_all_his_answers(
    settings: Settings, running: Any, mailboxes: Any, loop: str
) -> None:
    """Though a recipient is looked up, and a hook is asked."""

    class Slow:
        async def mail(self, _: Any, sender: bytes) -> Answer:
            for _ in range(20):
                await asyncio.sleep(0)
            return None

    async def story() -> None:
        mailboxes.hold = True
        async with running(settings, [("slow", Slow())], mailboxes) as server:
            client = await server.client()
            client.writer.write(
                b"EHLO x.example\r\nMAIL FROM:<s@x.example>\r\nRCPT TO:<a@a.example>\r\nDATA\r\n"
            )
            client.writer.write(b"Subject: x\r\n\r\nhi\r\n.\r\nQUIT\r\n")
            client.writer.write_eof()
            while not mailboxes.asked:
                await asyncio.sleep(0)
            for _ in range(20):
                await asyncio.sleep(0)
            mailboxes.answer(0)
            said = (await client.rest()).splitlines()
            assert [line[:4] for line in said if line[3:4] == b" "] == [
                b"220 ", b"250 ", b"250 ", b"250 ", b"354 ", b"250 ", b"221 "
            ]  # fmt: skip
            assert len(server.queue.messages) == 1
            await server.quiet()

    with asyncio.Runner(loop_factory=new_loop if loop == "uvloop" else None) as runner:
        runner.run(story())


def test_who_closed_his_half_is_not_waited_for_without_end(
    settings: Settings, running: Any, mailboxes: Any
) -> None:
    async def story() -> None:
        mailboxes.hold = True
        async with running(settings, mailboxes=mailboxes, timeoutsmtpd=1) as server:
            client = await (await server.client()).hello()
            client.writer.write(b"MAIL FROM:<s@x.example>\r\nRCPT TO:<a@a.example>\r\n")
            client.writer.write_eof()
            assert (await client.rest()).endswith(b"421 4.4.2 timeout\r\n")
            await server.quiet()

    run(story())


def test_two_listeners_of_one_process_name_no_two_messages_alike(settings: Settings, running: Any) -> None:
    async def story() -> None:
        async with running(settings, kind=SubmissionService) as server:
            other = SubmissionService(server.service.context)
            stamps = [one.stamp() for one in (server.service, other, server.service, other)]
            assert len({stamp.unique for stamp in stamps}) == 4

    run(story())


def test_draining_lets_a_message_under_way_finish(settings: Settings, running: Any) -> None:
    async def story() -> None:
        async with running(settings) as server:
            idle = await (await server.client()).hello()
            busy = await (await server.client()).hello()
            await busy.data()
            server.service.drain()
            assert (await idle.rest())[:3] == b"421"
            said = await busy.say(b"x\r\n.")
            assert said[:3] == b"250"
            assert (await busy.rest())[:3] == b"421"
            await server.quiet()

    run(story())


def test_sessions_under_way_keep_their_settings(settings: Settings, running: Any) -> None:
    async def story() -> None:
        async with running(settings) as server:
            import msgspec

            old = await (await server.client()).hello()
            fresh = msgspec.structs.replace(settings, rcpthosts=frozenset({b"b.example"}))
            server.service.reconfigure(msgspec.structs.replace(server.service.context, settings=fresh))
            new = await (await server.client()).hello()
            for client, address, code in ((old, b"a.example", b"250"), (new, b"a.example", b"553")):
                await client.say(b"MAIL FROM:<>")
                assert (await client.say(b"RCPT TO:<x@%s>" % address))[:3] == code

    run(story())


class Refusing:
    """Refuses at one step; is asked at all of them."""

    def __init__(self, step: str) -> None:
        self.asked: list[str] = []
        for name in ("connect", "helo", "mail", "rcpt", "data", "message"):
            setattr(self, name, self._method(name, name == step))

    def _method(self, name: str, refuse: bool) -> Any:
        async def method(*facts: Any) -> Answer:
            self.asked.append(name)
            await asyncio.sleep(0)
            return Reject(Reply(550, b"5.7.1", (b"refused at " + name.encode(),))) if refuse else None

        return method


def test_a_hook_is_asked_at_each_step_and_may_refuse(settings: Settings, running: Any) -> None:
    commands = (b"EHLO c.example", b"MAIL FROM:<s@c.example>", b"RCPT TO:<a@a.example>", b"DATA", b"x\r\n.")
    steps = ("helo", "mail", "rcpt", "data", "message")

    async def story() -> None:
        for position, step in enumerate(steps):
            hook = Refusing(step)
            async with running(settings, [("hook", hook)]) as server:
                client = await server.client()
                await client.reply()
                said = [await client.say(command) for command in commands[: position + 1]]
                assert b"refused at " + step.encode() in said[-1]
                assert hook.asked == ["connect", *steps[: position + 1]]
                assert server.queue.messages == []

    run(story())


def test_a_refusal_at_connect_takes_the_place_of_the_greeting(settings: Settings, running: Any) -> None:
    async def story() -> None:
        async with running(settings, [("hook", Refusing("connect"))]) as server:
            client = await server.client()
            assert b"refused at connect" in await client.reply()
            assert (await client.say(b"EHLO c.example"))[:1] == b"5"

    run(story())


def test_pipelined_commands_wait_for_a_hook(settings: Settings, running: Any) -> None:
    async def story() -> None:
        hook = Refusing("nothing")
        async with running(settings, [("hook", hook)]) as server:
            client = await server.client()
            await client.reply()
            client.writer.write(
                b"EHLO c.example\r\nMAIL FROM:<s@c.example>\r\nRCPT TO:<a@a.example>\r\nDATA\r\n"
            )
            said = [await client.reply() for _ in range(4)]
            assert [one[:3] for one in said] == [b"250", b"250", b"250", b"354"]
            client.writer.write(b"x\r\n.\r\nQUIT\r\n")
            assert [(await client.reply())[:3] for _ in range(2)] == [b"250", b"221"]
            assert len(server.queue.messages) == 1

    run(story())


def test_ten_thousand_connects_and_drops_leave_nothing(settings: Settings, running: Any) -> None:
    async def story() -> None:
        async with running(settings) as server:
            for _ in range(100):
                writers = []
                for _ in range(100):
                    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
                    writers.append(writer)
                for writer in writers:
                    writer.transport.abort()
            await server.quiet()
            assert (await (await server.client()).reply())[:3] == b"220"

    run(story())


def test_a_client_that_does_not_read_is_not_read_either(settings: Settings, running: Any) -> None:
    async def story() -> None:
        async with running(settings, timeoutsmtpd=1, maxmessages=0) as server:
            client = await server.client()
            await client.reply()
            client.reader._transport.pause_reading()  # type: ignore[attr-defined]
            client.writer.transport.set_write_buffer_limits(high=2**30)
            client.writer.write(b"EHLO x\r\n" + b"MAIL FROM:<>\r\nRSET\r\n" * 800_000)
            [session] = server.service.sessions
            while not session._unread:
                await asyncio.sleep(0)
            for _ in range(200):
                await asyncio.sleep(0)
            assert session._transport.get_write_buffer_size() < 1_000_000

    run(story())


def test_a_client_that_never_reads_our_last_words_is_cut_off(
    settings: Settings, running: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr("openqmail.core.smtpd.session.LINGER", 1)

    async def story() -> None:
        async with running(settings, timeoutsmtpd=1, maxmessages=0) as server:
            client = await server.client()
            await client.reply()
            client.reader._transport.pause_reading()  # type: ignore[attr-defined]
            client.writer.transport.set_write_buffer_limits(high=2**30)
            client.writer.write(b"EHLO x\r\n" + b"MAIL FROM:<>\r\nRSET\r\n" * 800_000)
            await server.quiet()  # time-out, last words, and then the connection is gone

    run(story())


@pytest.mark.parametrize("command", [b"NOOP", b"RSET", b"HELP", b"VRFY x", b"EHLO again.example"])
def test_commands_that_lead_to_no_mail_end_the_session(
    settings: Settings, running: Any, command: bytes
) -> None:
    async def story() -> None:
        async with running(settings) as server:
            client = await (await server.client()).hello()
            client.writer.write((command + b"\r\n") * 200)
            said = await client.rest()
            assert said.endswith(b"421 4.7.0 too many commands that lead to no mail\r\n")
            assert said.count(b"\r\n") > 90
            await server.quiet()

    run(story())


def test_a_client_may_ask_a_hundred_times_before_each_message(settings: Settings, running: Any) -> None:
    async def story() -> None:
        async with running(settings) as server:
            client = await (await server.client()).hello()
            for _ in range(3):
                client.writer.write(b"NOOP\r\n" * 90)
                assert {(await client.reply())[:3] for _ in range(90)} == {b"250"}
                assert (await client.data())[:3] == b"354"
                assert (await client.say(b"x\r\n."))[:3] == b"250"
            assert len(server.queue.messages) == 3

    run(story())
