"""What a listener's service is given, and what the process that runs it asks of it.

Entry points of the group `openqmail.services` are callables `(ServiceContext) -> Service`.
"""

from asyncio import BaseProtocol, Future
from concurrent.futures import Executor
from typing import Any, Protocol

import msgspec

from openqmail.core.control.settings import Listener, Settings
from openqmail.core.dns import ClientResolver
from openqmail.core.log import Log
from openqmail.core.ports.delivery import RecipientCheck
from openqmail.core.ports.gate import Gate
from openqmail.core.ports.submission import Submission
from openqmail.core.tls import ServerTls
from openqmail.core.values import Body, Decision, Envelope
from openqmail.core.world import Clock


class InboundHooks(Protocol):
    """The hooks of mail coming in, as a front end is given them; it asks by a `hooks.Conversation`.

    `session` is a `hooks.SessionFacts`.  Nothing here raises."""

    @property
    def readers(self) -> Executor:
        """Who reads for core what hooks made of a message; no hook can keep these threads."""
        ...

    def has(self, step: str) -> bool:
        """Whether any hook has a say at this step; asking costs next to nothing."""
        ...

    def ask(self, step: str, session: Any, *facts: Any) -> "Decision | Future[Decision]":
        """What they decide; there at once where none of them waits."""
        ...

    def message(self, session: Any, envelope: Envelope, body: Body) -> Any:
        """What they decide about a whole message and make of it: a `hooks.Message`, or a future of one."""
        ...

    def tell(self, step: str, *facts: Any) -> "Future[None] | None":
        """What asks for no answer; None when all have been told."""
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
