"""The port that says how much is too much, and who is who."""

from asyncio import Future
from typing import Protocol

from openqmail.core.ports.sasl import Exchange, SaslClient
from openqmail.core.sasl import Facts

CONNECTIONS = b"connections"
"""Counter of the connections from the network that are open."""

CONNECTIONS_OF_NETWORK = b"networkconnections"
"""Counter of those that one network has open; what is leased is one `of` that network."""

CONNECTIONS_PER_HOUR = b"connectionsperhour"
"""Rate of the connections that come from one network."""

MESSAGES_PER_HOUR = b"messagesperhour"
"""Rate of the mail transactions that are begun from one network."""

MESSAGES_OF_LOGIN = b"loginmessagesperhour"
"""Rate of the mail transactions that one login begins."""

RECIPIENTS_OF_LOGIN = b"loginrecipientsperhour"
"""Rate of the recipients that one login names."""

RECIPIENTS_PER_HOUR = b"recipientsperhour"
"""Rate of the recipients that are named from one network."""


def of(counter: bytes, key: bytes) -> bytes:
    """The counter that each key has for itself; its limit is the one of `counter`."""
    return counter + b" " + key


class Gate(Protocol):
    """Served by gate.  An answer never raises; it is there at once where nobody need be asked."""

    def lease(self, counter: bytes, count: int = 1) -> Future[bool]:
        """Take `count` of what `counter` still has to give; False when that is too much."""
        ...

    def release(self, counter: bytes, count: int = 1) -> None:
        """Give back what was leased."""
        ...

    def spend(self, rate: bytes, key: bytes, count: int = 1) -> Future[bool]:
        """Take `count` of what `key` may have of `rate` in an hour; it comes back with time alone.
        False when that is too much."""
        ...

    @property
    def mechanisms(self) -> frozenset[bytes]:
        """Those of SASL that somebody could log in with now, as far as is known here."""
        ...

    def sasl(self, mechanism: bytes, client: SaslClient, facts: Facts) -> Exchange:
        """An attempt to log in.  `mechanism` as it was offered, in capitals."""
        ...
