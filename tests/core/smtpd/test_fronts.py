"""Front ends pass on the connections of others: rules, answers and log see the client that they name."""

import asyncio
import contextlib
import functools
import struct

import msgspec
import pytest

from openqmail.core import log
from openqmail.core.control.settings import Listener
from openqmail.core.control.tcprules import parse_rules
from openqmail.core.control.text import ControlText
from openqmail.core.ports import CONNECTIONS
from openqmail.core.smtpd.fronts import HEADER

LINE = b"PROXY TCP4 192.0.2.9 198.51.100.1 4711 25\r\n"


def v2(client: bytes, port: int, command: int = 0x21, tlvs: bytes = b"") -> bytes:
    payload = client + bytes([198, 51, 100, 1]) + struct.pack("!HH", port, 25) + tlvs
    return b"\r\n\r\n\0\r\nQUIT\n" + struct.pack("!BBH", command, 0x11, len(payload)) + payload


def story(told):
    """A coroutine as a test."""

    @functools.wraps(told)
    def run(*words, **names):
        asyncio.run(asyncio.wait_for(told(*words, **names), 30))

    return run


def rules(*lines):
    return parse_rules(ControlText("control/rules", "\n".join(lines).encode()))


DENIES = ("192.0.2.7:deny", '192.0.2.8:allow,RELAYCLIENT=""', ":allow")


def listens(server, proxy=(), xclient=()):
    """From now on it has these front ends."""
    context = server.service.context
    listener = Listener("smtp", "127.0.0.1", 0, proxy, xclient)
    server.service.reconfigure(msgspec.structs.replace(context, listener=listener))


def _either():
    """Closed or reset: what was sent and not read makes the difference."""
    return contextlib.suppress(ConnectionError)


def sessions(server):
    return [one for one in server.log.events if isinstance(one, log.SmtpdSession)]


@story
async def test_the_header_names_the_client_to_rules_answers_and_log(running, settings) -> None:
    async with running(settings, rules=rules(*DENIES)) as server:
        listens(server, proxy=("127.0.0.0/8",))
        denied, allowed, relay = [await server.client() for _ in range(3)]
        denied.writer.write(LINE.replace(b"192.0.2.9", b"192.0.2.7"))
        assert (await denied.rest())[:4] == b"554 "
        allowed.writer.write(LINE)
        await allowed.hello()
        assert (await allowed.say(b"MAIL FROM:<s@x.example>"))[:3] == b"250"
        assert (await allowed.say(b"RCPT TO:<joe@elsewhere.example>"))[:3] == b"553"
        relay.writer.write(v2(bytes([192, 0, 2, 8]), 4712, tlvs=b"\x04\x00\x02xy"))
        await relay.hello()
        assert (await relay.data(b"joe@elsewhere.example"))[:3] == b"354"
        assert (await relay.say(b"Subject: x\r\n\r\nx\r\n."))[:3] == b"250"
        await relay.say(b"QUIT")
        await allowed.say(b"QUIT")
        await server.quiet()
        assert b"from client.example ([192.0.2.8])" in server.queue.messages[0][1].replace(b"\n ", b" ")
        seen = {(one.client, one.port): one.via for one in sessions(server)}
        assert set(seen) == {("192.0.2.7", 4711), ("192.0.2.9", 4711), ("192.0.2.8", 4712)}
        assert all(via is not None and via.startswith("127.0.0.1:") for via in seen.values())
        assert b" via 127.0.0.1:" in sessions(server)[0].line()


@pytest.mark.parametrize("header", [LINE, v2(bytes([192, 0, 2, 9]), 4711)])
@pytest.mark.parametrize("step", [1, 7, 1000])
@story
async def test_a_header_may_come_in_pieces_and_with_commands_behind_it(
    running, settings, header, step
) -> None:
    async with running(settings) as server:
        listens(server, proxy=("127.0.0.1/32",))
        client = await server.client()
        stream = header + b"EHLO early.example\r\nQUIT\r\n"
        for at in range(0, len(stream), step):
            client.writer.write(stream[at : at + step])
            await asyncio.sleep(0)
        said = await client.rest()
        assert said.startswith(b"220 ") and said.splitlines()[-1][:4] == b"221 "
        await server.quiet()
        (one,) = sessions(server)
        assert (one.client, one.port, one.helo, one.size) == ("192.0.2.9", 4711, b"early.example", 26)


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", v2(bytes(4), 0, command=0x20)])
@story
async def test_who_names_nobody_speaks_for_itself(running, settings, header) -> None:
    async with running(settings) as server:
        listens(server, proxy=("127.0.0.1/32",))
        client = await server.client()
        client.writer.write(header)
        await client.hello()
        await client.say(b"QUIT")
        await server.quiet()
        (one,) = sessions(server)
        assert one.client == "127.0.0.1" and one.via is None


@pytest.mark.parametrize(
    "stream", [b"EHLO front.example\r\n", b"\x16\x03\x01\x02\x00" * 10, v2(bytes(4), 1, 0x22)]
)
@story
async def test_a_front_end_without_a_header_is_hung_up_on(running, settings, stream) -> None:
    async with running(settings) as server:
        listens(server, proxy=("127.0.0.1/32",))
        client = await server.client()
        client.writer.write(stream)
        with _either():
            assert await client.rest() == b""
        await server.quiet()
        assert not sessions(server)
        (warning,) = [one for one in server.log.events if isinstance(one, log.Warn)]
        assert "PROXY header of 127.0.0.1:" in str(warning.line())


@story
async def test_a_header_that_does_not_come_is_not_waited_for(running, settings) -> None:
    async with running(settings) as server:
        listens(server, proxy=("127.0.0.1/32",))
        client = await server.client()
        client.writer.write(LINE[:20])
        while not server.service.sessions:
            await asyncio.sleep(0)
        (front,) = server.service.sessions
        for _ in range(HEADER):
            front.look(0.0)
        assert server.service.sessions
        front.look(0.0)
        with _either():
            assert await client.rest() == b""
        await server.quiet()
        assert server.gate.taken(CONNECTIONS) == 0


@pytest.mark.parametrize("header", [LINE, v2(bytes([192, 0, 2, 8]), 4711)])
@story
async def test_the_header_of_a_stranger_is_no_header(running, settings, header) -> None:
    async with running(settings, rules=rules(*DENIES)) as server:
        listens(server, proxy=("10.0.0.0/8",), xclient=("10.0.0.0/8",))
        client = await server.client()
        client.writer.write(header + b"QUIT\r\n")
        said = (await client.rest()).splitlines()
        assert said[0][:4] == b"220 " and said[1][:4] == b"500 "
        await server.quiet()
        assert {one.client for one in sessions(server)} == {"127.0.0.1"}


@story
async def test_a_header_after_the_greeting_is_a_command_that_nobody_knows(running, settings) -> None:
    async with running(settings) as server:
        listens(server, proxy=("127.0.0.1/32",))
        client = await server.client()
        client.writer.write(LINE)
        await client.hello()
        assert (await client.say(LINE[:-2].replace(b"192.0.2.9", b"192.0.2.8")))[:3] == b"500"
        await client.say(b"QUIT")
        await server.quiet()
        assert {one.client for one in sessions(server)} == {"192.0.2.9"}


@story
async def test_while_it_drains_nobody_waits_for_a_header(running, settings) -> None:
    async with running(settings) as server:
        listens(server, proxy=("127.0.0.1/32",))
        client = await server.client()
        while not server.service.sessions:
            await asyncio.sleep(0)
        server.service.drain()
        with _either():
            assert await client.rest() == b""
        await server.quiet()


# --- XCLIENT ------------------------------------------------------------------------------


@story
async def test_xclient_begins_a_session_of_another_client(running, settings) -> None:
    async with running(settings, rules=rules(*DENIES)) as server:
        listens(server, xclient=("127.0.0.1/32",))
        client = await server.client()
        await client.reply()
        assert b"\r\n250-XCLIENT NAME ADDR " in await client.say(b"EHLO front.example")
        said = await client.say(b"XCLIENT ADDR=192.0.2.8 PORT=4711 HELO=told.example NAME=spike.example")
        assert said.startswith(b"220 ")
        assert (await client.say(b"MAIL FROM:<s@x.example>"))[:3] == b"503"
        await client.say(b"EHLO spike.example")
        assert (await client.data(b"joe@elsewhere.example"))[:3] == b"354"
        await client.say(b"x\r\n.")
        await client.say(b"QUIT")
        await server.quiet()
        assert b"from spike.example (spike.example [192.0.2.8])" in server.queue.messages[0][1]
        first, second = sessions(server)
        assert (first.end, first.client, first.via) == ("xclient", "127.0.0.1", None)
        assert (second.end, second.client, second.port, second.helo) == (
            "quit",
            "192.0.2.8",
            4711,
            b"spike.example",
        )
        assert second.via == f"127.0.0.1:{first.port}"


@pytest.mark.parametrize("hello", [b"EHLO stranger.example", b"HELO stranger.example", b"EHLO  two words"])
@story
async def test_the_named_client_cannot_say_who_it_is(running, settings, hello) -> None:
    """A front end may pass on what it says as it comes."""
    async with running(settings, rules=rules(*DENIES)) as server:
        listens(server, xclient=("127.0.0.1/32",))
        client = await (await server.client()).hello()
        assert (await client.say(b"XCLIENT ADDR=192.0.2.9"))[:3] == b"220"
        assert b"XCLIENT" not in await client.say(hello)
        if b"words" in hello:
            assert b"XCLIENT" not in await client.say(b"EHLO stranger.example")
        for _ in range(2):
            assert (await client.say(b"XCLIENT ADDR=192.0.2.8 LOGIN=root"))[:3] == b"502"
            assert b"XCLIENT" not in await client.say(b"EHLO stranger.example")
        await client.say(b"MAIL FROM:<s@x.example>")
        assert (await client.say(b"RCPT TO:<joe@elsewhere.example>"))[:3] == b"553"


@story
async def test_what_is_said_of_a_client_may_take_several_lines(running, settings) -> None:
    async with running(settings, rules=rules(*DENIES)) as server:
        listens(server, xclient=("127.0.0.1/32",))
        client = await (await server.client()).hello()
        assert (await client.say(b"XCLIENT ADDR=192.0.2.9 NAME=spike.example"))[:3] == b"220"
        assert (await client.say(b"XCLIENT HELO=told.example PORT=4711"))[:3] == b"220"
        await client.say(b"HELO told.example")
        await client.say(b"QUIT")
        await server.quiet()
        last = sessions(server)[-1]
        assert (last.client, last.port, last.helo) == ("192.0.2.9", 4711, b"told.example")


class Slow:
    async def helo(self, _, name) -> None:
        for _ in range(20):
            await asyncio.sleep(0)


@story
async def test_a_front_end_that_has_closed_its_half_is_not_waited_for(running, settings) -> None:
    async with running(settings, [("slow", Slow())]) as server:
        listens(server, xclient=("127.0.0.1/32",))
        client = await server.client()
        client.writer.write(b"EHLO front.example\r\nXCLIENT ADDR=192.0.2.9\r\n")
        client.writer.write_eof()
        assert b"250-XCLIENT" in await client.rest()
        await server.quiet()
        assert [one.client for one in sessions(server)] == ["127.0.0.1", "192.0.2.9"]


@story
async def test_a_client_that_the_rules_deny_is_sent_away(running, settings) -> None:
    async with running(settings, rules=rules(*DENIES)) as server:
        listens(server, xclient=("127.0.0.1/32",))
        client = await (await server.client()).hello()
        client.writer.write(b"XCLIENT ADDR=192.0.2.7\r\n")
        assert (await client.rest())[:4] == b"554 "
        await server.quiet()
        assert server.gate.taken(CONNECTIONS) == 0


@story
async def test_the_xclient_of_a_stranger_is_not_heard(running, settings) -> None:
    async with running(settings, rules=rules(*DENIES)) as server:
        for fronts in ((), ("10.0.0.0/8",), ("::1/128",)):
            listens(server, proxy=("10.0.0.0/8",), xclient=fronts)
            client = await server.client()
            await client.reply()
            assert b"XCLIENT" not in await client.say(b"EHLO stranger.example")
            assert (await client.say(b"XCLIENT ADDR=192.0.2.8"))[:3] == b"502"
            await client.say(b"MAIL FROM:<s@x.example>")
            assert (await client.say(b"RCPT TO:<joe@elsewhere.example>"))[:3] == b"553"


@story
async def test_one_front_end_may_be_behind_another(running, settings) -> None:
    """Who is named by a trusted header is who it is."""
    async with running(settings) as server:
        listens(server, proxy=("127.0.0.1/32",), xclient=("192.0.2.0/24",))
        client = await server.client()
        client.writer.write(LINE)
        await client.hello()
        assert (await client.say(b"XCLIENT ADDR=203.0.113.5"))[:3] == b"220"
        await client.say(b"QUIT")
        await server.quiet()
        assert [one.client for one in sessions(server)] == ["192.0.2.9", "203.0.113.5"]
        assert sessions(server)[1].via.startswith("127.0.0.1:")


@story
async def test_xclient_in_the_midst_of_mail_is_refused(running, settings) -> None:
    async with running(settings) as server:
        listens(server, xclient=("127.0.0.1/32",))
        client = await (await server.client()).hello()
        await client.say(b"MAIL FROM:<s@x.example>")
        assert (await client.say(b"XCLIENT ADDR=192.0.2.8"))[:3] == b"503"
        await client.say(b"RCPT TO:<alice@a.example>")
        await client.say(b"BDAT 0")
        assert (await client.say(b"XCLIENT ADDR=192.0.2.8"))[:3] == b"503"


@story
async def test_chunks_come_in_as_a_message(running, settings) -> None:
    async with running(settings) as server:
        client = await (await server.client()).hello()
        await client.say(b"MAIL FROM:<s@x.example>")
        await client.say(b"RCPT TO:<alice@a.example>")
        client.writer.write(b"BDAT 14\r\nSubject: x\r\n\r\nBDAT 200000 LAST\r\n" + b"%098d\r\n" % 7 * 2000)
        assert [(await client.reply())[:3] for _ in range(2)] == [b"250", b"250"]
        ((envelope, body),) = server.queue.messages
        assert envelope.recipients[0].address == b"alice@a.example"
        assert bytes(body).endswith(b"Subject: x\n\n" + b"%098d\n" % 7 * 2000)


@story
async def test_the_name_that_it_says_counts_in_rules(running, settings) -> None:
    async with running(settings, rules=rules("=spam.example:deny", ":allow")) as server:
        listens(server, xclient=("127.0.0.1/32",))
        client = await (await server.client()).hello()
        client.writer.write(b"XCLIENT ADDR=192.0.2.8 NAME=SPAM.example\r\n")
        assert (await client.rest())[:4] == b"554 "


@story
async def test_a_new_address_forgets_what_was_said_of_the_one_before(running, settings) -> None:
    """Nobody goes on as whom another has authenticated."""
    async with running(settings) as server:
        listens(server, xclient=("127.0.0.1/32",))
        client = await (await server.client()).hello()
        await client.say(b"XCLIENT ADDR=192.0.2.8 LOGIN=alice")
        (session,) = server.service.sessions
        assert session._dialogue.machine.identity == b"alice"
        await client.say(b"XCLIENT HELO=x.example")
        (session,) = server.service.sessions
        assert session._dialogue.machine.identity == b"alice"
        await client.say(b"XCLIENT ADDR=192.0.2.9")
        (session,) = server.service.sessions
        assert session._dialogue.machine.identity is None
