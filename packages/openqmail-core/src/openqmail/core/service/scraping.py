"""HTTP for one page, /metrics: as little of RFC 9112 as somebody who scrapes needs, and all of it bounded.

GET and HEAD are answered, a request a connection.  A head may have 8 KiB, must come within ten seconds,
and nothing behind it is read.  At most 32 connections are open; who comes then waits or is told 503.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from http import HTTPStatus

import msgspec

HEAD = 8 * 1024
"""Bytes of a request's head."""

PATIENCE = 10.0
"""Seconds for a request, and for its answer to be taken."""

MOST = 32
"""Connections at once."""

LEAVING = 1.0
"""Seconds that those which are answered have at the end."""

BACKLOG = 32

PATH = b"/metrics"


class Page(msgspec.Struct, frozen=True):
    kind: str
    body: bytes


class _Refused(Exception):
    def __init__(self, status: HTTPStatus, *headers: str) -> None:
        self.status, self.headers = status, headers


class Scraping:
    """`page` makes what is told; when it raises TimeoutError, there is none now."""

    def __init__(self, page: Callable[[], Awaitable[Page]]) -> None:
        self._page = page
        self._servers: list[asyncio.Server] = []
        self._answering: set[asyncio.Task[None]] = set()

    async def serve(self, listening: Iterable[socket.socket]) -> None:
        """On sockets that listen already."""
        for one in listening:
            self._servers.append(
                await asyncio.start_server(self._connected, sock=one, limit=HEAD, backlog=BACKLOG)
            )

    async def close(self) -> None:
        """Take no more, and end in bounded time."""
        for server in self._servers:
            server.close()
        if self._answering:
            await asyncio.wait(self._answering, timeout=LEAVING)
        for task in self._answering:
            task.cancel()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        full = len(self._answering) >= MOST
        self._answering.add(task)
        try:
            async with asyncio.timeout(PATIENCE):
                if full:
                    writer.write(_refusal(_Refused(HTTPStatus.SERVICE_UNAVAILABLE)))
                else:
                    writer.write(await self._answer(reader))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError):
            pass  # gone, or too slow to be told anything
        finally:
            self._answering.discard(task)
            with suppress(RuntimeError):  # the loop has ended before
                writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        try:
            with_body = _wants_body(await _head(reader))
            page = await self._page()
        except _Refused as refused:
            return _refusal(refused)
        except TimeoutError:
            return _refusal(_Refused(HTTPStatus.SERVICE_UNAVAILABLE))
        return _response(HTTPStatus.OK, page.kind, page.body, with_body=with_body)


async def _head(reader: asyncio.StreamReader) -> bytes:
    """Its first line.  Raises _Refused."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        raise _Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE) from None
    except asyncio.IncompleteReadError:
        raise _Refused(HTTPStatus.BAD_REQUEST) from None
    return head.partition(b"\r\n")[0]


def _wants_body(request: bytes) -> bool:
    """Whether it is GET, by the first line of a request for our page.  Raises _Refused."""
    method, _, rest = request.partition(b" ")
    target, _, version = rest.partition(b" ")
    if version not in (b"HTTP/1.0", b"HTTP/1.1") or not target.startswith(b"/"):
        raise _Refused(HTTPStatus.BAD_REQUEST)
    if target.partition(b"?")[0] != PATH:
        raise _Refused(HTTPStatus.NOT_FOUND)
    if method not in (b"GET", b"HEAD"):
        raise _Refused(HTTPStatus.METHOD_NOT_ALLOWED, "Allow: GET, HEAD")
    return method == b"GET"


def _refusal(refused: _Refused) -> bytes:
    text = f"{refused.status.value} {refused.status.phrase}\n".encode()
    return _response(refused.status, "text/plain; charset=utf-8", text, refused.headers)


def _response(
    status: HTTPStatus, kind: str, body: bytes, headers: Iterable[str] = (), *, with_body: bool = True
) -> bytes:
    lines = (
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "Connection: close",
        *headers,
    )
    head = "\r\n".join(lines).encode() + b"\r\n\r\n"
    return head + body if with_body else head
