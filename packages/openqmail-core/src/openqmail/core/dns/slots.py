"""Who may ask now: questions under way are few, and shared out fairly among those who wait.

A question is on somebody's behalf (`behalf`): of mail to a domain, as whoever has that mail says, or of
the network of a client that it is about.  Of those who wait, the one who has the fewest under way goes
first, and among equals the one who has waited longest; so domains whose name servers never answer, each
with a hundred exchangers, leave room to the others.  A question that somebody else asks too waits in
both places.  Nobody is timed here.
"""

import asyncio
from collections import Counter, deque
from contextvars import ContextVar

behalf: ContextVar[bytes] = ContextVar("behalf", default=b"")
"""On whose behalf this task asks; a task that it starts inherits it."""


class Ticket:
    """One question's; `owner`: who has its slot, once it has one."""

    __slots__ = ("owner", "owners", "turn")

    def __init__(self) -> None:
        self.owner: bytes | None = None
        self.owners: set[bytes] = set()
        self.turn: asyncio.Future[None] | None = None


class Slots:
    """So many at once."""

    def __init__(self, most: int) -> None:
        self._free = most
        self._held: Counter[bytes] = Counter()
        self._lines: dict[bytes, deque[Ticket]] = {}

    async def take(self, ticket: Ticket, owner: bytes) -> None:
        """Come back with a slot.  Whoever called it gives the ticket back, also when he was cancelled."""
        if self._free:
            self._give(ticket, owner)
            return
        ticket.turn = asyncio.get_running_loop().create_future()
        others, ticket.owners = ticket.owners, set()
        for each in (owner, *others):
            self.join(ticket, each)
        await ticket.turn

    def join(self, ticket: Ticket, owner: bytes) -> None:
        """One more wants to know the same; of no effect on one that waits no longer."""
        if owner in ticket.owners or (ticket.turn is not None and ticket.turn.done()):
            return
        ticket.owners.add(owner)
        if ticket.turn is not None:  # else it has not yet been asked for
            self._lines.setdefault(owner, deque()).append(ticket)

    def give_back(self, ticket: Ticket) -> None:
        """Its slot, if it has one, is free for the next."""
        owner, ticket.owner = ticket.owner, None
        if owner is None:
            return
        self._free += 1
        self._held[owner] -= 1
        if not self._held[owner]:
            del self._held[owner]
        while self._lines and self._free:
            owner = min(self._lines, key=self._held.__getitem__)
            line = self._lines.pop(owner)
            ticket = line.popleft()
            if line:
                self._lines[owner] = line  # behind its equals
            if ticket.turn is not None and not ticket.turn.done():  # else it had a slot before, or gave up
                self._give(ticket, owner)
                ticket.turn.set_result(None)

    def _give(self, ticket: Ticket, owner: bytes) -> None:
        self._free -= 1
        self._held[owner] += 1
        ticket.owner = owner
