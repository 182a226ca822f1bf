"""The gate of a service that is one process: counters, each with its limit.

`lease` takes at once or refuses; it never waits.  A counter without a limit is counted but never
refused.  Nothing is kept for a counter whose leases have all come back, so counters named after
clients do not add up.
"""

from collections.abc import Mapping


class LocalGate:
    """Serves the port `Gate`; `limits` says how much each counter has to give."""

    def __init__(self, limits: Mapping[bytes, int]) -> None:
        self._limits = dict(limits)
        self._taken: dict[bytes, int] = {}

    def lease(self, counter: bytes, count: int = 1) -> bool:
        """Take `count` of what `counter` still has to give; False when that is too much."""
        taken = self._taken.get(counter, 0) + count
        limit = self._limits.get(counter)
        if limit is not None and taken > limit:
            return False
        self._taken[counter] = taken
        return True

    def release(self, counter: bytes, count: int = 1) -> None:
        """Give back what was leased; giving back more than that is the caller's error."""
        left = self._taken.get(counter, 0) - count
        if left < 0:
            raise ValueError(f"{count} of {counter!r} given back, but fewer are leased")
        if left:
            self._taken[counter] = left
        else:
            self._taken.pop(counter, None)

    def taken(self, counter: bytes) -> int:
        """How much is leased now."""
        return self._taken.get(counter, 0)

    def reconfigure(self, limits: Mapping[bytes, int]) -> None:
        """New limits; what is leased stays leased, also where it is now over the limit."""
        self._limits = dict(limits)
