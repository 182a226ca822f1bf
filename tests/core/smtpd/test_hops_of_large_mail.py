"""Loops of large mail: what is streamed to the queue is counted, and refused, as small mail is."""

import asyncio
from typing import Any

import pytest

from openqmail.core.control.settings import Settings
from openqmail.core.ports import LARGE

HOP = b"Received: from x by y\r\n"
LINE = b"x" * 997 + b"\r\n"
LINES = LARGE // len(LINE) + 2


def message(hops: int) -> bytes:
    """More than 128 KiB, handed on so often: lines as they go over the wire, without the last dot."""
    return HOP * (hops - 1) + b"Delivered-To: x@y\r\n" + b"Subject: x\r\n\r\n" + LINE * LINES


@pytest.mark.parametrize("piece", [1 << 20, 4000], ids=["at once", "in small pieces"])
def test_large_mail_that_passed_a_hundred_hosts_is_refused_and_nothing_of_it_stays(
    settings: Settings, running: Any, piece: int
) -> None:
    async def story() -> None:
        async with running(settings) as server:
            client = await (await server.client()).hello()
            await client.data()
            data = message(100)
            for at in range(0, len(data), piece):
                client.writer.write(data[at : at + piece])
                await client.writer.drain()
            assert (await client.say(b"."))[:9] == b"554 5.4.6"
            await client.data()  # the session goes on
            assert (await client.say(b"Subject: small\r\n\r\n."))[:3] == b"250"
            assert len(server.queue.messages) == 1
            assert server.queue.bodies and all(body.aborted for body in server.queue.bodies)

    asyncio.run(story())


def test_large_mail_that_passed_ninety_nine_hosts_is_taken_whole(settings: Settings, running: Any) -> None:
    async def story() -> None:
        async with running(settings) as server:
            client = await (await server.client()).hello()
            await client.data()
            client.writer.write(message(99))
            assert (await client.say(b"."))[:3] == b"250"
            [(_, body)] = server.queue.messages
            assert bytes(body).endswith(message(99).replace(b"\r\n", b"\n"))

    asyncio.run(story())


def test_received_lines_in_a_large_body_are_no_hops(settings: Settings, running: Any) -> None:
    async def story() -> None:
        async with running(settings) as server:
            client = await (await server.client()).hello()
            await client.data()
            client.writer.write(b"Subject: x\r\n\r\n" + HOP * (2 * LARGE // len(HOP)))
            assert (await client.say(b"."))[:3] == b"250"

    asyncio.run(story())
