"""Token buckets, one a key: so many an hour, and after a pause all of them at once.  Pure.

What is kept of a bucket is one number, the moment when it will be full again (the generic cell
rate algorithm of ITU-T I.371): a key whose bucket is full is forgotten, and the table is bounded.
Beyond the bound the key that was asked for longest ago goes: it is let off what it has spent,
so whoever has more networks than the table has places is not held by it.
"""

HOUR = 3600
"""Seconds."""

MOST = 65_536
"""Keys of a table; about ten MiB of memory."""

_NANO = 1_000_000_000


class Buckets:
    """`rate`: tokens an hour for each key, and the most that a bucket holds; 0 sets no limit.

    Times are seconds of any clock that only ever grows."""

    def __init__(self, rate: int, most: int = MOST) -> None:
        self._rate = rate
        self._most = most
        self._full_at: dict[bytes, int] = {}  # nanoseconds, so that nothing adds up; the oldest first

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, key: bytes, count: int, now: float) -> bool:
        """Take so many tokens of a key; False, and nothing is taken, where there are fewer."""
        if not self._rate:
            return True
        moment = int(now * _NANO)
        each = HOUR * _NANO // self._rate
        full_at = max(self._full_at.get(key, 0), moment) + count * each
        if full_at - moment > self._rate * each:
            return False
        self._full_at.pop(key, None)
        self._full_at[key] = full_at
        self._forget(moment)
        return True

    def room(self, key: bytes, now: float) -> int | None:
        """How many tokens a key has; None without a limit."""
        if not self._rate:
            return None
        each = HOUR * _NANO // self._rate
        return self._rate - -(-max(0, self._full_at.get(key, 0) - int(now * _NANO)) // each)

    def give(self, key: bytes, count: int, now: float) -> None:
        """Give back tokens that were taken and not used; a bucket that is full stays so."""
        if self._rate and key in self._full_at:
            self._full_at[key] -= count * (HOUR * _NANO // self._rate)
            if self._full_at[key] <= now * _NANO:
                del self._full_at[key]

    def reconfigure(self, rate: int) -> None:
        """Another rate from now on; who had spent half of the old one has half of the new."""
        self._rate = rate
        if not rate:
            self._full_at.clear()

    def _forget(self, moment: int) -> None:
        """What is full again, two at a time, so that the table shrinks; and what is too much."""
        for _ in range(2):
            oldest = next(iter(self._full_at))
            if self._full_at[oldest] > moment and len(self._full_at) <= self._most:
                return
            del self._full_at[oldest]
            if not self._full_at:
                return
