"""One SMTP connection: a thin shell round the server machine and what is answered to its events.

Bytes go in, what is to be sent is written once a turn.  The client is read no further while the
machine waits for an answer with a full buffer, or while the disk is behind; nor before the gate
has let it in.
"""

import asyncio
from asyncio import AbstractEventLoop, Future
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from openqmail.core.limits import network_of
from openqmail.core.ports import CONNECTIONS, CONNECTIONS_PER_HOUR
from openqmail.core.smtp import events
from openqmail.core.smtp.events import PAUSED
from openqmail.core.smtpd.dialogue import ACTIONS, Dialogue
from openqmail.core.smtpd.policy import BUSY, DENIED, LEAVING, TOO_OFTEN, Policy
from openqmail.core.smtpd.record import SessionRecord
from openqmail.core.values import Reply

if TYPE_CHECKING:
    from openqmail.core.smtpd.service import SmtpService

_NEVER = float("inf")

TURN = 64
"""Events after which what is answered is written, although more came ahead."""

LINGER = 10
"""Seconds that a client has to read our last words."""

PATIENCE = 60
"""Seconds that a client waits for a gate that does not answer, which is one that is being restarted."""


class SmtpSession(asyncio.BufferedProtocol):
    """A connection that was just accepted; it keeps the settings that it began with."""

    # How every session begins: what most never change is not set anew for each.
    _transport: asyncio.Transport | None = None
    _dialogue: Dialogue | None = None  # of a client that was let in
    _known = False  # who it is
    _paused = False
    _closing = False
    _lingered = 0
    _unread = False  # what we said piles up
    _heard = False  # since the last look at the clock
    _expires = _NEVER

    def __init__(self, service: "SmtpService", loop: AbstractEventLoop) -> None:
        self._service = service
        self._context = service.context
        self._admit = service.admit
        self._loop = loop
        self._read_into = service.buffer

    # --- who comes in -----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        client = transport.get_extra_info("peername")
        if not client:  # gone before we looked
            self._transport.abort()
            return
        self._client: tuple[str, int] = client
        self._known = True
        self._record = SessionRecord(self._context, client[0], client[1])
        policy = self._admit(client[0])
        if policy is None:
            self._refuse(DENIED)
            return
        self._policy: Policy = policy
        self._service.opened(self)
        if self._context.settings.connectionsperhour and not policy.relay:
            self._when(
                self._context.gate.spend(CONNECTIONS_PER_HOUR, network_of(client[0])),
                self._ask_in,
            )
        else:
            self._ask_in(True)
        if self._dialogue is None and not self._closing:  # the gate is not so quick
            self._paused = True
            self._transport.pause_reading()

    def _ask_in(self, seldom: bool) -> None:
        if not seldom:
            self._refuse(TOO_OFTEN)
        elif self._transport is not None and not self._closing:
            self._when(self._context.gate.lease(CONNECTIONS), self._enter)

    def _enter(self, leased: bool) -> None:
        if not leased:
            self._refuse(BUSY)
            return
        if self._transport is None or self._closing:  # it left, or was sent away, meanwhile
            self._context.gate.release(CONNECTIONS)
            return
        server = self._transport.get_extra_info("sockname")
        self._dialogue = Dialogue(
            self,
            self._service,
            self._loop,
            self._policy,
            self._record,
            self._client,
            server[0] if server else "",
        )
        self._dialogue.greet()
        self.go_on()

    def _when(self, answer: "Future[bool]", then: Callable[[bool], None]) -> None:
        """Go on by `then` now where the answer is there, which is the rule, else when it comes."""
        if answer.done():
            then(answer.result())
        else:
            answer.add_done_callback(lambda done: then(done.result()))

    def _refuse(self, reply: Reply) -> None:
        """Say why there is no service, and hang up."""
        if self._transport is not None and not self._closing:
            self._closing = True
            self._record.said_last(reply)
            self._transport.write(reply.encode())
            self._transport.close()

    # --- what the event loop tells ----------------------------------------------------

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._service.sessions.discard(self)
        if self._dialogue is not None:
            self._dialogue.over()
            self._dialogue = None
            self._context.gate.release(CONNECTIONS)
        if self._known:
            gone = "refused" if self._closing else "eof"
            self._record.ended("lost" if error is not None else gone)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._read_into  # one for all sessions: what was read is copied before another reads

    def buffer_updated(self, count: int) -> None:
        dialogue = self._dialogue
        if dialogue is not None:
            self._record.size += count
            dialogue.machine.receive_data(bytes(self._read_into[:count]))
            self.go_on()

    def pause_writing(self) -> None:
        """The client does not read what it is told: neither do we read more of it."""
        self._unread = True
        self.throttle()

    def resume_writing(self) -> None:
        self._unread = False
        self.go_on()

    def eof_received(self) -> bool:
        dialogue = self._dialogue
        if dialogue is None:
            return False
        dialogue.machine.receive_data(b"")
        self.go_on()
        return dialogue.submitting  # keep our half open while an answer is owed

    # --- what the service asks for ----------------------------------------------------

    def look(self, now: float) -> None:
        """Once a second: has the client been silent for as long as the machine is ready to wait?"""
        dialogue = self._dialogue
        if self._closing:
            self._lingered += 1
            if self._lingered > LINGER:
                self.abort()
        elif dialogue is None:
            self._lingered += 1
            if self._lingered > PATIENCE:
                self._refuse(BUSY)
        elif self._heard:
            wait = dialogue.machine.deadline()
            self._expires = _NEVER if wait is None else now + wait
            self._heard = False
        elif now >= self._expires and not dialogue.submitting:
            dialogue.machine.timed_out()
            self.go_on()

    def drain(self) -> None:
        """End as soon as no message is under way."""
        if self._dialogue is None:
            self._refuse(LEAVING)
        else:
            self._dialogue.drain()
            self.go_on()

    def abort(self) -> None:
        """End now; a message whose 250 was not said is the client's."""
        if self._transport is not None:
            self._record.end = self._record.end or "aborted"
            self._transport.abort()

    # --- what the dialogue tells (Connection) -----------------------------------------

    @property
    def gone(self) -> bool:
        return self._transport is None

    def go_on(self) -> None:
        """Answer events until the machine needs more bytes or an answer that is not there yet."""
        dialogue = self._dialogue
        if dialogue is None:
            return
        machine = dialogue.machine
        event: events.Event = PAUSED
        turn = 0
        while not self._unread and not self._closing:
            event = machine.next_event()
            act = ACTIONS.get(type(event))
            if act is None:
                break
            act(dialogue, event)
            turn += 1
            if turn % TURN == 0 and self._transport is not None:  # much came ahead: answer as we go
                self._transport.write(machine.data_to_send())
        if machine.refused:
            self._record.refused(machine.refused)
        transport = self._transport
        if transport is None:
            return
        self._heard = True
        if out := machine.data_to_send():
            transport.write(out)
        if machine.closing or (dialogue.half_closed and not dialogue.submitting):
            dialogue.forget()
            self._closing = True
            transport.close()
        elif event is PAUSED or self._paused:  # else nothing is left over
            self.throttle()

    def hang_up(self) -> None:
        if self._dialogue is not None and self._transport is not None:
            if out := self._dialogue.machine.data_to_send():
                self._transport.write(out)
            self._closing = True
            self._transport.close()

    def throttle(self) -> None:
        dialogue, transport = self._dialogue, self._transport
        if dialogue is None or transport is None:
            return
        incoming = dialogue.incoming
        full = self._unread or dialogue.machine.full or (incoming is not None and incoming.pending > 0)
        if full != self._paused:
            self._paused = full
            (transport.pause_reading if full else transport.resume_reading)()
