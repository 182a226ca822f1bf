"""A child as the supervisor has it: its pid, its channel, and what it has told about itself."""

from openqmail.core.service.frames.blocking import BlockingChannel
from openqmail.core.service.supervisor.legacy import ChildLeft
from openqmail.core.service.supervisor.machine import ChildState, Role


class Running:
    """`work`: what it has in hand; `workers`: pid and uid of each that it has started."""

    def __init__(self, role: Role, generation: int, pid: int, uid: int, channel: BlockingChannel) -> None:
        self.role, self.generation, self.pid, self.uid, self.channel = role, generation, pid, uid, channel
        self.work = 0
        self.workers: tuple[tuple[int, int], ...] = ()
        self.silent = False
        """Its channel has ended, and it will, too."""
        self.given_up = False
        """It has been killed, for what it said or did not hear."""

    def left(self, number: int, state: ChildState) -> ChildLeft:
        """As another program in this process needs to know it."""
        descriptor, greeted = self.channel.fileno(), self.channel.greeted
        return ChildLeft(number, self.role, self.generation, state, self.pid, self.uid, descriptor, greeted)
