"""Answers of the DNS that may still be believed.

Bounded in size (the oldest entry goes first) and in time: no answer is kept longer than an
hour, a negative one not longer than five minutes, whatever its TTL says (RFC 2308 section 5
lets a cache be shorter).  It has no clock: `now` is whatever monotonic time its user has.
"""

from openqmail.core.dns.types import Answer, MailExchanger, NoSuchName

MOST_SECONDS = 3600.0
MOST_SECONDS_NEGATIVE = 300.0

Known = Answer[MailExchanger | str] | NoSuchName


class Cache:
    """Answers and refusals by name and kind of record."""

    def __init__(self, size: int = 10_000) -> None:
        self._size = size
        self._entries: dict[tuple[bytes, str], tuple[float, Known]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, name: bytes, kind: str, now: float) -> Known | None:
        """What is known, its `ttl` being what is left of it; None when that is nothing."""
        entry = self._entries.get((name, kind))
        if entry is None:
            return None
        expires, value = entry
        if expires <= now:
            del self._entries[(name, kind)]
            return None
        return value if isinstance(value, NoSuchName) else Answer(value.records, expires - now)

    def put(self, name: bytes, kind: str, value: Known, ttl: float, now: float) -> None:
        """Remember it for `ttl` seconds, or less."""
        negative = isinstance(value, NoSuchName) or not value.records
        ttl = min(ttl, MOST_SECONDS_NEGATIVE if negative else MOST_SECONDS)
        if ttl <= 0:
            return
        self._entries.pop((name, kind), None)
        if len(self._entries) >= self._size:
            del self._entries[next(iter(self._entries))]
        self._entries[(name, kind)] = (now + ttl, value)
