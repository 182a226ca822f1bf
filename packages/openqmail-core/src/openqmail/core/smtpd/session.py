"""One SMTP connection: a thin shell round the server machine and what is answered to its events.

Bytes go in, what is to be sent is written once a turn.  The client is read no further while the
machine waits for an answer with a full buffer, or while the disk is behind; nor before the gate
has let it in.  The gate comes before the DNS, so who is asked about is counted, too.
"""

import asyncio
from asyncio import AbstractEventLoop, Future
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

import msgspec

from openqmail.core.limits import network_of
from openqmail.core.ports import CONNECTIONS, CONNECTIONS_OF_NETWORK, CONNECTIONS_PER_HOUR, of
from openqmail.core.smtp import events, tables
from openqmail.core.smtp.events import PAUSED
from openqmail.core.smtp.xclient import XClient
from openqmail.core.smtpd.bounds import Pace
from openqmail.core.smtpd.dialogue import ACTIONS, Dialogue
from openqmail.core.smtpd.fronts import Peer
from openqmail.core.smtpd.policy import BUSY, CROWDED, DENIED, LEAVING, TOO_OFTEN, Policy
from openqmail.core.smtpd.record import SessionRecord
from openqmail.core.values import Reply

if TYPE_CHECKING:
    from openqmail.core.smtpd.service import SmtpService

T = TypeVar("T")

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
    _crowd = b""  # the counter of its network's connections, while one of them is leased
    _leased = False  # one of all connections
    _policy: Policy | None = None  # what the rules say; None while only its name can let it in
    _unnamed = False  # the name of its host is wanted
    _naming: "Future[str | None] | None" = None  # and asked for
    _paused = False
    _closing = False
    _lingered = 0
    _early = b""  # what came before it was let in
    _ended = False  # it sends no more, and was not let in yet
    _unread = False  # what we said piles up
    _heard = False  # since the last look at the clock
    _expires = _NEVER

    def __init__(self, service: "SmtpService", loop: AbstractEventLoop, peer: Peer | None = None) -> None:
        self._service = service
        self._peer = peer  # for whom a front end speaks
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
        peer = self._peer
        self._client: tuple[str, int] = client if peer is None else peer.client
        self._known = True
        client = self._client
        self._record = SessionRecord(self._context, client[0], client[1], peer.via if peer else None)
        self._pace = Pace(self._context.settings.mindatarate)
        self._unnamed = self._service.admission.by_name and (peer is None or peer.name is None)
        name = "" if peer is None or peer.name is None else peer.name
        self._look_up(None if self._unnamed else name)
        if self._dialogue is None and not self._closing:  # the gate is not so quick, or the DNS
            self._paused = True
            if self._naming is None:
                self._transport.pause_reading()

    def _look_up(self, name: str | None) -> None:
        """What the rules say of it; `name`: of its host."""
        settings, address = self._context.settings, self._client[0]
        policy = self._policy = self._admit(address, name)
        if policy is None and not (self._unnamed and settings.rules.by_name):
            self._refuse(DENIED)
            return
        self._service.opened(self)
        if settings.connectionsperhour and not self._relays:
            spent = self._context.gate.spend(CONNECTIONS_PER_HOUR, network_of(address))
            self.when(spent, self._ask_network)
        else:
            self._ask_network(True)

    @property
    def _relays(self) -> bool:
        """Its address alone is enough not to be counted."""
        return self._policy is not None and self._policy.relay

    def _ask_network(self, seldom: bool) -> None:
        if not seldom:
            self._refuse(TOO_OFTEN)
        elif self._context.settings.concurrencynetwork and not self._relays:
            crowd = of(CONNECTIONS_OF_NETWORK, network_of(self._client[0]))
            self.when(self._context.gate.lease(crowd), partial(self._ask_in, crowd))
        else:
            self._ask_in(b"", True)

    def _ask_in(self, crowd: bytes, leased: bool) -> None:
        if not leased:
            self._refuse(CROWDED)
        elif self._transport is not None and not self._closing:
            self._crowd = crowd
            self.when(self._context.gate.lease(CONNECTIONS), self._enter)
        elif crowd:
            self._context.gate.release(crowd)

    def _enter(self, leased: bool) -> None:
        if not leased:
            self._refuse(BUSY)
        elif self._transport is None or self._closing:  # it left, or was sent away, meanwhile
            self._context.gate.release(CONNECTIONS)
        else:
            self._leased = True
            if self._unnamed:  # it is read until it says something, so as to see it go
                self._naming = self._service.admission.name_of(self._client[0])
                self._transport.resume_reading()
                self.when(self._naming, self._named)
            else:
                self._serve()

    def _named(self, name: str | None) -> None:
        """The rules again, by the name of its host; who relays for it is counted no more."""
        self._naming = None
        if self._transport is None or self._closing:
            return
        self._policy = self._admit(self._client[0], name)
        if self._policy is None:
            self._refuse(DENIED)
            return
        if self._policy.relay:
            self._leave_crowd()
        self._serve()

    def _leave_crowd(self) -> None:
        if self._crowd:
            self._context.gate.release(self._crowd)
            self._crowd = b""

    def _serve(self) -> None:
        """Greet it."""
        policy = self._policy
        if self._transport is None or policy is None:
            return
        peer = self._peer
        if peer is None:
            server = self._transport.get_extra_info("sockname")
            peer = self._peer = self._service.fronts.peer(self._client, server[0] if server else "")
        if peer.xclient:
            offer = msgspec.structs.replace(policy.offer, xclient=True)
            policy = msgspec.structs.replace(policy, offer=offer)
        self._dialogue = Dialogue(
            self,
            self._service,
            self._loop,
            policy,
            self._record,
            self._client,
            peer.server,
        )
        self._record.helo = peer.helo
        machine = self._dialogue.machine
        machine.identity = peer.login or None
        if self._early:
            machine.receive_data(self._early)
            self._early = b""
        if self._ended:
            machine.receive_data(b"")
        self._dialogue.greet()
        self.go_on()

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
        self._leave_crowd()
        if self._naming is not None:
            self._naming.cancel()
        if self._dialogue is not None:
            self._dialogue.end()
            self._dialogue = None
        if self._leased:
            self._leased = False
            self._context.gate.release(CONNECTIONS)
        if self._known:
            gone = "refused" if self._closing else "eof"
            self._record.ended("lost" if error is not None else gone)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._service.room  # one for all sessions: what was read is copied before another reads

    def buffer_updated(self, count: int) -> None:
        dialogue = self._dialogue
        if dialogue is not None:
            self._record.size += count
            dialogue.machine.receive_data(bytes(self._read_into[:count]))
            self.go_on()
        elif self._transport is not None and not self._closing:
            # uvloop begins to read behind connection_made, although it was told not to in there.
            self._record.size += count
            self._early += bytes(self._read_into[:count])
            self._transport.resume_reading()
            self._transport.pause_reading()

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
            self._ended = bool(self._early) and not self._closing  # else it is gone: it cannot say anything
            return self._ended
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
        elif self._crawls(now, dialogue):
            dialogue.machine.timed_out(tables.TOO_SLOW)
            self.go_on()
        elif self._heard:
            wait = dialogue.machine.deadline()
            self._expires = _NEVER if wait is None else now + wait
            self._heard = False
        elif now >= self._expires and not dialogue.submitting:
            dialogue.machine.timed_out()
            self.go_on()

    def _crawls(self, now: float, dialogue: Dialogue) -> bool:
        """Whether a message comes more slowly than is borne; not while it is we who do not read."""
        if self._paused or not dialogue.machine.receiving:
            self._pace.rest()
            return False
        return self._pace.too_slow(now, self._record.size)

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

    def when(self, answer: "Future[T]", then: Callable[[T], None]) -> None:
        """Go on by `then` now where the answer is there, which is the rule, else when it comes."""
        if answer.done():
            then(answer.result())
        else:
            answer.add_done_callback(partial(self._told, then))

    def _told(self, then: Callable[[T], None], answer: "Future[T]") -> None:
        if answer.cancelled():  # as it is when nobody is there any more to be told
            return
        then(answer.result())
        self.go_on()

    def begin_anew(self, said: XClient) -> None:
        """A front end has said for whom it speaks: this session is over, and that client's begins."""
        transport, dialogue, peer = self._transport, self._dialogue, self._peer
        if transport is None or dialogue is None or peer is None:
            return
        transport.write(dialogue.machine.data_to_send())
        self._record.refused(dialogue.machine.refused)
        self._record.end = "xclient"
        if self._paused:
            transport.resume_reading()
        self.connection_lost(None)
        session = self._service.session(peer.said(said))
        transport.set_protocol(session)
        session.connection_made(transport)

    def go_on(self) -> None:
        """Answer events until the machine needs more bytes or an answer that is not there yet."""
        dialogue = self._dialogue
        if dialogue is None:
            return
        machine = dialogue.machine
        event: events.Event = PAUSED
        turn = 0
        while not self._unread:
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
        out = machine.data_to_send()
        if turn or out or machine.receiving:  # the beginning of a command does not count: it may have no end
            self._heard = True
        if out:
            transport.write(out)
        if machine.closing or (dialogue.half_closed and not dialogue.submitting):
            dialogue.forget()
            self._closing = True
            transport.close()
        elif event is PAUSED or self._paused:  # else nothing is left over
            self.throttle()

    def throttle(self) -> None:
        dialogue, transport = self._dialogue, self._transport
        if dialogue is None or transport is None:
            return
        incoming = dialogue.incoming
        full = self._unread or dialogue.machine.full or (incoming is not None and incoming.pending > 0)
        if full != self._paused:
            self._paused = full
            (transport.pause_reading if full else transport.resume_reading)()
