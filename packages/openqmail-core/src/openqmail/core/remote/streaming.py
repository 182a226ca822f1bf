"""A large body on its way to a host: read off the loop, a piece at a time, and given to the connection no
faster than the peer takes it.  Who takes it at the last moment, piece by piece, is given up as well
(`Streaming.until`)."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from openqmail.core.values import Body, OpenqmailError

SECONDS_TO_TAKE = 600.0
"""For a large body, and a second more for each `SLOWEST` octets: what a line takes that was slow in 1990."""
SLOWEST = 1000

READERS = ThreadPoolExecutor(8, "bodies")
"""Who reads bodies: not the threads of the loop, which hooks may fill (asyncio.to_thread).  What a hook makes
as it is read holds one up no longer than that hook's time."""


class Streaming:
    """It has begun; `stop` ends it.

    `size`: octets on the wire.  It goes on while `writable` is set.  `send` gets each piece, then `over` is
    told whether the body could be read to its end."""

    def __init__(
        self,
        body: Body,
        size: int,
        writable: asyncio.Event,
        send: Callable[[bytes], None],
        over: Callable[[bool], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.until = self._loop.time() + SECONDS_TO_TAKE + size / SLOWEST
        """When the peer has to have taken all of it, by the loop's clock."""
        self._writable = writable
        self._send = send
        self._over = over
        self._stopped = False
        self._task = self._loop.create_task(self._run(body))

    def stop(self) -> None:
        """The rest is not wanted; nothing more is told.  `send` may call it."""
        self._stopped = True
        if self._task is not asyncio.current_task():
            self._task.cancel()

    async def _run(self, body: Body) -> None:
        try:
            await self._read(body)
        except (OSError, OpenqmailError):
            whole = False
        else:
            whole = True
        if not self._stopped:
            self._over(whole)

    async def _read(self, body: Body) -> None:
        chunks = iter(body.chunks())
        try:
            while chunk := await self._loop.run_in_executor(READERS, next, chunks, b""):
                self._send(chunk)
                if self._stopped:
                    return
                await self._writable.wait()
        finally:
            _close(chunks)


def _close(chunks: Iterator[bytes]) -> None:
    """Let a generator give its file back now, unless a thread is still in it: then it does so later."""
    close = getattr(chunks, "close", None)
    if close is not None:
        with contextlib.suppress(ValueError):
            close()
