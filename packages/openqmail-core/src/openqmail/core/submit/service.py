"""The local submission front end: mail from programs of this host, over the socket `run/submit`.

A connection is one request (session.py).  Bounded are connections in all and of one user; a client's
silence is looked at once a second for all together.
"""

import asyncio
from asyncio import AbstractEventLoop

from openqmail.core.hooks.interface import INBOUND
from openqmail.core.ports import ServiceContext
from openqmail.core.submit.session import SubmitSession

CONNECTIONS = 64
KEPT_FOR_ROOT = 8
"""Of these, so that what others do does not keep the system's own mail out."""
CONNECTIONS_OF_ONE = 16
"""Connections that one uid may have open."""


class SubmitService:
    """Serves the port Service on a Unix socket."""

    def __init__(self, context: ServiceContext) -> None:
        self.reconfigure(context)
        self.draining = False
        self._sessions: set[SubmitSession] = set()
        self._of: dict[int, int] = {}
        self._loop: AbstractEventLoop = asyncio.get_running_loop()
        self._sweep: asyncio.TimerHandle | None = None

    def connect(self) -> SubmitSession:
        return SubmitSession(self, self._loop)

    def reconfigure(self, context: ServiceContext) -> None:
        """For requests that come from now on."""
        self.context = context
        self.asked = frozenset([step for step in INBOUND if context.hooks.has(step)])

    def drain(self) -> None:
        self.draining = True
        for session in list(self._sessions):
            session.drain()

    def abort(self) -> None:
        for session in list(self._sessions):
            session.abort()

    @property
    def active(self) -> int:
        return len(self._sessions)

    def admit(self, session: SubmitSession, uid: int) -> bool:
        """Whether there is room for one more of this user's; if so it is counted until `left`."""
        count = self._of.get(uid, 0)
        room = CONNECTIONS - (KEPT_FOR_ROOT if uid else 0)
        if len(self._sessions) >= room or count >= CONNECTIONS_OF_ONE:
            return False
        self._of[uid] = count + 1
        self._sessions.add(session)
        if self._sweep is None:
            self._sweep = self._loop.call_later(1.0, self._look_for_silence)
        return True

    def left(self, session: SubmitSession, uid: int) -> None:
        self._sessions.discard(session)
        self._of[uid] -= 1
        if not self._of[uid]:
            del self._of[uid]

    def _look_for_silence(self) -> None:
        for session in list(self._sessions):
            session.look()
        self._sweep = self._loop.call_later(1.0, self._look_for_silence) if self._sessions else None
