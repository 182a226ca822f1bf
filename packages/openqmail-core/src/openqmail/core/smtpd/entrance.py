"""Whether a client is let in: what the rules say of its address, whether the gate has room for it and for
its network, then what the rules say of its host's name.

The gate comes before the DNS, so who is asked about is counted, too.  An answer that is there at once,
which is the rule, is gone on with; another is waited for.  What the gate has lent is given back when the
client leaves, or at once where it has left meanwhile; the DNS is asked no longer than it stays.
"""

from asyncio import Future
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from openqmail.core.limits import network_of
from openqmail.core.ports import CONNECTIONS, CONNECTIONS_OF_NETWORK, CONNECTIONS_PER_HOUR, of
from openqmail.core.smtpd.policy import BUSY, CROWDED, DENIED, TOO_OFTEN, Policy
from openqmail.core.values import Reply

if TYPE_CHECKING:
    from openqmail.core.smtpd.service import SmtpService

T = TypeVar("T")


class Guest(Protocol):
    """The connection that is to come in."""

    @property
    def waiting(self) -> bool:
        """It has neither left nor been sent away."""
        ...

    def when(self, answer: "Future[T]", then: Callable[[T], None]) -> None:
        """Go on by `then` now where the answer is there, else when it comes."""
        ...

    def opened(self) -> None:
        """The rules let it in, or its name may: from now on it takes part in the service's life."""
        ...

    def attend(self) -> None:
        """Its name is asked for: it is to be read until it says something, so as to see it go."""
        ...

    def enter(self, policy: Policy) -> None:
        """It is let in."""
        ...

    def refuse(self, reply: Reply) -> None:
        """It is not."""
        ...


class Entrance:
    """That of one client, by the settings of the moment."""

    __slots__ = (
        "_address",
        "_admit",
        "_context",
        "_guest",
        "_inside",
        "_naming",
        "_network",
        "_policy",
        "_service",
        "_unnamed",
    )

    def __init__(self, service: "SmtpService", guest: Guest, address: str) -> None:
        self._service = service
        self._context = service.context
        self._admit = service.admit
        self._guest = guest
        self._address = address
        self._policy: Policy | None = None  # what the rules say; None while only its name can let it in
        self._unnamed = False  # the name of its host is wanted
        self._naming: Future[str | None] | None = None  # and asked for
        self._network = b""  # the counter of its network's connections, while one of them is leased
        self._inside = False  # one of all connections is leased

    def ask(self, name: str | None) -> None:
        """`name`: of its host, as a front end says; None: nobody has said anything of it."""
        settings = self._context.settings
        self._unnamed = name is None and self._service.admission.by_name
        self._policy = self._admit(self._address, None if self._unnamed else name or "")
        if self._policy is None and not (self._unnamed and settings.rules.by_name):
            self._guest.refuse(DENIED)
            return
        self._guest.opened()
        if settings.connectionsperhour and not self._relays:
            spent = self._context.gate.spend(CONNECTIONS_PER_HOUR, network_of(self._address))
            self._guest.when(spent, self._ask_network)
        else:
            self._ask_network(True)

    @property
    def asks_name(self) -> bool:
        """The name of its host is being looked up."""
        return self._naming is not None

    def leave(self) -> None:
        """The client has left."""
        if self._naming is not None:
            self._naming.cancel()
        self._leave_network()
        if self._inside:
            self._inside = False
            self._context.gate.release(CONNECTIONS)

    @property
    def _relays(self) -> bool:
        """Its address alone is enough not to be counted."""
        return self._policy is not None and self._policy.relay

    def _ask_network(self, seldom: bool) -> None:
        if not seldom:
            self._guest.refuse(TOO_OFTEN)
        elif self._context.settings.concurrencynetwork and not self._relays:
            network = of(CONNECTIONS_OF_NETWORK, network_of(self._address))
            self._guest.when(self._context.gate.lease(network), partial(self._ask_in, network))
        else:
            self._guest.when(self._context.gate.lease(CONNECTIONS), self._enter)

    def _ask_in(self, network: bytes, leased: bool) -> None:
        if not leased:
            self._guest.refuse(CROWDED)
        elif self._guest.waiting:
            self._network = network
            self._guest.when(self._context.gate.lease(CONNECTIONS), self._enter)
        else:
            self._context.gate.release(network)

    def _enter(self, leased: bool) -> None:
        if not leased:
            self._guest.refuse(BUSY)
        elif not self._guest.waiting:  # it left, or was sent away, meanwhile
            self._context.gate.release(CONNECTIONS)
        else:
            self._inside = True
            if self._unnamed:
                self._naming = self._service.admission.name_of(self._address)
                self._guest.attend()
                self._guest.when(self._naming, self._named)
            elif self._policy is not None:
                self._guest.enter(self._policy)

    def _named(self, name: str | None) -> None:
        """The rules again, by the name of its host; who relays for it is counted no more."""
        self._naming = None
        if not self._guest.waiting:
            return
        policy = self._policy = self._admit(self._address, name)
        if policy is None:
            self._guest.refuse(DENIED)
            return
        if policy.relay:
            self._leave_network()
        self._guest.enter(policy)

    def _leave_network(self) -> None:
        if self._network:
            self._context.gate.release(self._network)
            self._network = b""
