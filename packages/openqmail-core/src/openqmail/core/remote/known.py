"""Where mail for a domain goes, for as long as that may be believed.

No directions are kept longer than five minutes.  Bounded in size as `dns/cache` is: domains and stops
count together, since a stranger says how many addresses a domain has, and of each domain only so many
are kept as a delivery tries.  It has no clock: `now` is whatever monotonic time its user has.
"""

from openqmail.core.remote.directions import Directions

MOST_SECONDS = 300.0
MOST = 30_000
"""Domains and stops together; what was found out first goes first."""


class Known:
    def __init__(self) -> None:
        self._size = 0
        self._entries: dict[bytes, tuple[float, Directions]] = {}

    def __len__(self) -> int:
        """Domains and stops together."""
        return self._size

    def get(self, domain: bytes, now: float) -> Directions | None:
        entry = self._entries.get(domain)
        if entry is None:
            return None
        if now < entry[0]:
            return entry[1]
        self._drop(domain)
        return None

    def put(self, domain: bytes, directions: Directions, now: float) -> None:
        """In the place of what was known before; what has expired makes room."""
        entries = self._entries
        if domain in entries:
            self._drop(domain)
        directions = directions.shortened()
        entries[domain] = (now + min(directions.ttl, MOST_SECONDS), directions)
        self._size += _size(directions)
        while entries and (self._size > MOST or next(iter(entries.values()))[0] <= now):
            self._drop(next(iter(entries)))

    def clear(self) -> None:
        self._entries.clear()
        self._size = 0

    def _drop(self, domain: bytes) -> None:
        self._size -= _size(self._entries.pop(domain)[1])


def _size(directions: Directions) -> int:
    return 1 + directions.length
