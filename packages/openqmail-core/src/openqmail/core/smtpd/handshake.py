"""The handshake of a connection under way, by the loop's own TLS, asyncio's or uvloop's; and how many may be
under way at once.

What of the client's part came before TLS was there to read it is handed over.  Nothing is ever said in
plaintext, whatever fails.
"""

import asyncio
import ssl
from asyncio import AbstractEventLoop
from typing import cast

from openqmail.core.limits import network_of
from openqmail.core.smtpd.turnstile import Turnstile
from openqmail.core.tls import ServerTls

PATIENCE = 30
"""Seconds that a handshake may take; `control/timeoutsmtpd` where that is less."""

_GOODBYE = 10
"""Seconds that a client has for its part of the end of TLS."""

Share = bytes | None
"""Out of which a place is taken: the client's network's; None: that of clients that may relay."""


class Handshakes:
    """The places for handshakes at one listener, `most` for strangers and as many for who may relay.

    A stranger's network may have a quarter as many as are free, of 100 twenty at the most, and one that has
    none gets one as long as there is any.  So a few networks that stay silent in handshakes keep no other
    from TLS."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: dict[Share, int] = {}
        self._strangers = 0

    @property
    def under_way(self) -> int:
        return self._strangers + self._taken.get(None, 0)

    def free(self, client: str, relay: bool) -> bool:
        """Whether a client at this address may begin one; `relay`: it may relay."""
        share = _share(client, relay)
        taken = self._taken.get(share, 0)
        return taken < self._most if share is None else 4 * taken < self._most - self._strangers

    def begin(self, client: str, relay: bool) -> Share:
        """Take a place, which `end` gives back."""
        share = _share(client, relay)
        self._taken[share] = self._taken.get(share, 0) + 1
        self._strangers += share is not None
        return share

    def end(self, share: Share) -> None:
        self._taken[share] -= 1
        if not self._taken[share]:
            del self._taken[share]
        self._strangers -= share is not None


def _share(client: str, relay: bool) -> Share:
    return None if relay else network_of(client)


async def secure(
    loop: AbstractEventLoop,
    transport: asyncio.Transport,
    protocol: asyncio.BufferedProtocol,
    tls: ServerTls,
    early: bytes,
    patience: int,
) -> asyncio.Transport:
    """The transport that ciphers what `protocol` writes.  `early`: the beginning of the client's part, where
    it came before it was expected; `patience`: seconds, `PATIENCE` at most.

    Raises what the loop has for it, of which `reason` makes words; the transport is the caller's to end."""
    if transport.is_closing():
        raise ConnectionResetError
    if early:
        loop.call_soon(_hand_over, transport, early)
    secured = await loop.start_tls(
        transport,
        protocol,
        tls.context,
        server_side=True,
        ssl_handshake_timeout=float(min(PATIENCE, patience)),
        ssl_shutdown_timeout=_GOODBYE,
    )
    if secured is None:
        raise ConnectionResetError
    inner = cast(asyncio.BufferedProtocol, transport.get_protocol())
    transport.set_protocol(Turnstile(loop, transport, secured, inner))
    return secured


def reason(error: BaseException) -> str:
    """Why a handshake failed, for the log."""
    if isinstance(error, asyncio.CancelledError):
        return "the service ended it"
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).lower().replace("_", " ")
    if isinstance(error, ConnectionAbortedError):
        return "it took too long"
    if isinstance(error, OSError):
        return "the client hung up"
    return f"{type(error).__name__}: {error}"


def _hand_over(transport: asyncio.Transport, data: bytes) -> None:
    """Give bytes to the protocol of a transport as if they came now."""
    protocol = cast(asyncio.BufferedProtocol, transport.get_protocol())
    while data:
        buffer = memoryview(protocol.get_buffer(len(data)))
        count = min(len(buffer), len(data))
        buffer[:count] = data[:count]
        protocol.buffer_updated(count)
        data = data[count:]
