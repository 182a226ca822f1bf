"""A way out to another host: the protocol that a transport fulfils, core's own SMTP like any other.

A transport is found by its name in the entry-point group `openqmail.transports`; the entry is a
`TransportFactory`, the class itself in most cases.  Where to go has been decided before: the
transport is handed the stops in the order in which they are to be tried, and from where.
"""

from asyncio import Future
from typing import Protocol, runtime_checkable

import msgspec

from openqmail.core.control.bindings import Source
from openqmail.core.control.settings import Settings
from openqmail.core.log import Log
from openqmail.core.ports import RemoteJob
from openqmail.core.remote.security import PLAIN, Security
from openqmail.core.remote.tcpto import Timeouts
from openqmail.core.values import Result

__all__ = ["Counted", "Security", "Source", "Stop", "Timeouts", "Transport", "TransportFactory"]


class Stop(msgspec.Struct, frozen=True):
    """One address to try; `name` is the host's as the MX, the route or the literal gave it.

    Stops of one `preference` are as good as each other; a higher one has its turn when none of
    those before it would do.  `security`: what has to be so before mail is given there; a transport that
    cannot see to it must not give any.  `relay`: a route leads there, and not the DNS."""

    name: bytes
    address: str
    port: int
    preference: int = 0
    security: Security = PLAIN
    relay: bool = False

    @property
    def place(self) -> str:
        """Its address and port, in words."""
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{address} port {self.port}"


class Transport(Protocol):
    def deliver(
        self, job: RemoteJob, stops: tuple[Stop, ...], source: Source
    ) -> "Future[tuple[Result, ...]]":
        """A result for each recipient, in their order.  There is at least one stop, and none of a family
        that `source` does not use; mail goes out from no other address than its.

        Never raises for a message's sake: what goes wrong is a deferral or a failure."""
        ...

    def reconfigure(self, settings: Settings) -> None:
        """Deliveries from now on obey these settings; those under way keep theirs."""
        ...

    async def close(self) -> None:
        """End what is kept, in bounded time; deliveries under way are deferred."""
        ...


@runtime_checkable
class Counted(Protocol):
    """What a transport may be as well: one that tells how many connections are `open`, those that are kept
    included, and how many there have been so far."""

    connected: int

    @property
    def open(self) -> int: ...


class TransportFactory(Protocol):
    def __call__(self, settings: Settings, log: Log, timeouts: Timeouts) -> Transport:
        """`timeouts` is shared by all transports: an address that rests should not be tried, and whether
        one that was tried is there should be told."""
        ...
