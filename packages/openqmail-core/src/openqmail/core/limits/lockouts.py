"""Too many failures: who may not try for a while, and how long the next one has to wait.  Pure.

So many failures of a key within `WINDOW` seconds, counted from the first, lock it for `LOCK` seconds.  The
table is bounded: beyond the bound the key that failed longest ago is let off.
"""

from collections.abc import Iterator

WINDOW = 600.0
LOCK = 900.0
"""Seconds."""

LONGEST = 8.0
"""Seconds that an answer is kept back at most."""

MOST = 65_536
"""Keys of a table."""


class Lockouts:
    """`limit`: failures; 0 locks nobody.  Times are seconds of any clock that only ever grows."""

    def __init__(self, limit: int, most: int = MOST) -> None:
        self._limit = limit
        self._most = most
        self._failed: dict[bytes, tuple[int, float]] = {}  # how often, and until when that counts

    def __len__(self) -> int:
        return len(self._failed)

    def failed(self, key: bytes, now: float) -> int:
        """Once more; how often by now."""
        count, until = self._failed.pop(key, (0, 0.0))
        if now >= until:
            count, until = 0, now + WINDOW
        count += 1
        if count == self._limit:
            until = now + LOCK
        self._failed[key] = (count, until)
        self._forget(now)
        return count

    def failures(self, key: bytes, now: float) -> int:
        """How often it has failed, of what counts still."""
        count, until = self._failed.get(key, (0, 0.0))
        return count if now < until else 0

    def locked(self, key: bytes, now: float) -> bool:
        return 0 < self._limit <= self.failures(key, now)

    def all_locked(self, now: float) -> Iterator[tuple[bytes, int, float]]:
        """Those that are: key, failures, seconds that are left; in the order in which they failed last."""
        for key, (count, until) in self._failed.items():
            if 0 < self._limit <= count and now < until:
                yield key, count, until - now

    def forgive(self, key: bytes) -> None:
        """What it did counts no more."""
        self._failed.pop(key, None)

    def reconfigure(self, limit: int) -> None:
        """Another limit from now on; what has failed has failed."""
        self._limit = limit

    def _forget(self, now: float) -> None:
        """What counts no more, two at a time, so that the table shrinks; and what is too much."""
        for _ in range(2):
            oldest = next(iter(self._failed))
            if self._failed[oldest][1] > now and len(self._failed) <= self._most:
                return
            del self._failed[oldest]
            if not self._failed:
                return


def pause(failures: int) -> float:
    """Seconds to keep back the answer to the failure of this number: half a second, doubling."""
    return min(0.25 * 2.0 ** min(failures, 10), LONGEST) if failures else 0.0
