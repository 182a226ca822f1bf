"""What goes wrong on a simulated disk: ordered by a test, or drawn by lot."""

import errno
from collections import Counter
from collections.abc import Callable
from random import Random

import msgspec

from openqmail.core.world.simulated.power import PowerCut


class FailedSync(msgspec.Struct):
    """An order for syncs that are to fail: of what, and how many more.

    `reached`: whether some of what was to be synced is on the disk all the same."""

    suffix: bytes
    times: int
    error: int
    reached: bool


class Faults:
    """To be read and set at any time.

    `calls`: how many there were; `counts`: of each kind.  `stop_at`: the number of the call from
    which on every call raises PowerCut; a write that is stopped may be there in part.
    `on_power_cut` is told of the first.  `sync_failures`: the share of syncs that fail by lot."""

    def __init__(self, random: Random, sync_failures: float = 0.0) -> None:
        self.calls = 0
        self.counts: Counter[str] = Counter()
        self.stop_at: int | None = None
        self.on_power_cut: Callable[[PowerCut], None] | None = None
        self.sync_failures = sync_failures
        self._random = random
        self._orders: list[FailedSync] = []

    def fail_sync(
        self, suffix: bytes = b"", times: int = 1, error: int = errno.EIO, *, reached: bool = False
    ) -> None:
        """Let the next syncs fail of files and folders whose path ends so (`/`: of the file system
        as a whole; an empty suffix: of anything).  What they were to sync is not on the disk and
        never will be, though it looks so; or, when `reached`, as much of it as is drawn."""
        self._orders.append(FailedSync(suffix, times, error, reached))

    # --- asked by the disk ------------------------------------------------------------

    def call(self, what: str) -> bool:
        """A call is made; False when it is the one in which the power is cut.

        Raises PowerCut for those after it."""
        self.calls += 1
        self.counts[what] += 1
        if self.stop_at is None or self.calls < self.stop_at:
            return True
        if self.calls > self.stop_at:
            raise self.power_cut(what)
        return False

    def power_cut(self, what: str) -> PowerCut:
        """To be raised."""
        cut = PowerCut(f"the power was cut in call {self.stop_at}; this is call {self.calls}, {what}")
        if self.on_power_cut is not None:
            tell, self.on_power_cut = self.on_power_cut, None
            tell(cut)
        return cut

    def sync(self, path: bytes) -> FailedSync | None:
        """Whether this sync fails."""
        for order in self._orders:
            if path.endswith(order.suffix):
                order.times -= 1
                if not order.times:
                    self._orders.remove(order)
                return order
        if self.sync_failures and self._random.random() < self.sync_failures:
            return FailedSync(b"", 1, errno.EIO, True)
        return None
