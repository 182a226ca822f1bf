"""When to try again: qmail's formula, and the messages that wait for their time.

The n-th attempt of a message comes about (n·c)² seconds after its birth, c being 10 for local
and 20 for remote recipients: often at first, then ever more seldom (qmail-send's `nextretry`).
A waiting message is one integer here, so a million of them are a heap of integers.
"""

from collections import deque
from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from math import isqrt
from random import Random

from openqmail.core.values.address import Channel

_NUMBER = 64
_MASK = (1 << _NUMBER) - 1


def next_try(birth: int, now: int, channel: Channel) -> int:
    """When a recipient that was tried at `now` is tried next."""
    age = now - birth
    steps = (isqrt(age) if age > 0 else 0) + (10 if channel == "local" else 20)
    return birth + steps * steps


def last_try(birth: int, due: int, channel: Channel) -> int:
    """When a recipient that is tried next at `due` was last tried, as far as the schedule tells: the
    second when the number of its steps began.  Before `birth` when it never was."""
    age = due - birth
    steps = (isqrt(age) if age > 0 else 0) - (10 if channel == "local" else 20)
    return birth + steps * steps if steps >= 0 else birth - 1


class DueTimes:
    """Numbers of messages by the time when the first of their recipients is due; those of which
    all are due at once stand in a line.

    `ready`: that line; `heap`: the others, an entry each being its time and its number."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.ready: deque[int] = deque()
        self.heap: list[int] = []

    def __len__(self) -> int:
        return len(self.ready) + len(self.heap)

    def __iter__(self) -> Iterator[int]:
        yield from self.ready
        for entry in self.heap:
            yield entry & _MASK

    def add(self, number: int, due: int) -> None:
        """`due` 0: all of it now, behind those of which that is so already."""
        if due > 0:
            heappush(self.heap, (due << _NUMBER) | number)
        else:
            self.ready.append(number)

    def take(self, now: float) -> tuple[int, bool] | None:
        """The next one whose time has come, and whether all of it is due."""
        if self.ready:
            return self.ready.popleft(), True
        if self.heap and (self.heap[0] >> _NUMBER) <= now:
            return heappop(self.heap) & _MASK, False
        return None

    def withdraw(self, numbers: frozenset[int]) -> None:
        """Forget these, wherever they are."""
        if not numbers.isdisjoint(self.ready):
            self.ready = deque(number for number in self.ready if number not in numbers)
        left = [entry for entry in self.heap if entry & _MASK not in numbers]
        if len(left) < len(self.heap):
            heapify(left)
            self.heap = left

    def next(self) -> int | None:
        """When the first one is due; None when none waits.  Those due at once do not count."""
        return self.heap[0] >> _NUMBER if self.heap else None

    def flush(self) -> int:
        """All are due now; how many.  Their order is drawn by lot, so that a long run of
        messages to one dead host does not stand in front of everybody else's."""
        numbers = [entry & _MASK for entry in self.heap]
        self.heap.clear()
        self._random.shuffle(numbers)
        self.ready.extend(numbers)
        return len(numbers)
