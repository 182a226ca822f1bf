"""A child as the supervisor has it: its pid, its channel, and what it has told about itself."""

import os
import socket
from collections.abc import Iterable, Iterator

from openqmail.core.service.figures import Numbers
from openqmail.core.service.frames import supervision as said
from openqmail.core.service.frames.blocking import BlockingChannel
from openqmail.core.service.status import resident
from openqmail.core.service.supervisor.legacy import ChildLeft
from openqmail.core.service.supervisor.machine import ChildState, Role


class Running:
    """`work`: what it has in hand; `workers`: pid and uid of each that it has started."""

    def __init__(self, role: Role, generation: int, pid: int, uid: int, channel: BlockingChannel) -> None:
        self.role, self.generation, self.pid, self.uid, self.channel = role, generation, pid, uid, channel
        self.work = 0
        self.workers: tuple[tuple[int, int], ...] = ()
        self.present: Numbers = ()
        """Its figures, of those that do not only grow."""
        self.silent = False
        """Its channel has ended, and it will, too."""
        self.given_up = False
        """It has been killed, for what it said or did not hear."""

    @classmethod
    def adopted(cls, one: ChildLeft) -> "Running":
        """A child of the program before."""
        end = socket.socket(fileno=one.channel)
        channel = BlockingChannel(end, said.from_child(one.role), descriptors=False, greeted=one.greeted)
        return cls(one.role, one.generation, one.pid, one.uid, channel)

    def lines(self) -> Iterator[said.Process]:
        """Of `status`: its own, and its workers'."""
        yield said.Process(self.role, self.pid, self.uid, self.generation, resident(self.pid), self.work)
        for pid, uid in self.workers:
            yield said.Process("worker", pid, uid, self.generation, resident(pid), 0)

    def left(self, number: int, state: ChildState) -> ChildLeft:
        """As another program in this process needs to know it."""
        descriptor, greeted = self.channel.fileno(), self.channel.greeted
        return ChildLeft(number, self.role, self.generation, state, self.pid, self.uid, descriptor, greeted)


def processes(children: Iterable[Running]) -> tuple[said.Process, ...]:
    """The lines of `status`: this process, and the others."""
    pid = os.getpid()
    mine = said.Process("supervisor", pid, os.getuid(), 1, resident(pid), 0)
    return mine, *(line for one in children for line in one.lines())


def how(code: int) -> str:
    """A child has ended, behind the word."""
    if code < 0:
        return f" by signal {-code}"
    return f" with code {code}" if code else ""
