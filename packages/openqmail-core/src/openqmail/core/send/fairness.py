"""Whose turn it is: the recipients that wait for a slot of one channel.

Slots go round over destinations (domains), and within a destination over messages, a batch
each time; a destination that has its limit in use stands outside the round until it frees a
slot.  So neither a flood to one host nor one big message keeps others waiting, and a start
costs the same however much waits.

A destination keeps details of only so many messages; the numbers of further ones are parked,
and handed back in `recalled` when their turn comes near.
"""

from collections import deque

WAITING = 1000
"""How many messages may wait for one destination with their details in memory."""

KEPT = 256
"""How many destinations are kept when nothing waits for them."""

Item = tuple[int, bytes]
"""Position in the envelope and address as routed."""


class _Line:
    """One message's recipients at one destination; from `taken` on they wait."""

    __slots__ = ("group", "items", "number", "taken")

    def __init__(self, number: int, items: list[Item], group: int) -> None:
        self.number, self.items, self.group, self.taken = number, items, group, 0


class _Destination:
    __slots__ = ("asked", "lines", "name", "parked", "ready", "running")

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.running = 0
        self.ready = False
        self.lines: deque[_Line] = deque()
        self.parked: deque[int] = deque()
        self.asked = 0


class FairQueue:
    """One channel.  `limit`: slots in all; `each`: slots a destination; `round`: the
    destinations that could use a slot, empty when there is nothing to start."""

    def __init__(self, limit: int, each: int) -> None:
        self.limit = limit
        self.each = each
        self.running = 0
        self.parked = 0
        self.recalled: list[tuple[int, bytes]] = []
        self._destinations: dict[bytes, _Destination] = {}
        self.round: deque[_Destination] = deque()

    def resize(self, limit: int, each: int) -> None:
        """New limits; what runs beyond them ends in its own time."""
        self.limit, self.each = limit, each
        self.round.clear()
        for destination in list(self._destinations.values()):
            destination.ready = False
            self._settle(destination)

    def add(self, number: int, name: bytes, items: list[Item], group: int) -> None:
        """Recipients of a message for the destination `name`, at most `group` a batch."""
        destination = self._destinations.get(name)
        if destination is None:
            destination = self._destinations[name] = _Destination(name)
        destination.lines.append(_Line(number, items, group))
        self._settle(destination)

    def take_at_once(self, name: bytes) -> bool:
        """A slot at `name` for a batch that was not added: when one is free and nobody waits for it."""
        if self.round or self.running >= self.limit:
            return False
        destination = self._destinations.get(name)
        if destination is None:
            destination = self._destinations[name] = _Destination(name)
        if destination.lines or destination.parked or destination.running >= self.each:
            return False
        destination.running += 1
        self.running += 1
        return True

    def take(self) -> tuple[int, bytes, list[Item]] | None:
        """A slot for the next batch (message, destination, recipients), if there is one free."""
        if self.running >= self.limit or not self.round:
            return None
        destination = self.round.popleft()
        line = destination.lines.popleft()
        batch = line.items
        if line.taken or len(batch) > line.group:
            batch = batch[line.taken : line.taken + line.group]
            line.taken += line.group
            if line.taken < len(line.items):
                destination.lines.append(line)
        destination.running += 1
        self.running += 1
        if destination.lines and destination.running < self.each:
            self.round.append(destination)
        else:
            destination.ready = False
        if destination.parked:
            self._recall(destination)
        return line.number, destination.name, batch

    def release(self, name: bytes) -> None:
        """A slot of this destination is free again."""
        destination = self._destinations[name]
        destination.running -= 1
        self.running -= 1
        if destination.lines or len(self._destinations) > KEPT:
            self._settle(destination)

    def congested(self, name: bytes) -> bool:
        """Whether a further message for `name` should be parked."""
        destination = self._destinations.get(name)
        return destination is not None and (len(destination.lines) >= WAITING or bool(destination.parked))

    def park(self, number: int, name: bytes) -> None:
        """Keep only the number, behind those that are parked already."""
        destination = self._destinations[name]
        destination.parked.append(number)
        self.parked += 1
        self._recall(destination)

    def arrived(self, name: bytes) -> None:
        """A recalled message of this destination was loaded (or is no longer there)."""
        destination = self._destinations[name]
        destination.asked -= 1
        self._recall(destination)
        self._settle(destination)

    def withdraw(self, numbers: frozenset[int]) -> None:
        """Forget what of these messages waits or is parked; slots in use stay so."""
        for number, name in self.recalled:
            if number in numbers:
                self._destinations[name].asked -= 1
        self.recalled = [entry for entry in self.recalled if entry[0] not in numbers]
        for destination in self._destinations.values():
            if any(line.number in numbers for line in destination.lines):
                destination.lines = deque(line for line in destination.lines if line.number not in numbers)
            if not numbers.isdisjoint(destination.parked):
                left = deque(number for number in destination.parked if number not in numbers)
                self.parked -= len(destination.parked) - len(left)
                destination.parked = left
            destination.ready = destination.ready and bool(destination.lines)
            self._recall(destination)
        self.round = deque(destination for destination in self.round if destination.lines)

    def _recall(self, destination: _Destination) -> None:
        """Ask for parked ones before the lines run dry."""
        room = WAITING // 2 - len(destination.lines) - destination.asked
        while room > 0 and destination.parked:
            self.recalled.append((destination.parked.popleft(), destination.name))
            self.parked -= 1
            destination.asked += 1
            room -= 1

    def _settle(self, destination: _Destination) -> None:
        """Put it where it belongs: in the round, outside of it, or away."""
        if destination.lines:
            if not destination.ready and destination.running < self.each:
                destination.ready = True
                self.round.append(destination)
        elif len(self._destinations) > KEPT and not (
            destination.running or destination.parked or destination.asked
        ):
            del self._destinations[destination.name]
