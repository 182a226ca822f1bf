"""Answers of the DNS that may still be believed.

Bounded in size (what was not asked for the longest goes first) and in time: no answer is kept
longer than an hour, a refusal not longer than five minutes, whatever its TTL says (RFC 2308
section 5 lets a cache be shorter), a failure not longer than that either (RFC 9520 section 3.2).
It has no clock: `now` is whatever monotonic time its user has.
"""

from openqmail.core.dns.types import Answer, LookupFailed, MailExchanger, NoSuchName

MOST_SECONDS = 3600.0
MOST_SECONDS_NEGATIVE = 300.0

Known = Answer[MailExchanger | str | bytes] | NoSuchName | LookupFailed


class Cache:
    """Answers, refusals and failures by name and kind of record.

    `size`: so many entries and records together, since a stranger says how many records a name has."""

    def __init__(self, size: int = 20_000) -> None:
        self._most = size
        self._size = 0
        self._entries: dict[tuple[bytes, str], tuple[float, Known]] = {}

    def __len__(self) -> int:
        """Entries and records together."""
        return self._size

    def get(self, name: bytes, kind: str, now: float) -> Known | None:
        """What is known, its `ttl` being what is left of it; None when that is nothing."""
        entry = self._take((name, kind))
        if entry is None or entry[0] <= now:
            return None
        self._keep((name, kind), entry)
        expires, value = entry
        if isinstance(value, Answer):
            return Answer(value.records, expires - now, value.authentic)
        return value

    def put(self, name: bytes, kind: str, value: Known, ttl: float, now: float) -> None:
        """Remember it for `ttl` seconds, or less; it takes the place of what was known before."""
        self._take((name, kind))
        positive = isinstance(value, Answer) and value.records
        ttl = min(ttl, MOST_SECONDS if positive else MOST_SECONDS_NEGATIVE)
        if ttl > 0 and _size(value) <= self._most:
            self._keep((name, kind), (now + ttl, value))
        while self._size > self._most:
            self._take(next(iter(self._entries)))

    def _keep(self, key: tuple[bytes, str], entry: tuple[float, Known]) -> None:
        self._entries[key] = entry
        self._size += _size(entry[1])

    def _take(self, key: tuple[bytes, str]) -> tuple[float, Known] | None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._size -= _size(entry[1])
        return entry


def _size(value: Known) -> int:
    return 1 + len(value.records) if isinstance(value, Answer) else 1
