"""What a client of the gate has spent of rates ahead: so much a key may have without a question.  Pure.

A key that is asked for a second time is likely to be asked for again, so then some are spent ahead; one that
comes once costs a question and leaves nothing behind.  Those asked for longest ago are given back, so that
nothing is taken from a key for which nobody uses it.
"""

from collections.abc import Iterator

Name = tuple[bytes, bytes]
"""A rate, and a key of it."""


class Purses:
    """`size`: how many are spent ahead at a time; `most`: keys of all rates that are remembered."""

    def __init__(self, size: int, most: int) -> None:
        self._size = size
        self._most = most
        self._left: dict[Name, int] = {}  # the last used last
        self._asking: set[Name] = set()

    def take(self, name: Name, count: int) -> bool:
        """Take so many of what is at hand; False, and nothing is taken, where there are fewer."""
        left = self._left.pop(name, None)
        if left is None:
            return False
        enough = left >= count
        self._left[name] = left - count if enough else left
        return enough

    def wanted(self, name: Name) -> int:
        """How many to ask for ahead, along with what is not at hand; `put` is told how many there were."""
        if name not in self._left:
            self._left[name] = 0
            return 0
        if name in self._asking:
            return 0
        self._asking.add(name)
        return self._size

    def put(self, name: Name, count: int) -> None:
        """So many were spent ahead."""
        self._asking.discard(name)
        self._left[name] = self._left.get(name, 0) + count

    def surplus(self) -> Iterator[tuple[Name, int]]:
        """What is to be given back, because too many keys have come since."""
        while len(self._left) > self._most:
            name = next(iter(self._left))
            if count := self._left.pop(name):
                yield name, count

    def end(self) -> Iterator[tuple[Name, int]]:
        """Spend nothing ahead any more; all is to be given back."""
        self._size = self._most = 0
        return self.surplus()
