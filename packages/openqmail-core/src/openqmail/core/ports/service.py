"""What a listener's service is given, and what the process that runs it asks of it.

Entry points of the group `openqmail.services` are callables `(ServiceContext) -> Service`.
"""

from asyncio import BaseProtocol
from typing import Any, Protocol

import msgspec

from openqmail.core.control.settings import Listener, Settings
from openqmail.core.dns import ClientResolver
from openqmail.core.log import Log
from openqmail.core.ports.delivery import RecipientCheck
from openqmail.core.ports.gate import Gate
from openqmail.core.ports.submission import Submission
from openqmail.core.tls import ServerTls
from openqmail.core.values import Reply
from openqmail.core.world import Clock


class InboundHooks(Protocol):
    """The chain of hooks, as a front end sees it."""

    def has(self, step: str) -> bool:
        """Whether any hook has a say at this step; asking costs next to nothing."""
        ...

    async def ask(self, step: str, *facts: Any) -> Reply | None:
        """The first refusal's reply, or None.  Never raises."""
        ...


class ServiceContext(msgspec.Struct, frozen=True):
    """Everything a service may use; a reload makes a new one.

    `recipients`: who tells whether there is a mailbox; None: nobody is asked.  `resolver`: who tells
    what the DNS knows of clients; None: nobody.  `tls`: the host's certificates; None: it has none."""

    listener: Listener
    settings: Settings
    submission: Submission
    gate: Gate
    hooks: InboundHooks
    log: Log
    clock: Clock
    recipients: RecipientCheck | None = None
    resolver: ClientResolver | None = None
    tls: ServerTls | None = None


class Service(Protocol):
    """A running service of one listener."""

    def connect(self) -> BaseProtocol:
        """A protocol for a connection that has just come in."""
        ...

    def reconfigure(self, context: ServiceContext) -> None:
        """From now on, for new connections; those under way keep what they have."""
        ...

    def drain(self) -> None:
        """End connections as soon as their message under way is answered."""
        ...

    def abort(self) -> None:
        """End every connection now."""
        ...

    @property
    def active(self) -> int:
        """Connections that are open."""
        ...
