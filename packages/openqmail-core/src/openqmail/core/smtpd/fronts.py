"""Front ends: hosts that pass on the connections of others, and are trusted to say whose.

One in a `proxy=` network of its line in `control/listen` begins each connection with a header of the
PROXY protocol; one in an `xclient=` network may say XCLIENT.  `Front` is a connection until its header has
come, before anything is said to it or asked about it; it reads not an octet more, so what follows, be it
a TLS hello, comes to the session as from a connection that was just accepted.
"""

import asyncio
import ipaddress
from asyncio import AbstractEventLoop
from typing import TYPE_CHECKING, cast

import msgspec

from openqmail.core.control.settings import Listener
from openqmail.core.log import Warn
from openqmail.core.smtp.proxy import LONGEST, HeaderReader, Passed, ProxyError
from openqmail.core.smtp.xclient import XClient
from openqmail.core.tls import TlsFacts

if TYPE_CHECKING:
    from openqmail.core.smtpd.service import SmtpService

HEADER = 10
"""Seconds in which the header must come."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Peer(msgspec.Struct, frozen=True):
    """The client that a front end speaks for.  `via`: address and port of the front end; `server`: where
    the client came to, as far as that is known; `xclient`: XCLIENT may be said; `named`: it has been, so
    only until EHLO.  `name`: of the client's host in lower case, empty for none, None where nothing was said
    of it.  `tls`: of the connection, which was ciphered before this client was named."""

    client: tuple[str, int]
    server: str
    via: str | None
    xclient: bool
    name: str | None = None
    helo: bytes = b""
    login: bytes = b""
    tls: TlsFacts | None = None
    named: bool = False

    def said(self, said: XClient) -> "Peer":
        """The same after XCLIENT: what it did not name stays as it was, unless it was another client's."""
        address, port = self.client
        via = self.via or _written(address, port)
        before = self
        if said.client is not None:
            before = Peer((said.client, 0), self.server, via, self.xclient)
        return msgspec.structs.replace(
            before,
            client=(before.client[0], before.client[1] if said.port is None else said.port),
            server=said.server or self.server,
            via=via,
            name=before.name if said.name is None else said.name.decode().lower(),
            helo=before.helo if said.helo is None else said.helo,
            login=before.login if said.login is None else said.login,
            named=True,
        )

    def within(self, tls: TlsFacts | None) -> "Peer":
        """The same by a connection with TLS or without; what was proved by that, the front end has proved."""
        if tls is not None:
            tls = msgspec.structs.replace(tls, peer="", bindings={})
        return msgspec.structs.replace(self, tls=tls)


class Fronts:
    """Who may be what, by one line of `control/listen`."""

    def __init__(self, listener: Listener) -> None:
        self._proxy = _networks(listener.proxy)
        self._xclient = _networks(listener.xclient)
        self.proxied = bool(self._proxy)
        """Some connections begin with a header."""

    def heads(self, address: str) -> bool:
        """Whether a connection from there begins with a header."""
        return _within(address, self._proxy)

    def peer(self, client: tuple[str, int], server: str, via: str | None = None) -> Peer:
        """A client as it is known when its session begins."""
        return Peer(client, server, via, _within(client[0], self._xclient))


class Front(asyncio.BufferedProtocol):
    """A connection that was just accepted, of a listener that has front ends; anybody else's is served
    at once."""

    _client: tuple[str, int] | None = None  # the front end
    _waited = 0

    def __init__(self, service: "SmtpService", loop: AbstractEventLoop) -> None:
        self._service = service
        self._loop = loop
        self._reader = HeaderReader()
        self._buffer = memoryview(bytearray(LONGEST))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        client = transport.get_extra_info("peername")
        if client and self._service.fronts.heads(client[0]):
            self._client = client
            self._service.opened(self)
        else:
            self._serve(None)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer[: self._reader.wanted]

    def buffer_updated(self, count: int) -> None:
        if self._client is None:
            return
        try:
            self._reader.feed(bytes(self._buffer[:count]))
        except ProxyError as error:
            self._refuse(str(error))
            return
        if self._reader.done:
            self._serve(self._reader.passed)

    def connection_lost(self, error: Exception | None) -> None:
        self._service.sessions.discard(self)

    # --- what the service asks for ----------------------------------------------------

    def look(self, now: float) -> None:
        """Once a second."""
        self._waited += 1
        if self._waited > HEADER:
            self._refuse(f"it did not come within {HEADER} seconds")

    def drain(self) -> None:
        self.abort()

    def abort(self) -> None:
        self._client = None
        self._transport.abort()

    # --- its end ----------------------------------------------------------------------

    def _serve(self, passed: Passed | None) -> None:
        """The session begins, for the client that was named, or for whoever this is."""
        service, front = self._service, self._client
        peer = None
        if passed is not None and front is not None:
            peer = service.fronts.peer((passed.client, passed.port), passed.server, _written(*front[:2]))
        self._client = None
        service.sessions.discard(self)
        session = service.session(peer)
        self._transport.set_protocol(session)
        session.connection_made(self._transport)

    def _refuse(self, why: str) -> None:
        """There is nobody to be told: who should have sent a header expects no reply to it."""
        if self._client is not None:
            front = _written(*self._client[:2])
            listener = self._service.context.listener
            self._service.context.log(
                Warn(f"{listener.service}: the PROXY header of {front} is of no use, hung up: {why}")
            )
        self.abort()


def _networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


def _within(address: str, networks: tuple[Network, ...]) -> bool:
    if not networks:
        return False
    found = ipaddress.ip_address(address.partition("%")[0])
    return any(found in network for network in networks)


def _written(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
