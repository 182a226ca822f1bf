"""The SMTP service of one listener: its connections, their number, their time-outs.

Time-outs are looked at once a second for all connections together, so a reply costs no
timer.  The number of connections is leased from the gate.
"""

import asyncio
import os
import time
from asyncio import AbstractEventLoop
from functools import lru_cache, partial
from itertools import count
from typing import Protocol

from openqmail.core.control.pem import no_certificate
from openqmail.core.hooks.interface import INBOUND
from openqmail.core.message.origination import Stamp
from openqmail.core.ports import ServiceContext
from openqmail.core.smtpd.admission import Admission
from openqmail.core.smtpd.fronts import Front, Fronts, Peer
from openqmail.core.smtpd.handshake import Handshakes
from openqmail.core.smtpd.policy import admit
from openqmail.core.smtpd.recipients import Recipients
from openqmail.core.smtpd.session import SmtpSession
from openqmail.core.values import Origin

READ = 128 * 1024
"""Bytes that are read at once.  While the disk is behind, each large message has so many in memory.  Twice
as many are no cheaper, half as many cost a large message a third more CPU in all processes."""

CROWD = 50
"""Sessions beyond which half as many are read, so that a hundred large messages do not hold more."""

HANDSHAKES = 100
"""At once, of one listener, shared out to networks: who only begins them keeps no others from mail without
TLS, and few but its neighbours from TLS."""


_STAMPED = count(1)
"""Of all listeners of this process, or two of them would name two messages alike."""


class Held(Protocol):
    """A connection, whatever it is just now."""

    def look(self, now: float) -> None:
        """Once a second."""
        ...

    def drain(self) -> None:
        """End as soon as no message is under way."""
        ...

    def abort(self) -> None:
        """End now."""
        ...


class SmtpService:
    """What core registers as `smtp` in the group `openqmail.services`: STARTTLS is offered where the host has
    a certificate."""

    implicit = False
    """TLS begins before anything is said (RFC 8314)."""
    submission = False
    """For mail of people who have logged in (RFC 6409)."""

    def __init__(self, context: ServiceContext) -> None:
        self.reconfigure(context)
        self.sessions: set[Held] = set()
        self.handshakes = Handshakes(HANDSHAKES)
        self.buffer = memoryview(bytearray(READ))
        self._half = self.buffer[: READ // 2]
        self.origin = Origin(os.getuid(), os.getpid())
        self._loop: AbstractEventLoop = asyncio.get_running_loop()
        self._sweep: asyncio.TimerHandle | None = None

    def stamp(self) -> Stamp:
        """For a message that begins its way here, now."""
        clock, settings = self.context.clock, self.context.settings
        unique = b"%d.%d.openqmail" % (self.origin.pid, next(_STAMPED))
        return Stamp(time.gmtime(clock.now()), unique, settings.idhost or settings.me)

    def connect(self) -> SmtpSession | Front:
        return Front(self, self._loop) if self.fronts.proxied else self.session()

    def session(self, peer: Peer | None = None) -> SmtpSession:
        """`peer`: for whom a front end speaks."""
        return SmtpSession(self, self._loop, peer)

    @property
    def room(self) -> memoryview:
        """The beginning of `buffer`, as far as a session may fill it now."""
        return self.buffer if len(self.sessions) <= CROWD else self._half

    def reconfigure(self, context: ServiceContext) -> None:
        """Clients come again, so what they may do is kept; so is what hooks want to be asked."""
        if self.implicit and context.tls is None:
            raise no_certificate(context.listener.service)
        self.context = context
        self.fronts = Fronts(context.listener)
        starttls = context.tls is not None and not self.implicit
        self.admit = lru_cache(maxsize=1024)(partial(admit, context.settings, starttls))
        self.admission = Admission(context.settings, context.resolver, context.log)
        self.addresses = frozenset(one.host for one in context.settings.listen)
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

    def opened(self, session: Held) -> None:
        """Called by a session that the rules let in, or a front end's connection; it leaves `sessions`
        by itself."""
        self.sessions.add(session)
        if self._sweep is None:
            self._sweep = self._loop.call_later(1.0, self._look_for_silence)

    def _look_for_silence(self) -> None:
        now = self._loop.time()
        for session in list(self.sessions):
            session.look(now)
        self._sweep = self._loop.call_later(1.0, self._look_for_silence) if self.sessions else None


class SmtpsService(SmtpService):
    """`smtps`: as `smtp`, with TLS from the first byte on."""

    implicit = True


class SubmissionService(SmtpService):
    """`submission`: port 587 of RFC 6409."""

    submission = True


class SubmissionsService(SubmissionService):
    """`submissions`: port 465 of RFC 8314."""

    implicit = True
