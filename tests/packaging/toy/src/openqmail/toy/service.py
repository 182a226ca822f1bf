"""A listener that says hello and hangs up."""

from asyncio import BaseTransport, Protocol, Transport
from typing import cast

from openqmail.core.ports import ServiceContext


class Greeting(Protocol):
    def __init__(self, me: bytes) -> None:
        self._me = me

    def connection_made(self, transport: BaseTransport) -> None:
        made = cast(Transport, transport)
        made.write(b"the toy of " + self._me + b"\r\n")
        made.close()


class ToyService:
    active = 0

    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    def connect(self) -> Greeting:
        return Greeting(self._context.settings.me)

    def reconfigure(self, context: ServiceContext) -> None:
        self._context = context

    def drain(self) -> None:
        pass

    def abort(self) -> None:
        pass
