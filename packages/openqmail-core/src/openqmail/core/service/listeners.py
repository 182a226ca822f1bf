"""The listening sockets, each with the service that its line of `control/listen` names."""

import asyncio
import os
import socket
from collections.abc import Callable
from typing import NamedTuple

from openqmail.core.control import extensions
from openqmail.core.control.settings import Listener
from openqmail.core.ports import Service, ServiceContext
from openqmail.core.values import ControlError

BACKLOG = 1024
"""Connections that may wait to be accepted; the kernel has a limit of its own."""


class _Open(NamedTuple):
    servers: list[asyncio.Server]
    service: Service

    def close(self) -> None:
        for server in self.servers:
            server.close()


class Listeners:
    """Opens, reconfigures and closes listeners; `context` makes what a service is given."""

    def __init__(self, context: Callable[[Listener], ServiceContext]) -> None:
        self._context = context
        self._open: dict[Listener, _Open] = {}
        self._leaving: list[Service] = []

    async def apply(self, wanted: tuple[Listener, ...]) -> None:
        """Have just these listeners; all or nothing.  Raises ControlError."""
        fresh: dict[Listener, _Open] = {}
        try:
            for listener in wanted:
                if listener not in self._open:
                    fresh[listener] = await self._start(listener)
        except ControlError:
            for one in fresh.values():
                one.close()
            raise
        for listener in [one for one in self._open if one not in wanted]:
            self._stop(listener)
        for listener, one in self._open.items():
            one.service.reconfigure(self._context(listener))
        self._open.update(fresh)

    def drain(self) -> None:
        """Accept no more; end connections as soon as their message is answered."""
        for listener in list(self._open):
            self._stop(listener)

    def abort(self) -> None:
        """End every connection now."""
        for service in self._services():
            service.abort()

    @property
    def active(self) -> int:
        """Connections that are open."""
        return sum(service.active for service in self._services())

    def addresses(self) -> list[tuple[str, str]]:
        """(service, address:port) of each listener, with the port that the kernel chose for 0."""
        return [
            (listener.service, _written(*server.sockets[0].getsockname()[:2]))
            for listener, one in self._open.items()
            for server in one.servers
        ]

    def _services(self) -> list[Service]:
        return [one.service for one in self._open.values()] + self._leaving

    def _stop(self, listener: Listener) -> None:
        gone = self._open.pop(listener)
        gone.close()
        gone.service.drain()
        self._leaving = [*(service for service in self._leaving if service.active), gone.service]

    async def _start(self, listener: Listener) -> _Open:
        factory = extensions.load("openqmail.services", listener.service)
        service: Service = factory(self._context(listener))
        try:
            opened = _listening_sockets(listener)
        except OSError as error:
            where = f"{listener.service} {_written(listener.host, listener.port)}"
            why = f"cannot listen on `{where}`: {os.strerror(error.errno or 0)}"
            remedy = "change the line, or stop what has the port"
            raise ControlError("control/listen", 0, f"{why}; {remedy}") from None
        loop = asyncio.get_running_loop()
        servers = [await loop.create_server(service.connect, sock=one, backlog=BACKLOG) for one in opened]
        return _Open(servers, service)


def _listening_sockets(listener: Listener) -> list[socket.socket]:
    """One, or one a family where no host is named.  Raises OSError."""
    hosts = (
        [listener.host]
        if listener.host
        else ["0.0.0.0", "::"]
        if socket.has_dualstack_ipv6()
        else ["0.0.0.0"]
    )
    opened: list[socket.socket] = []
    try:
        for host in hosts:
            opened.append(_listening_socket(host, listener.port))
    except OSError:
        for one in opened:
            one.close()
        raise
    return opened


def _listening_socket(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.setblocking(False)
        opened.bind((host, port))
    except OSError:
        opened.close()
        raise
    return opened


def _written(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
