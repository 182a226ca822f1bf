"""Whether a client is let in: what the rules say of its address and its host's name, then whether the gate
has room for it and for its network.

An answer that is there at once, which is the rule, is gone on with; another is waited for.  What the gate
has lent is given back when the client leaves, or at once where it has left meanwhile.
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
        """The rules let it in, or its name is looked up: from now on it takes part in the service's life."""
        ...

    def enter(self, policy: Policy) -> None:
        """It is let in."""
        ...

    def refuse(self, reply: Reply) -> None:
        """It is not."""
        ...


class Entrance:
    """That of one client, by the settings of the moment."""

    __slots__ = ("_address", "_admit", "_context", "_guest", "_inside", "_network", "_policy", "_service")

    def __init__(self, service: "SmtpService", guest: Guest, address: str) -> None:
        self._service = service
        self._context = service.context
        self._admit = service.admit
        self._guest = guest
        self._address = address
        self._policy: Policy  # what the rules make of it
        self._network = b""  # the counter of its network's connections, while one of them is leased
        self._inside = False  # one of all connections is leased

    def ask(self, name: str | None) -> None:
        """`name`: of its host, as a front end says; None: nobody has said anything of it."""
        if name is not None:
            self._look_up(name)
        elif self._service.admission.by_name:
            self._guest.opened()
            self._guest.when(self._service.admission.name_of(self._address), self._look_up)
        else:
            self._look_up("")

    def leave(self) -> None:
        """The client has left."""
        if self._network:
            self._context.gate.release(self._network)
            self._network = b""
        if self._inside:
            self._inside = False
            self._context.gate.release(CONNECTIONS)

    def _look_up(self, name: str | None) -> None:
        """What the rules say of it; `name`: of its host."""
        if not self._guest.waiting:
            return
        policy = self._admit(self._address, name)
        if policy is None:
            self._guest.refuse(DENIED)
            return
        self._policy = policy
        self._guest.opened()
        if self._context.settings.connectionsperhour and not policy.relay:
            spent = self._context.gate.spend(CONNECTIONS_PER_HOUR, network_of(self._address))
            self._guest.when(spent, self._ask_network)
        else:
            self._ask_network(True)

    def _ask_network(self, seldom: bool) -> None:
        if not seldom:
            self._guest.refuse(TOO_OFTEN)
        elif self._context.settings.concurrencynetwork and not self._policy.relay:
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
        elif self._guest.waiting:
            self._inside = True
            self._guest.enter(self._policy)
        else:
            self._context.gate.release(CONNECTIONS)
