"""Whose turn it is: the recipients that wait for a slot of one channel.

Slots go round over destinations (domains), and within a destination over messages, a batch
each time; a destination that has its limit in use, or rests, stands outside the round until that
is over.  So neither a flood to one host nor one big message keeps others waiting, and a start
costs the same however much waits.

Destinations of which nothing good is known (strangers), and slow ones, have rounds of their own, and
all of them together at most three quarters of the slots: however many dead hosts there are, quick
ones find a free slot.  Strangers go before slow ones, most of them being quick; but every fourth of
these slots goes to a slow one first.  A stranger gets a second slot only while they all hold less
than a quarter: many dead ones do not keep many new ones waiting.

A quick one need not end a delivery to become slow: what is under way too long counts as if it ended now.
And only one that has earned more than what opens gets a second slot in the last quarter, since one quick
answer is no leave to hold them all.

A destination keeps details of only so many messages; the numbers of further ones are parked,
and handed back in `recalled` when their turn comes near: the oldest first, but by lot where nothing good
is known of the host.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heappush
from random import Random

from openqmail.core.ports import DestinationState
from openqmail.core.send.destination import OPENING, SLOW, Destination, Item, Line

__all__ = ["WAITING", "FairQueue", "Item"]

WAITING = 1000
"""How many messages may wait for one destination with their details in memory."""

WAITING_SLOW = 100
"""And for one that is not quick."""

KEPT = 10_000
"""How many destinations are remembered when nothing waits for them."""

PROBED = 30
"""Seconds that a probe may take before a message that waits for several hosts is looked at again."""

_NUMBER = 64
_MASK = (1 << _NUMBER) - 1


class FairQueue:
    """One channel.  `limit`: slots in all; `each`: slots a destination.  `paced`: destinations are
    other hosts, and have as much of `each` as they have earned.  `random`: of what is drawn by lot.

    `round`, `strange`, `slow`: the destinations that might use a slot, empty when there is nothing to
    start; `others`: slots that such as are not quick hold, at most `part`."""

    def __init__(self, limit: int, each: int, random: Random, *, paced: bool = False) -> None:
        self.limit = limit
        self.each = each
        self.paced = paced
        self._random = random
        self.part, self._few = _parts(limit)
        self._opening = min(OPENING, each)
        self.running = 0
        self.others = 0
        self.parked = 0
        self.recalled: list[tuple[int, bytes]] = []
        self.rests: list[tuple[int, bytes]] = []
        """A heap: when the rest of which destination ends; it may have ended before."""
        self.round: deque[Destination] = deque()
        self.strange: deque[Destination] = deque()
        self.slow: deque[Destination] = deque()
        self._destinations: dict[bytes, Destination] = {}
        self._others_next = False
        self._turn = 0

    def resize(self, limit: int, each: int) -> None:
        """New limits; what runs beyond them ends in its own time."""
        self.limit, self.each = limit, each
        self.part, self._few = _parts(limit)
        self._opening = min(OPENING, each)
        for line in (self.round, self.strange, self.slow):
            line.clear()
        for destination in self._destinations.values():
            destination.place = None
            destination.limit = min(destination.limit, each) if self.paced else each
            self._settle(destination)

    # --- what comes -----------------------------------------------------------------------

    def add(self, number: int, name: bytes, items: list[Item], group: int, *, urgent: bool = False) -> None:
        """Recipients of a message for the destination `name`, at most `group` a batch."""
        destination = self._destinations.get(name) or self._new(name)
        destination.add(Line(number, items, group, urgent))
        self._settle(destination)

    def take_at_once(self, name: bytes) -> bool:
        """A slot at `name` for a batch that was not added: when one is free and nobody waits for it."""
        if self.running >= self.limit:
            return False
        destination = self._destinations.get(name) or self._new(name)
        if destination.lines or destination.parked or destination.running >= destination.limit:
            return False
        if destination.quick:
            if self.round or (self.running >= self.part and self._enough(destination)):
                return False
        else:
            if self.strange or self.slow or self.others >= self.part:
                return False
            if destination.resting or self._enough(destination):
                return False
            self.others += 1
        destination.running += 1
        self.running += 1
        return True

    def congested(self, name: bytes) -> bool:
        """Whether a further message for `name`, which it does not hold, should be parked."""
        destination = self._destinations.get(name)
        if destination is None or destination.holding:
            return False
        most = WAITING if destination.quick else WAITING_SLOW
        return len(destination.lines) >= most or bool(destination.parked)

    def holds(self, name: bytes) -> bool:
        """Whether nothing more of `name` should be tried just now: it rests, or is being probed."""
        destination = self._destinations.get(name)
        return destination is not None and destination.holding

    def park(self, number: int, name: bytes, birth: int) -> None:
        """Keep only the number, behind older ones."""
        destination = self._destinations.get(name) or self._new(name)
        heappush(destination.parked, birth << _NUMBER | number)
        self.parked += 1
        self._recall(destination)

    def arrived(self, name: bytes) -> None:
        """A recalled message of this destination was loaded (or is no longer there)."""
        destination = self._destinations[name]
        destination.asked -= 1
        self._recall(destination)
        self._settle(destination)

    # --- slots ----------------------------------------------------------------------------

    def take(self) -> tuple[int, bytes, list[Item]] | None:
        """A slot for the next batch (message, destination, recipients), if there is one free."""
        destination = self._next()
        if destination is None:
            return None
        line = destination.lines.popleft()
        batch = line.items
        if line.taken or len(batch) > line.group:
            batch = batch[line.taken : line.taken + line.group]
            line.taken += line.group
            if line.left > 0:
                destination.add(line)
        destination.running += 1
        self.running += 1
        if not destination.quick:
            self.others += 1
        self._settle(destination)
        if destination.parked:
            self._recall(destination)
        return line.number, destination.name, batch

    def _next(self) -> Destination | None:
        """Whose turn it is, taken out of its round; quick ones and the others have theirs in turn."""
        while self.running < self.limit:
            others = self.others < self.part and bool(self.strange or self.slow)
            if self.round and not (others and self._others_next):
                destination = self.round.popleft()
                self._others_next = True
            elif others:
                self._turn += 1
                slow_first = self.slow and (not self.strange or self._turn % 4 == 0)
                destination = (self.slow if slow_first else self.strange).popleft()
                self._others_next = False
            else:
                break
            destination.place = None
            if destination.startable and not self._enough(destination):  # it was when it came into line
                return destination
        return None

    def release(self, name: bytes) -> None:
        """A slot of this destination is free again."""
        destination = self._destinations[name]
        destination.running -= 1
        self.running -= 1
        if not destination.quick:
            self.others -= 1
        if destination.lines:
            self._settle(destination)
        elif destination.rests:
            self._recall(destination)

    # --- what is learnt of a destination ----------------------------------------------------

    def succeeded(self, name: bytes, seconds: float) -> bool:
        """A delivery that took so long got its answer; its slot is free again.  True: for the first time
        since a rest."""
        destination = self._destinations[name]
        rested = destination.rests > 0
        destination.succeeded(self.each, seconds)
        if destination.quick:
            if destination.seconds > SLOW:
                self._change(destination)
        elif destination.seconds <= SLOW / 2:
            self._change(destination)
        self.release(name)
        if destination.parked:
            self._recall(destination)
        return rested and not destination.rests

    def late(self, name: bytes, count: int, seconds: float) -> None:
        """So many of what it has under way take longer than `SLOW` already, the first of them `seconds`: when
        they are half of it, they count as if they ended now."""
        destination = self._destinations[name]
        half = destination.proven and 2 * count >= destination.running
        if half and destination.lags(count, seconds) and destination.quick:
            self._change(destination)

    def answered(self, name: bytes) -> None:
        """The host spoke, only not well of the message; the slot is free again."""
        destination = self._destinations[name]
        if not destination.rests:
            destination.failures = 0
        self.release(name)

    def failed(self, name: bytes, text: bytes) -> bool:
        """The whole host failed; the slot is free again.  True: it is to `rest`."""
        resting = self._destinations[name].failed(text)
        self.release(name)
        return resting

    def rest(self, name: bytes, now: float, told: int) -> list[tuple[int, list[Item]]]:
        """Leave it alone, as message `told` failed; what was in line and is no longer: messages, and the
        recipients of each."""
        destination = self._destinations[name]
        destination.rest(now, self._random, told)
        heappush(self.rests, (destination.until, name))
        if destination.quick:
            self._change(destination)
        withdrawn = [(line.number, line.items[line.taken :]) for line in destination.lines if not line.urgent]
        if withdrawn:
            destination.lines = deque(line for line in destination.lines if line.urgent)
        return withdrawn

    def resume(self, now: float) -> None:
        """Where the rest is over, one delivery may probe the host."""
        while self.rests and self.rests[0][0] <= now:
            destination = self._destinations.get(heappop(self.rests)[1])
            if destination is not None and destination.resting and destination.until <= now:
                destination.resting = False
                self._recall(destination)
                self._settle(destination)

    def forgive(self) -> None:
        """No destination rests any longer."""
        for destination in self._destinations.values():
            if destination.rests:
                destination.forgive(self.each)
                self._recall(destination)
                self._settle(destination)

    def born_before(self, name: bytes, birth: int) -> Iterator[int]:
        """Those parked that are older, taken out."""
        parked = self._destinations[name].parked
        while parked and parked[0] >> _NUMBER < birth:
            self.parked -= 1
            yield heappop(parked) & _MASK

    def resting_until(self, name: bytes) -> int:
        """When the rest of this destination ends; 0 when it does not rest."""
        destination = self._destinations.get(name)
        return destination.until if destination is not None and destination.resting else 0

    def again(self, names: Iterable[bytes], now: int) -> int:
        """When the first of these may be tried, or is worth another look."""
        return min(self.resting_until(name) or now + (PROBED if self.holds(name) else 1) for name in names)

    def resting(self) -> dict[bytes, int]:
        """Those that rest, and until when."""
        return {name: each.until for name, each in self._destinations.items() if each.resting}

    def last_failure(self, name: bytes) -> bytes:
        """What it said."""
        return self._destinations[name].text

    def state(self, name: bytes) -> DestinationState | None:
        """None: nothing is known of it."""
        destination = self._destinations.get(name)
        return None if destination is None else destination.state()

    # --- what is taken away -----------------------------------------------------------------

    def withdraw(self, numbers: frozenset[int]) -> None:
        """Forget what of these messages waits or is parked; slots in use stay so."""
        for number, name in self.recalled:
            if number in numbers:
                self._destinations[name].asked -= 1
        self.recalled = [entry for entry in self.recalled if entry[0] not in numbers]
        for destination in self._destinations.values():
            if any(line.number in numbers for line in destination.lines):
                destination.lines = deque(line for line in destination.lines if line.number not in numbers)
            if any(entry & _MASK in numbers for entry in destination.parked):
                left = [entry for entry in destination.parked if entry & _MASK not in numbers]
                self.parked -= len(destination.parked) - len(left)
                heapify(left)
                destination.parked = left
            self._recall(destination)

    # --- inside -----------------------------------------------------------------------------

    def _new(self, name: bytes) -> Destination:
        """One more, in the place of an old one when there are many."""
        destinations = self._destinations
        for _ in range(2):  # so that many busy ones at the front do not let it grow
            if len(destinations) < KEPT:
                break
            oldest = next(iter(destinations))
            old = destinations.pop(oldest)
            if not old.idle:
                destinations[oldest] = old
        limit = self._opening if self.paced else self.each
        made = Destination(name, limit, proven=not self.paced)
        destinations[name] = made
        return made

    def _recall(self, destination: Destination) -> None:
        """Ask for parked ones before the lines run dry; of one that is only being probed, for one."""
        if not destination.parked or destination.resting:
            return
        if destination.rests:
            room = 1 - len(destination.lines) - destination.asked - destination.running
        else:
            most = WAITING if destination.quick else WAITING_SLOW
            room = most // 2 - len(destination.lines) - destination.asked
        while room > 0 and destination.parked:
            if destination.proven:
                number = heappop(destination.parked) & _MASK
            else:
                number = destination.draw(self._random, _MASK)
            self.recalled.append((number, destination.name))
            self.parked -= 1
            destination.asked += 1
            room -= 1

    def _settle(self, destination: Destination) -> None:
        """Put it into its round, if it can use a slot."""
        if destination.place is None and destination.startable and not self._enough(destination):
            others = self.slow if destination.proven else self.strange
            destination.place = self.round if destination.quick else others
            destination.place.append(destination)

    def _enough(self, destination: Destination) -> bool:
        """It has a slot, and has not earned another while so few are free: until it frees a slot."""
        if not destination.running:
            return False
        if not destination.proven:
            return self.others >= self._few
        return (
            self.running >= self.part
            and destination.quick
            and self.paced
            and destination.limit <= self._opening
        )

    def _change(self, destination: Destination) -> None:
        """Quick from now on, or no longer."""
        if destination.place is not None:
            destination.place.remove(destination)
            destination.place = None
        destination.quick = not destination.quick
        self.others += -destination.running if destination.quick else destination.running
        self._settle(destination)


def _parts(limit: int) -> tuple[int, int]:
    """Of so many slots, those that strangers and slow ones may hold; and those that strangers may hold
    with more than one each."""
    quarter = max(1, limit // 4)
    return limit - quarter if limit > 1 else limit, quarter
