"""HTTP to one page: who asks well is answered, and who does not holds nobody up."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

import pytest

from openqmail.core.service import scraping
from openqmail.core.service.scraping import HEAD, Page, Scraping

PAGE = Page("text/plain", b"figures 1\n")

Story = Callable[[tuple[str, int], Scraping], Awaitable[None]]


async def given() -> Page:
    return PAGE


def played(story: Story, page: Callable[[], Awaitable[Page]] = given) -> None:
    async def play() -> None:
        server = Scraping(page)
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setblocking(False)
        await server.serve([listening])
        try:
            await story(listening.getsockname(), server)
        finally:
            await server.close()

    asyncio.run(asyncio.wait_for(play(), 30))


async def said(address: tuple[str, int], request: bytes, *, eof: bool = False) -> bytes:
    """All that is answered."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(request)
    if eof:
        writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer


def status(answer: bytes) -> int:
    return int(answer.split()[1])


def test_get_has_the_page_and_head_its_size() -> None:
    async def story(address: tuple[str, int], _: Scraping) -> None:
        answer = await said(address, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"Content-Length: 10\r\nCache-Control: no-store\r\nConnection: close" in head
        assert body == PAGE.body
        assert await said(address, b"HEAD /metrics?name=x HTTP/1.0\r\n\r\n") == head + b"\r\n\r\n"

    played(story)


@pytest.mark.parametrize(
    ("request_line", "expected"),
    [
        (b"GET / HTTP/1.1", 404),
        (b"GET /metrics/ HTTP/1.1", 404),
        (b"GET //metrics HTTP/1.1", 404),
        (b"GET /../metrics HTTP/1.1", 404),
        (b"POST /metrics HTTP/1.1", 405),
        (b"DELETE /metrics HTTP/1.1", 405),
        (b"GET http://x/metrics HTTP/1.1", 400),
        (b"CONNECT x:25 HTTP/1.1", 400),
        (b"GET /metrics", 400),
        (b"GET /metrics HTTP/2.0", 400),
        (b"GET  /metrics HTTP/1.1", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"EHLO c.example", 400),
        (b"", 400),
    ],
)
def test_another_request_is_refused(request_line: bytes, expected: int) -> None:
    async def story(address: tuple[str, int], _: Scraping) -> None:
        answer = await said(address, request_line + b"\r\nHost: x\r\n\r\n")
        assert status(answer) == expected
        assert PAGE.body not in answer
        assert (b"\r\nAllow: GET, HEAD\r\n" in answer) == (expected == 405)

    played(story)


def test_a_head_without_end_is_read_no_further() -> None:
    async def story(address: tuple[str, int], _: Scraping) -> None:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * HEAD)
        try:
            answer = await reader.read()
        except ConnectionError:  # what was not read resets the connection
            answer = b""
        assert not answer or status(answer) == 431
        writer.close()
        assert status(await said(address, b"GET /metrics HTTP/1.1\r\n\r\n")) == 200

    played(story)


def test_half_a_head_is_no_request() -> None:
    async def story(address: tuple[str, int], _: Scraping) -> None:
        assert status(await said(address, b"GET /metrics HTTP/1.1\r\nHost", eof=True)) == 400

    played(story)


def test_who_says_nothing_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scraping, "PATIENCE", 0.2)

    async def story(address: tuple[str, int], _: Scraping) -> None:
        for begun in (b"", b"GET /metrics HTTP/1.1\r\n"):
            with contextlib.suppress(ConnectionResetError):
                assert await said(address, begun) == b""

    played(story)


def test_who_does_not_read_the_page_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scraping, "PATIENCE", 0.2)

    async def large() -> Page:
        return Page("text/plain", bytes(64 << 20))

    async def story(address: tuple[str, int], server: Scraping) -> None:
        with socket.create_connection(address) as idle:
            idle.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            while not server._answering:
                await asyncio.sleep(0)
            await asyncio.wait(server._answering)
            assert not server._answering

    played(story, large)


def test_many_who_say_nothing_are_bounded_and_the_next_is_told_so() -> None:
    async def story(address: tuple[str, int], server: Scraping) -> None:
        silent = [await asyncio.open_connection(*address) for _ in range(scraping.MOST)]
        while len(server._answering) < scraping.MOST:
            await asyncio.sleep(0)
        assert status(await said(address, b"")) == 503
        silent[0][1].close()
        while len(server._answering) == scraping.MOST:
            await asyncio.sleep(0)
        assert status(await said(address, b"GET /metrics HTTP/1.1\r\n\r\n")) == 200
        for _, writer in silent:
            writer.close()

    played(story)


def test_without_an_answer_from_the_supervisor_there_is_no_page() -> None:
    async def late() -> Page:
        raise TimeoutError

    async def story(address: tuple[str, int], _: Scraping) -> None:
        assert status(await said(address, b"GET /metrics HTTP/1.1\r\n\r\n")) == 503

    played(story, late)


def test_it_ends_although_a_client_stays() -> None:
    async def story(address: tuple[str, int], server: Scraping) -> None:
        await asyncio.open_connection(*address)
        while not server._answering:
            await asyncio.sleep(0)

    played(story)
