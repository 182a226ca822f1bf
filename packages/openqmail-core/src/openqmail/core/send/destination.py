"""What is known of one destination, and how much of it that allows.  Pure.

As in Postfix's scheduler, a stranger gets `OPENING` deliveries at once; a window's worth of
successes adds one, up to the limit, and a failure of the whole host takes one away.  After
`FAILURES` of them in a row it rests: nothing is tried for a while, each time about twice as long
as before, and at an odd moment.  Then one delivery probes it, and a success opens it again.

A success is an answer that decides: 550 for a recipient as much as 250, since a host that refuses mail
for good is well.  What is put off (450) neither opens nor widens it, nor does it count as a failure.

It is `quick` while a delivery takes it less than `SLOW` seconds, as far as is known; what is not may
hold only a part of the slots (see `fairness`).
"""

from collections import deque
from heapq import heappop
from random import Random
from typing import Final

from openqmail.core.log.escaping import readable
from openqmail.core.ports import DestinationState
from openqmail.core.send.routing import domain_of

OPENING = 5
"""Deliveries at once to a stranger, and after a rest."""
FAILURES = 2
"""Failures in a row after which a host is left alone."""
LEAST, MOST = 60.0, 3600.0
"""Seconds of the shortest and the longest rest."""
SPREAD = 1.5
"""So many times as long as meant may a rest be, drawn by lot, so that not all return at once."""
SLOW = 1.0
"""Seconds that a delivery takes, smoothed; from half of that on it is quick again."""

Item = tuple[int, bytes]
"""Position in the envelope and address as routed."""


class Line:
    """One message's recipients at one destination; from `taken` on they wait.  `urgent`: they are
    tried even while it rests, because somebody asked for it."""

    __slots__ = ("group", "items", "number", "taken", "urgent")

    def __init__(self, number: int, items: list[Item], group: int, urgent: bool) -> None:
        self.number, self.items, self.group, self.urgent = number, items, group, urgent
        self.taken = 0

    @property
    def left(self) -> int:
        return len(self.items) - self.taken


_NO_LINES: Final[deque[Line]] = deque()
"""Of a destination for which nothing waits: an empty deque each would be most of its memory."""


class Destination:
    """`lines` wait with their details, `parked` as a number each (a heap, by birth, see `fairness`);
    `asked`: parked ones that are being loaded.  `told`: the message whose failure began its latest
    rest.  `place`: the round in which it stands, if it does.
    `proven`: its last word was no failure; `until`: when its rest ends (seconds UTC); `text`: its
    latest failure."""

    __slots__ = (
        "asked",
        "failures",
        "limit",
        "lines",
        "name",
        "parked",
        "place",
        "proven",
        "quick",
        "resting",
        "rests",
        "running",
        "seconds",
        "successes",
        "text",
        "told",
        "until",
    )

    def __init__(self, name: bytes, limit: int, proven: bool) -> None:
        self.name = name
        self.limit = limit
        self.running = self.asked = 0
        self.told = -1
        self.lines = _NO_LINES
        self.parked: list[int] = []
        self.place: deque[Destination] | None = None
        self.resting = False
        self.proven = self.quick = proven
        self.successes = self.failures = self.rests = self.until = 0
        self.seconds = 0.0
        self.text = b""

    # --- what waits -----------------------------------------------------------------------

    def add(self, line: Line) -> None:
        if self.lines is _NO_LINES:
            self.lines = deque()
        if line.urgent:
            self.lines.appendleft(line)
        else:
            self.lines.append(line)

    def draw(self, random: Random, mask: int) -> int:
        """A parked number (under `mask`), taken out by lot; `told` only if there is no other: a host that
        fails for some messages alone must not be judged by these for ever."""
        parked = self.parked
        at = random.randrange(len(parked))
        if parked[at] & mask == self.told:
            at = (at + 1) % len(parked)
        entry = parked[at]
        while at:  # its ancestors move down a step, so it goes as the least would
            above = (at - 1) >> 1
            parked[at] = parked[above]
            at = above
        heappop(parked)
        return entry & mask

    @property
    def startable(self) -> bool:
        """Something waits that may be started now."""
        lines = self.lines
        return bool(lines) and self.running < self.limit and (not self.resting or lines[0].urgent)

    @property
    def idle(self) -> bool:
        return not (self.running or self.lines or self.parked or self.asked)

    @property
    def holding(self) -> bool:
        """What comes now is not to stand in line: it rests, or its probe is under way."""
        return self.resting or (self.rests > 0 and bool(self.running or self.lines))

    # --- what its deliveries tell -----------------------------------------------------------

    def succeeded(self, each: int, seconds: float) -> None:
        """A delivery of so many seconds got its answer; `each`: the most at once."""
        if not self.proven:
            self._open(each, seconds)
            return
        self.seconds += (seconds - self.seconds) / 4
        self.failures = 0
        if self.limit < each:
            self.successes += 1
            if self.successes >= self.limit:
                self.limit += 1
                self.successes = 0

    def lags(self, count: int, seconds: float) -> bool:
        """Whether it would be slow if so many deliveries, begun so long ago, ended now."""
        smoothed = seconds - (seconds - self.seconds) * 0.75**count
        if smoothed <= SLOW:
            return False
        self.seconds = smoothed
        return True

    def _open(self, each: int, seconds: float) -> None:
        self.proven = True
        self.resting = False
        self.rests = self.failures = self.successes = self.until = 0
        self.limit = min(OPENING, each)
        self.seconds = seconds

    def failed(self, text: bytes) -> bool:
        """The whole host failed; whether it is to rest now."""
        self.text = text
        if self.resting:
            return False
        self.failures += 1
        self.successes = 0
        self.limit = max(1, self.limit - 1)
        return self.failures >= FAILURES

    def rest(self, now: float, random: Random, told: int) -> None:
        """Leave it alone from now on, for longer than the last time; `told`: the message that failed."""
        self.told = told
        pause = min(LEAST * 2.0 ** min(self.rests, 32), MOST / SPREAD)
        self.rests += 1
        self.until = int(now + pause * random.uniform(1.0, SPREAD)) + 1
        self.resting = True
        self.proven = False
        self.limit = 1

    def forgive(self, each: int) -> None:
        """It counts as one that nobody has tried yet."""
        self.resting = False
        self.limit = min(OPENING, each)
        self.rests = self.failures = self.until = 0

    def state(self) -> DestinationState:
        return DestinationState(
            readable(domain_of(self.name)),
            self.running,
            self.limit,
            len(self.lines) + len(self.parked) + self.asked,
            self.failures,
            self.until if self.resting else None,
            readable(self.text) if self.failures else None,
        )
