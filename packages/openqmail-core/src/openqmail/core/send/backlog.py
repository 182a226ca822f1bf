"""Messages of which the send manager knows the number alone: those that wait for their time, those
that were asked for from the queue, and those that a destination has recalled.  Pure.

A message goes round: `add`; `load` asks for it when it is due and there is room; `came` takes it
out.  Who recalled it is told when it `arrived`, whatever became of it.
"""

from collections.abc import Container
from random import Random

import msgspec

from openqmail.core.send.events import Load, WakeAt
from openqmail.core.send.fairness import FairQueue
from openqmail.core.send.schedule import DueTimes

LOADS = 100
"""Messages asked for from the queue at once."""


class Came(msgspec.Struct, frozen=True, gc=False):
    """Of a message that was asked for: whether all that is left of it is due, whether it is tried even
    where a destination rests, and whether it is to be let go."""

    all_due: bool
    urgent: bool
    wanted: bool


class Backlog:
    """`random`: of what is drawn by lot."""

    def __init__(self, random: Random) -> None:
        self.due = DueTimes(random)
        self._loading: dict[int, bool] = {}
        """Those asked for, and whether all that is left of them is due."""
        self._wanted: set[int] = set()
        """Those among them that are to be let go."""
        self._urgent: set[int] = set()
        self._recalled: dict[int, tuple[FairQueue, bytes]] = {}
        self._wake_at: int | None = None

    def __len__(self) -> int:
        return len(self.due) + len(self._loading)

    # --- in and out -----------------------------------------------------------------------

    def add(self, number: int, due: int, *, urgent: bool = False) -> None:
        """It waits until `due` (seconds UTC; 0: all of it now)."""
        if urgent:
            self._urgent.add(number)
        self.due.add(number, due)

    def recall(self, queue: FairQueue) -> None:
        """What was parked there, and whose turn comes near, is due now."""
        for number, destination in queue.recalled:
            self._recalled[number] = queue, destination
            self.due.add(number, 0)
        queue.recalled.clear()

    def is_recalled(self, number: int) -> bool:
        return number in self._recalled

    def came(self, number: int) -> Came | None:
        """It is there, or cannot be had; None when it was not asked for."""
        all_due = self._loading.pop(number, None)
        if all_due is None:
            return None
        came = Came(all_due, number in self._urgent, number in self._wanted)
        self._urgent.discard(number)
        self._wanted.discard(number)
        return came

    def arrived(self, number: int) -> None:
        """If it was recalled, its destination may recall another."""
        recall = self._recalled.pop(number, None)
        if recall is not None:
            queue, destination = recall
            queue.arrived(destination)

    def withdraw(self, numbers: frozenset[int]) -> None:
        """These wait no more; what was asked for still comes."""
        self.due.withdraw(numbers)
        self._urgent -= numbers

    def lets_go(self, number: int) -> bool:
        """Whether a message that was withdrawn is free at once; else it will be `wanted` when it comes."""
        if number in self._loading:
            self._wanted.add(number)
            return False
        self.arrived(number)
        return True

    # --- time -----------------------------------------------------------------------------

    def load(self, now: float, room: int, active: Container[int], first: int | None) -> list[Load | WakeAt]:
        """Ask for what is due, but no more than `room` at once and nothing that is `active`; else for a
        call when something is, or at `first`."""
        out: list[Load | WakeAt] = []
        loading = self._loading
        while len(loading) < min(LOADS, room):
            due = self.due.take(now)
            if due is None:
                break
            number, all_due = due
            if number in active:
                self.arrived(number)
            elif number not in loading:
                loading[number] = all_due
                out.append(Load(number))
        then = self.due.next()
        if first is not None and (then is None or first < then):
            then = first
        if then is not None and then > now and (self._wake_at is None or then < self._wake_at):
            self._wake_at = then
            out.append(WakeAt(then))
        return out

    def woke(self) -> None:
        """The call has come."""
        self._wake_at = None
