"""Connections that wait for the next message to the same place.

Bounded for each place and in all; a connection that finds no room is not kept.  The one used
last is taken first, so that a quiet time lets the others end.  Knows nothing of SMTP, sockets
or clocks.
"""

from typing import Generic, Protocol, TypeVar

from openqmail.core.remote.transport import Stop

Place = tuple[str, int]


class Kept(Protocol):
    @property
    def stop(self) -> Stop: ...


K = TypeVar("K", bound=Kept)


class Pool(Generic[K]):
    """Idle connections by address and port."""

    def __init__(self, each: int, total: int) -> None:
        self.each = each
        self.total = total
        self._idle: dict[Place, list[K]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def take(self, stop: Stop) -> K | None:
        """A connection to that place, no longer in the pool; None when there is none."""
        place = (stop.address, stop.port)
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
        idle = self._idle.setdefault((connection.stop.address, connection.stop.port), [])
        if len(idle) >= self.each:
            return False
        idle.append(connection)
        self._count += 1
        return True

    def discard(self, connection: K) -> None:
        """Forget it, if it is here."""
        place = (connection.stop.address, connection.stop.port)
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
