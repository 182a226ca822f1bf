"""A message that comes in many small pieces: it is taken whole, and costs little more than its size."""

import asyncio
import tracemalloc
from typing import Any

from openqmail.core.control.settings import Settings
from openqmail.core.ports import LARGE
from openqmail.core.smtp.events import Mail
from openqmail.core.smtpd.incoming import Incoming

LINE = b"x" * 996 + b"\r\n"
SIZE = 120_000


def test_a_message_in_pieces_of_two_bytes_costs_little_more_than_its_size() -> None:
    tracemalloc.start()
    try:
        incoming = Incoming(Mail(b"s@client.example"), None, print)  # type: ignore[arg-type]
        for at in range(0, SIZE, 2):
            incoming.add(b"%02d" % (at % 97))
        held, _ = tracemalloc.get_traced_memory()
        assert held < 2 * SIZE
    finally:
        tracemalloc.stop()
    assert incoming.end() == 0
    assert incoming.body() == b"".join(b"%02d" % (at % 97) for at in range(0, SIZE, 2))


class Disk:
    """A submission and its one large body: `writes` has what it was given at once."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def large(self) -> "Disk":
        return self

    def write(self, chunk: bytes) -> "asyncio.Future[None]":
        self.writes.append(chunk)
        return asyncio.get_running_loop().create_future()


def test_a_large_message_in_pieces_of_two_bytes_goes_to_the_queue_in_larger_ones() -> None:
    async def story() -> None:
        disk = Disk()
        incoming = Incoming(Mail(b"s@client.example"), disk, print)  # type: ignore[arg-type]
        sent = [b"x" * LARGE] + [b"%02d" % (at % 97) for at in range(10_001)]
        for piece in sent:
            incoming.add(piece)
        incoming.end()
        assert incoming.body() is disk
        assert b"".join(disk.writes) == b"".join(sent)
        assert len(disk.writes) < 10

    asyncio.run(story())


def test_a_message_in_chunks_of_two_bytes_is_taken_whole(settings: Settings, running: Any) -> None:
    sent = LINE * 5

    async def story() -> None:
        async with running(settings) as server:
            client = await (await server.client()).hello()
            assert (await client.say(b"MAIL FROM:<s@client.example>"))[:3] == b"250"
            assert (await client.say(b"RCPT TO:<alice@a.example>"))[:3] == b"250"
            for at in range(0, len(sent), 2):
                client.writer.write(b"BDAT 2\r\n" + sent[at : at + 2])
            client.writer.write(b"BDAT 0 LAST\r\n")
            for _ in range(len(sent) // 2 + 1):
                assert (await client.reply())[:3] == b"250"
            [(_, body)] = server.queue.messages
            assert bytes(body).endswith(b"\n" + sent.replace(b"\r\n", b"\n"))

    asyncio.run(story())
