"""What the send manager has seen, counted: integers that only grow while a process lives."""

from bisect import bisect_left

from openqmail.core.values import Outcome
from openqmail.core.values.address import Channel

BOUNDS = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 86400, 3 * 86400, 7 * 86400)
"""Seconds: up to each of these, and above the last, messages are counted that were so long in the queue."""


class Tally:
    """`accepted`: messages, those that bounce included; `bounces`: bounces that were queued; `deliveries`: by
    channel and outcome; `in_queue`: ended messages between two bounds, one more than there are bounds;
    `seconds`: that they were in the queue, all together."""

    __slots__ = ("accepted", "bounces", "deliveries", "in_queue", "seconds")

    def __init__(self) -> None:
        self.accepted = self.bounces = self.seconds = 0
        self.deliveries: dict[Channel, dict[Outcome, int]] = {
            "local": dict.fromkeys(Outcome, 0),
            "remote": dict.fromkeys(Outcome, 0),
        }
        self.in_queue = [0] * (len(BOUNDS) + 1)

    def waited(self, seconds: int) -> None:
        """A message has ended that was so long in the queue; a clock that was set back makes it none."""
        seconds = max(seconds, 0)
        self.in_queue[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds
