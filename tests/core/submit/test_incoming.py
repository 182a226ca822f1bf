"""What is stored of a message of this host is what hooks have seen of it."""

import asyncio
import email
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqmail.core.hooks import SessionFacts
from openqmail.core.message.fresh import READ
from openqmail.core.submit.incoming import FIRST, TextLines
from openqmail.core.submit.wire import request_head

Running = Callable[..., Any]
SIZES = pytest.mark.parametrize("behind", [b"", b"hello\n" * 40_000], ids=["small", "large"])


def request(message: bytes) -> bytes:
    return request_head(b"s@a.example", [b"alice@a.example"], len(message)) + message + b","


class Sees:
    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []
        self.chunks = b""
        self.whole = self.head = b""

    def header(self, session: SessionFacts, field: Any) -> None:
        self.fields.append((field.name, field.value))

    def chunk(self, session: SessionFacts, data: bytes) -> None:
        self.chunks += data

    def message(self, session: SessionFacts, envelope: Any, body: Any, edits: Any) -> None:
        self.head, self.whole = body.header(), b"".join(body.chunks())
        edits.prepend(b"X-New: yes")


@SIZES
@pytest.mark.parametrize(
    ("message", "fields"),
    [
        (b"Subject: x\nTo: b\n\nhi\n", [(b"Subject", b" x"), (b"To", b" b")]),
        (b"Subject: x\r\nTo: b\r\n c\r\n\r\nhi\r\n", [(b"Subject", b" x"), (b"To", b" b\n c")]),
        (b" X-Evil: into our Received\nSubject: y\n\nhi\n", []),
        (b"Subject: a\nno field\nX-Spam: No\n\nhi\n", [(b"Subject", b" a")]),
        (b"From x\nX-Spam: No\n\nhi\n", []),
        (b"\nX-Spam: No\n", []),
    ],
)
def test_hooks_see_one_header_however_they_look(
    running: Running, message: bytes, fields: list[tuple[bytes, bytes]], behind: bytes
) -> None:
    async def scene() -> None:
        sees = Sees()
        behind_it = behind.replace(b"\n", b"\r\n") if b"\r" in message else behind
        async with running([("sees", sees)]) as server:
            assert (await server.say(request(message + behind_it))).split(b":")[1].startswith(b"K")
            await server.until(0)
            ((_, stored),) = server.queue.messages
        assert sees.fields == fields
        assert sees.head == b"".join(b"%b:%b\n" % field for field in fields)
        assert sees.whole == sees.head + b"\n" + sees.chunks
        assert b"\r" not in sees.whole
        assert stored.endswith(b"X-New: yes\n" + sees.whole)
        shown = [name.encode() for name in email.message_from_bytes(stored).keys()]  # noqa: SIM118
        assert shown == [b"Received", b"X-New", *(name for name, _ in fields)]

    asyncio.run(scene())


@SIZES
def test_what_begins_with_a_blank_does_not_go_on_in_our_received_field(
    running: Running, behind: bytes
) -> None:
    async def scene() -> None:
        text = b" X-Evil: folded\nSubject: y\n\nhi\n" + behind
        async with running() as server:
            await server.say(request(text))
            ((_, stored),) = server.queue.messages
            ours, _, rest = stored.partition(b"\n")
            assert ours.startswith(b"Received: (qmail ") and rest == b"\n" + text

    asyncio.run(scene())


def test_a_header_that_hooks_cannot_read_whole_is_not_taken(running: Running) -> None:
    line = b"X: " + b"a" * 900 + b"\n"
    long = line * (READ // len(line) + 1) + b"X-Gone: far\n\nbody\n"

    async def scene() -> None:
        async with running([("sees", Sees())]) as server:
            answer = await server.say(request(long))
            assert b"Dthe header of the message is too large (#5.3.4)" in answer
            assert server.queue.messages == []
        async with running() as server:
            await server.say(request(long))
            assert server.queue.messages[0][1].endswith(long)

    asyncio.run(scene())


def stored_of(message: bytes, size: int) -> bytes:
    lines = TextLines()
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join([lines.feed(piece) for piece in pieces]) + lines.end()


@given(st.text("a\r\n", max_size=20).map(str.encode), st.integers(1, 20))
def test_a_large_message_is_text_as_its_first_line_says(message: bytes, size: int) -> None:
    first = message.split(b"\n")[0] if b"\n" in message else b""
    is_text = first.endswith(b"\r")
    assert stored_of(message, size) == (message.replace(b"\r\n", b"\n") if is_text else message)


def test_a_first_line_without_end_is_not_waited_for() -> None:
    lines = TextLines()
    assert lines.feed(b"x" * (FIRST - 1)) == b""
    assert lines.feed(b"x") == b"x" * FIRST
    assert lines.feed(b"\r\n") == b"\r\n"
