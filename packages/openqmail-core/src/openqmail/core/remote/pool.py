"""Connections that wait for the next message to the same place.

Bounded for each place and in all; a connection that finds no room is not kept.  The one used
last is taken first, so that a quiet time lets the others end.  A place is told apart by the
address at our end and the name that was given, too: what the peer may judge a sender by; and by what was
demanded of the peer, so no mail goes over less TLS than it needs, or by another's login.  Knows nothing of
SMTP, sockets or clocks.
"""

from typing import Generic, Protocol, TypeVar

from openqmail.core.remote.security import Security
from openqmail.core.remote.transport import Source, Stop

Place = tuple[str, int, str | None, bytes, Security]
"""Address, port, the address that is bound at our end ("" for none), the name given in HELO, and what
was demanded of the peer."""


def place_of(stop: Stop, source: Source, helohost: bytes) -> Place:
    """Where a connection to that stop from that source is."""
    helo = source.helo or helohost
    return stop.address, stop.port, source.local(stop.address), helo, stop.security


class Kept(Protocol):
    @property
    def place(self) -> Place: ...


K = TypeVar("K", bound=Kept)


class Pool(Generic[K]):
    """Idle connections by their place."""

    def __init__(self, each: int, total: int) -> None:
        self.each = each
        self.total = total
        self._idle: dict[Place, list[K]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def take(self, place: Place) -> K | None:
        """A connection at that place, no longer in the pool; None when there is none."""
        idle = self._idle.get(place)
        if not idle:
            return None
        connection = idle.pop()
        if not idle:
            del self._idle[place]
        self._count -= 1
        return connection

    def keep(self, connection: K) -> bool:
        """Take it in; False when there is no room."""
        if self._count >= self.total:
            return False
        idle = self._idle.setdefault(connection.place, [])
        if len(idle) >= self.each:
            return False
        idle.append(connection)
        self._count += 1
        return True

    def discard(self, connection: K) -> None:
        """Forget it, if it is here."""
        place = connection.place
        idle = self._idle.get(place)
        if idle is None or connection not in idle:
            return
        idle.remove(connection)
        self._count -= 1
        if not idle:
            del self._idle[place]

    def empty(self) -> list[K]:
        """Take all out."""
        connections = [connection for idle in self._idle.values() for connection in idle]
        self._idle.clear()
        self._count = 0
        return connections
