"""Time, as a seam: what day it is, and how long something took."""

import time
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since the epoch, UTC; may jump when an administrator sets the clock."""
        ...

    def monotonic(self) -> float:
        """Seconds that only ever grow, for time-outs."""
        ...


class SystemClock:
    """The kernel's clocks."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


class SimulatedClock:
    """Time that passes only when told to."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._now = now
        self._passed = 0.0

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._passed

    def advance(self, seconds: float) -> None:
        self._now += seconds
        self._passed += seconds

    def set(self, now: float) -> None:
        """As an administrator sets it: what passed stays the same."""
        self._now = now
