"""The SMTP service of one listener: its connections, their number, their time-outs.

Time-outs are looked at once a second for all connections together, so a reply costs no
timer.  The number of connections is leased from the gate.
"""

import asyncio
import os
from asyncio import AbstractEventLoop
from functools import lru_cache, partial

from openqmail.core.hooks.interface import INBOUND
from openqmail.core.ports import ServiceContext
from openqmail.core.smtpd.policy import admit
from openqmail.core.smtpd.recipients import Recipients
from openqmail.core.smtpd.session import SmtpSession
from openqmail.core.values import Origin

READ = 64 * 1024
"""Bytes that are read at once.  While the disk is behind, each large message has so many in memory."""


class SmtpService:
    """What core registers as `smtp` in the group `openqmail.services`."""

    def __init__(self, context: ServiceContext) -> None:
        self.reconfigure(context)
        self.sessions: set[SmtpSession] = set()
        self.buffer = memoryview(bytearray(READ))
        self.origin = Origin(os.getuid(), os.getpid())
        self._loop: AbstractEventLoop = asyncio.get_running_loop()
        self._sweep: asyncio.TimerHandle | None = None

    def connect(self) -> SmtpSession:
        return SmtpSession(self, self._loop)

    def reconfigure(self, context: ServiceContext) -> None:
        """Clients come again, so what they may do is kept; so is what hooks want to be asked."""
        self.context = context
        self.admit = lru_cache(maxsize=1024)(partial(admit, context.settings))
        self.recipients: Recipients | None = None
        if context.recipients is not None:
            self.recipients = Recipients(context.recipients, context.settings, context.clock, context.log)
        self.asked = frozenset([step for step in INBOUND if context.hooks.has(step)])

    def drain(self) -> None:
        for session in list(self.sessions):
            session.drain()

    def abort(self) -> None:
        for session in list(self.sessions):
            session.abort()

    @property
    def active(self) -> int:
        return len(self.sessions)

    def opened(self, session: SmtpSession) -> None:
        """Called by a session that the rules let in; it leaves `sessions` by itself."""
        self.sessions.add(session)
        if self._sweep is None:
            self._sweep = self._loop.call_later(1.0, self._look_for_silence)

    def _look_for_silence(self) -> None:
        now = self._loop.time()
        for session in list(self.sessions):
            session.look(now)
        self._sweep = self._loop.call_later(1.0, self._look_for_silence) if self.sessions else None
