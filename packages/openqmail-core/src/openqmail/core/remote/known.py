"""Where mail for a domain goes, for as long as that may be believed.

No directions are kept longer than five minutes.  Bounded in size as `dns/cache` is: domains and stops
count together, since a stranger says how many addresses a domain has, and of each domain only so many
are kept as a delivery tries.  It has no clock: `now` is whatever monotonic time its user has.
"""

from openqmail.core.control.settings import Route
from openqmail.core.remote.directions import Directions

MOST_SECONDS = 300.0
MOST = 30_000
"""Domains and stops together; what was found out first goes first."""


Way = tuple[bytes, Route | None]
"""A domain, and the route that is taken without asking which it has."""


class Known:
    def __init__(self) -> None:
        self._size = 0
        self._entries: dict[Way, tuple[float, Directions]] = {}

    def __len__(self) -> int:
        """Domains and stops together."""
        return self._size

    def get(self, domain: bytes, now: float, route: Route | None = None) -> Directions | None:
        """`route`: as `Pathfinder.find` has it."""
        way = domain, route
        entry = self._entries.get(way)
        if entry is None:
            return None
        if now < entry[0]:
            return entry[1]
        self._drop(way)
        return None

    def put(self, domain: bytes, directions: Directions, now: float, route: Route | None = None) -> None:
        """In the place of what was known before; what has expired makes room."""
        entries, way = self._entries, (domain, route)
        if way in entries:
            self._drop(way)
        directions = directions.shortened()
        entries[way] = (now + min(directions.ttl, MOST_SECONDS), directions)
        self._size += _size(directions)
        while entries and (self._size > MOST or next(iter(entries.values()))[0] <= now):
            self._drop(next(iter(entries)))

    def clear(self) -> None:
        self._entries.clear()
        self._size = 0

    def _drop(self, way: Way) -> None:
        self._size -= _size(self._entries.pop(way)[1])


def _size(directions: Directions) -> int:
    return 1 + directions.length
