"""The services behind the listening sockets, each as its line of `control/listen` names it."""

import asyncio
import socket
from collections.abc import Callable
from typing import NamedTuple

from openqmail.core.control import extensions
from openqmail.core.control.settings import Listener
from openqmail.core.ports import Service, ServiceContext
from openqmail.core.service.sockets import BACKLOG, KEPT, Bound
from openqmail.core.submit.service import SubmitService

SUBMIT = Listener("submit", "", 0, kind="submit")
"""Local submission, which no line names."""


class _Open(NamedTuple):
    servers: list[asyncio.Server]
    service: Service

    def close(self) -> None:
        for server in self.servers:
            server.close()


class Listeners:
    """Serves what is bound; `context` makes what a service is given."""

    def __init__(self, context: Callable[[Listener], ServiceContext]) -> None:
        self._context = context
        self._open: dict[Listener, _Open] = {}  # by the places of their lines
        self._leaving: list[Service] = []

    async def serve(self, bound: Bound, submit: socket.socket | None = None) -> None:
        """Serve just these; those that were served before are told their new settings.

        Raises ControlError for a service that cannot be loaded; then nothing has changed."""
        fresh: dict[Listener, Service] = {}
        served = {listener.place: listener for listener in bound}
        for listener in bound:
            if listener.place not in self._open:
                fresh[listener] = extensions.load("openqmail.services", listener.service)(
                    self._context(listener)
                )
        for place in [one for one in self._open if one not in served and one != SUBMIT]:
            self._stop(place)
        for place, one in self._open.items():
            one.service.reconfigure(self._context(served.get(place, place)))
        for listener, service in fresh.items():
            await self._start(listener, service, bound[listener])
        if submit is not None and SUBMIT not in self._open:
            await self._start(SUBMIT, SubmitService(self._context(SUBMIT)), [submit])

    def drain(self) -> None:
        """Accept no more; end connections as soon as their message is answered."""
        for place in list(self._open):
            self._stop(place)

    def abort(self) -> None:
        """End every connection now."""
        for service in self._services():
            service.abort()

    @property
    def active(self) -> int:
        """Connections that are open."""
        return sum(service.active for service in self._services())

    def _services(self) -> list[Service]:
        return [one.service for one in self._open.values()] + self._leaving

    def _stop(self, place: Listener) -> None:
        gone = self._open.pop(place)
        gone.close()
        gone.service.drain()
        self._leaving = [*(service for service in self._leaving if service.active), gone.service]

    async def _start(self, listener: Listener, service: Service, sockets: list[socket.socket]) -> None:
        loop = asyncio.get_running_loop()
        servers: list[asyncio.Server] = []
        for one in sockets:
            if one.family == socket.AF_UNIX:
                server = await loop.create_unix_server(service.connect, sock=one, backlog=BACKLOG, **KEPT)
                servers.append(server)
            else:
                servers.append(await loop.create_server(service.connect, sock=one, backlog=BACKLOG))
        self._open[listener.place] = _Open(servers, service)
