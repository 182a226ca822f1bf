"""DSN at the door: offered where bounces have its form, and what is asked for reaches the queue."""

import asyncio
from typing import Any

import msgspec

from openqmail.core.control.settings import Settings
from openqmail.core.values import Recipient

MAIL = b"MAIL FROM:<s@client.example> RET=HDRS ENVID=id+2B1"
RCPT = b"RCPT TO:<x@a.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;first@old.example"


def test_what_is_asked_for_reaches_the_queue(settings: Settings, running: Any) -> None:
    async def story() -> None:
        async with running(msgspec.structs.replace(settings, bounceformat="dsn")) as server:
            client = await server.client()
            await client.reply()
            assert b"250-DSN\r\n" in await client.say(b"EHLO client.example")
            for line in (MAIL, RCPT, b"DATA"):
                assert (await client.say(line))[:1] in (b"2", b"3")
            assert (await client.say(b"x\r\n."))[:3] == b"250"
            ((envelope, _),) = server.queue.messages
            assert (envelope.ret, envelope.envid) == (b"HDRS", b"id+2B1")
            assert envelope.recipients == (
                Recipient(b"x@a.example", b"SUCCESS,DELAY", b"rfc822;first@old.example"),
            )

    asyncio.run(asyncio.wait_for(story(), 30))


def test_where_bounces_are_qmail_s_it_is_not_offered(settings: Settings, running: Any) -> None:
    async def story() -> None:
        async with running(settings) as server:
            client = await server.client()
            await client.reply()
            assert b"DSN" not in await client.say(b"EHLO client.example")
            assert (await client.say(MAIL)).startswith(b"555 5.5.4")
            assert (await client.say(b"MAIL FROM:<s@client.example>"))[:3] == b"250"
            assert (await client.say(RCPT)).startswith(b"555 5.5.4")

    asyncio.run(asyncio.wait_for(story(), 30))
