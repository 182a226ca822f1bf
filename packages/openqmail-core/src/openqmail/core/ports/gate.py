"""The port that says how much is too much (and, later, who is who)."""

from asyncio import Future
from typing import Protocol

CONNECTIONS = b"connections"
"""Counter of the connections from the network that are open."""

CONNECTIONS_PER_HOUR = b"connectionsperhour"
"""Rate of the connections that come from one network."""

MESSAGES_PER_HOUR = b"messagesperhour"
"""Rate of the mail transactions that are begun from one network."""


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
