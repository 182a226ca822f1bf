"""The leases of one counter that a client of the gate has, and who waits for some.  Pure.

They are asked for together: the gate gives as many as there are, and they are handed out in the
order in which they were wanted.  Only those for whom it was asked are refused by its answer.
"""

from asyncio import Future
from collections import deque


class Batch:
    """The leases of one counter.  `size`: how many shall be at hand, 0 for none; `ahead`: how many may
    be, by the gate's last word.  `held`: leased from the gate, of which `left` are not in use."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.ahead = size
        self.held = 0
        self.left = 0
        self.waiting: deque[tuple[int, Future[bool]]] = deque()
        self.asking = False
        self.asked = 0
        """For how many of those who wait, the first ones, the gate is being asked."""

    @property
    def used(self) -> int:
        return self.held - self.left

    def need(self) -> int:
        """How many are missing for those who wait."""
        wanted = sum(count for count, answer in self.waiting if not answer.done())
        return max(0, wanted - self.left)

    def hand_out(self) -> None:
        while self.waiting and (self.waiting[0][0] <= self.left or self.waiting[0][1].done()):
            count, answer = self._first()
            if not answer.done():
                self.left -= count
                answer.set_result(True)

    def refuse(self) -> None:
        """Those for whom the gate was asked, as far as what is left does not do."""
        while self.asked:
            settle(self._first()[1], False)
            self.hand_out()

    def _first(self) -> "tuple[int, Future[bool]]":
        self.asked = max(0, self.asked - 1)
        return self.waiting.popleft()


def settle(answer: "Future[bool] | None", yes: bool) -> None:
    """The answer, unless nobody waits for it any more."""
    if answer is not None and not answer.done():
        answer.set_result(yes)
