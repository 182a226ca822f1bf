"""Between a socket and its TLS: one client's ciphered octets are worked through in portions, so that others
have their turn between them; and TLS that says nothing is not listened to without end.

TLS 1.3 lets a client ask for new keys as often as it likes (RFC 8446 section 4.6.3), which costs it nothing,
and whoever deciphers does it all by himself: no protocol above is told.
"""

import asyncio
from asyncio import AbstractEventLoop
from typing import Protocol, cast

PORTION = 64 * 1024
"""Octets of one turn; the largest record has a quarter of them."""

SILENCE = 2 * PORTION
"""Ciphered octets in which something must have been said."""


class _Counted(Protocol):
    """The protocol above TLS."""

    @property
    def size(self) -> int:
        """What it has been told so far."""
        ...


class Turnstile(asyncio.BufferedProtocol):
    """The protocol of a socket, in place of the loop's TLS, `inner`, which it hands everything to.
    `secured`: the transport that `inner` offers."""

    def __init__(
        self,
        loop: AbstractEventLoop,
        wire: asyncio.Transport,
        secured: asyncio.Transport,
        inner: asyncio.BufferedProtocol,
    ) -> None:
        self._loop, self._wire, self._secured, self._inner = loop, wire, secured, inner
        self._size = 0
        self._silent = 0
        self.connection_lost = inner.connection_lost  # type: ignore[method-assign]
        self.eof_received = inner.eof_received  # type: ignore[method-assign]
        self.pause_writing = inner.pause_writing  # type: ignore[method-assign]
        self.resume_writing = inner.resume_writing  # type: ignore[method-assign]

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._inner.get_buffer(sizehint))[:PORTION]

    def buffer_updated(self, count: int) -> None:
        self._inner.buffer_updated(count)
        if not self._secured.is_reading():  # TLS waits, and keeps the socket from being read by itself
            return
        size = cast(_Counted, self._secured.get_protocol()).size
        if size != self._size:
            self._size, self._silent = size, 0
        else:
            self._silent += count
        if self._silent > SILENCE:
            self._wire.abort()
        elif count == PORTION:  # more is there already
            self._wire.pause_reading()
            self._loop.call_soon(self._wire.resume_reading)
