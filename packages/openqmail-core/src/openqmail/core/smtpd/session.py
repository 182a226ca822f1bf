"""One SMTP connection: a thin shell round the server machine and what is answered to its events.

Bytes go in, what is to be sent is written once a turn.  The client is read no further while the
machine waits for an answer with a full buffer, or while the disk is behind; nor before the gate
has let it in, nor between STARTTLS and its handshake.
"""

import asyncio
from asyncio import AbstractEventLoop, Future
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

import msgspec

from openqmail.core.smtp import events, tables
from openqmail.core.smtp.events import BREATH, PAUSED
from openqmail.core.smtp.tables import State
from openqmail.core.smtp.xclient import XClient
from openqmail.core.smtpd.bounds import Pace
from openqmail.core.smtpd.dialogue import ACTIONS, Dialogue
from openqmail.core.smtpd.entrance import Entrance
from openqmail.core.smtpd.fronts import Peer
from openqmail.core.smtpd.handshake import Share, reason, secure
from openqmail.core.smtpd.policy import BUSY, LEAVING, Policy
from openqmail.core.smtpd.record import SessionRecord
from openqmail.core.tls import ServerTls, client_names, facts_of
from openqmail.core.values import Reply

if TYPE_CHECKING:
    from openqmail.core.smtpd.service import SmtpService

T = TypeVar("T")

_NEVER = float("inf")

TURN = 64
"""Events after which what is answered is written, although more came ahead."""

MOST = 4 * TURN
"""Events after which other clients have their turn, although more came ahead."""

HALF = 64 * 1024
"""Who has sent so much at once may have more there already, which others are not to wait for."""

LINGER = 10
"""Seconds that a client has to read our last words."""

EARLY = 256 * 1024
"""Bytes that may come before they can be heard: ahead of a greeting, or in one turn with a handshake."""

PATIENCE = 60
"""Seconds that a client waits for a gate that does not answer, which is one that is being restarted."""


class SmtpSession(asyncio.BufferedProtocol):
    """A connection that was just accepted; it keeps the settings that it began with."""

    # How every session begins: what most never change is not set anew for each.
    _transport: asyncio.Transport | None = None
    _dialogue: Dialogue | None = None  # of a client that was let in
    _entrance: Entrance | None = None  # by which it came, once it is known who it is
    _paused = False
    _closing = False
    _lingered = 0
    _ended = False  # it sends no more
    _unread = False  # what we said piles up
    _resting = False  # others have their turn first
    _heard = False  # since the last look at the clock
    _expires = _NEVER
    _handshaking: asyncio.Task[None] | None = None
    _lost = False  # the connection
    _over = False  # and it has been told
    _ciphered = False  # what comes is what TLS has deciphered
    _early = b""  # what came before it could be heard

    def __init__(self, service: "SmtpService", loop: AbstractEventLoop, peer: Peer | None = None) -> None:
        self._service = service
        self._peer = peer  # for whom a front end speaks
        self._context = service.context
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
        self._ciphered = peer is not None and peer.tls is not None
        client = self._client
        self._record = SessionRecord(self._context, client[0], client[1], peer.via if peer else None)
        self._pace = Pace(self._context.settings.mindatarate)
        entrance = self._entrance = Entrance(self._service, self, client[0])
        entrance.ask(None if peer is None else peer.name)
        if self._dialogue is None and not self._closing:  # the gate is not so quick, or the DNS
            self._paused = True
            if not entrance.asks_name:
                self._transport.pause_reading()

    @property
    def size(self) -> int:
        """Bytes that have come in plaintext, or were deciphered."""
        return self._record.size

    @property
    def waiting(self) -> bool:
        return self._transport is not None and not self._closing

    def opened(self) -> None:
        self._service.opened(self)

    def attend(self) -> None:
        assert self._transport is not None
        self._transport.resume_reading()

    def enter(self, policy: Policy) -> None:
        """It is let in, and begins: with the greeting, with a handshake, or where another client left off."""
        transport = self._transport
        assert transport is not None
        peer = self._peer
        if peer is None:
            server = transport.get_extra_info("sockname")
            peer = self._peer = self._service.fronts.peer(self._client, server[0] if server else "")
        if self._expects_tls and not self._service.handshakes.free(self._client[0], policy.relay):
            self.refuse(BUSY)
            return
        if peer.xclient:
            offer = msgspec.structs.replace(policy.offer, xclient=not peer.named, named=peer.named)
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
        if self._expects_tls:
            self._secure(transport, self._dialogue)
            return
        if peer.tls is not None:
            self._dialogue.standing.tls_kept(peer.tls)
        if peer.login:
            self._dialogue.standing.log_in(peer.login)
        self._begin(self._dialogue)

    @property
    def _expects_tls(self) -> bool:
        """It is the first that the client says."""
        return self._service.implicit and (self._peer is None or self._peer.tls is None)

    def _begin(self, dialogue: Dialogue) -> None:
        """A connection, or its part behind STARTTLS."""
        machine = dialogue.machine
        if self._early:
            self._record.size += len(self._early)
            machine.receive_data(self._early)
            self._early = b""
        if self._ended:
            machine.receive_data(b"")
        if machine.state is State.CONNECT:
            dialogue.greet()
        self.go_on()

    def _keep(self, data: bytes) -> None:
        """What comes too early waits, where it will be wanted: in plaintext before a greeting, for TLS before
        its first handshake, deciphered behind that."""
        if self._closing or self._over:
            return
        if self._handshaking is None or self._ciphered or self._expects_tls:
            self._early += data
            if len(self._early) > EARLY:
                self.abort()
        if self._transport is not None and not self._ciphered:
            # uvloop begins to read behind connection_made, although it was told not to in there.
            self._transport.pause_reading()

    def refuse(self, reply: Reply) -> None:
        """Say why there is no service, and hang up; who expects TLS first cannot be told."""
        if self._transport is not None and not self._closing:
            self._closing = True
            self._record.said_last(reply)
            if not self._expects_tls:
                self._transport.write(reply.encode())
            self._transport.close()

    # --- TLS --------------------------------------------------------------------------

    def _secure(self, transport: asyncio.Transport, dialogue: Dialogue) -> None:
        """Begin the handshake.  Nothing is read before that is at work: it would not be ciphered."""
        transport.pause_reading()
        self._paused = True
        assert self._context.tls is not None  # else nobody has offered it
        place = self._service.handshakes.begin(self._client[0], dialogue.standing.policy.relay)
        self._handshaking = self._loop.create_task(self._handshake(transport, self._context.tls, place))

    async def _handshake(self, transport: asyncio.Transport, tls: ServerTls, place: Share) -> None:
        """While it lasts, its end is told here alone: not every loop has it that the connection is ours."""
        service, early = self._service, self._early
        self._early, self._ciphered = b"", True
        try:
            patience = self._context.settings.timeoutsmtpd
            secured = await secure(self._loop, transport, self, tls, early, patience)
        except (Exception, asyncio.CancelledError) as error:  # whatever it was, nothing more can be said
            self._handshaking = None
            transport.abort()
            self._record.tls_failed(reason(error))
            self._end(None)
        else:
            self._handshaking = None
            self._transport = secured
            self._secured(secured, tls)
            if self._lost:
                self._end(None)
        finally:
            service.handshakes.end(place)

    def _secured(self, transport: asyncio.Transport, tls: ServerTls) -> None:
        """The handshake is done."""
        dialogue = self._dialogue
        if dialogue is None:
            return
        peer = transport.get_extra_info("ssl_object")
        certificate = getattr(peer, "certificate", b"") or tls.certificate_for("")
        facts = facts_of(peer, True, certificate)
        dialogue.tls_started(facts, client_names(peer))
        self._paused = self._unread = False
        self._heard = True
        self._begin(dialogue)

    # --- what the event loop tells ----------------------------------------------------

    def connection_lost(self, error: Exception | None) -> None:
        self._lost = True
        if self._handshaking is None and not self._over:  # else its end is told where the handshake is
            self._end(error)

    def _end(self, error: Exception | None) -> None:
        self._over = True
        self._transport = None
        self._service.sessions.discard(self)
        if self._dialogue is not None:
            self._dialogue.over()
            self._dialogue = None
        if self._entrance is not None:
            self._entrance.leave()
            self._entrance = None
            gone = "refused" if self._closing else "eof"
            self._record.ended("lost" if error is not None else gone)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._service.room  # one for all sessions: what was read is copied before another reads

    def buffer_updated(self, count: int) -> None:
        dialogue = self._dialogue
        if dialogue is None or self._handshaking is not None:
            self._keep(bytes(self._read_into[:count]))
        else:
            self._record.size += count
            dialogue.machine.receive_data(bytes(self._read_into[:count]))
            if count >= HALF:
                self._rest()
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
        if self._handshaking is not None or (dialogue is None and self._expects_tls):
            return False
        if dialogue is None:
            self._ended = bool(self._early) and not self._closing  # else it is gone: it cannot say anything
            return self._ended and not self._ciphered
        machine = dialogue.machine
        self._heard = True  # the time that it may last begins
        if machine.state is State.CONNECT and not machine.ahead:
            return False  # it has not said anything
        self._ended = True
        machine.receive_data(b"")
        self.go_on()
        # Keep our half open while an answer is owed; TLS ends in both directions.
        return dialogue.standing.tls is None and not self._closing

    # --- what the service asks for ----------------------------------------------------

    def look(self, now: float) -> None:
        """Once a second: has the client been silent for as long as the machine is ready to wait?"""
        dialogue = self._dialogue
        if self._handshaking is not None:
            return  # it has a time of its own
        if self._closing:
            self._lingered += 1
            if self._lingered > LINGER:
                self.abort()
        elif dialogue is None:
            self._lingered += 1
            if self._lingered > PATIENCE:
                self.refuse(BUSY)
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
        if dialogue.machine.unfinished:
            return self._pace.too_slow(now, self._record.size, self._paused)
        self._pace.rest()
        return False

    def drain(self) -> None:
        """End as soon as no message is under way."""
        if self._dialogue is None:
            self.refuse(LEAVING)
        else:
            self._dialogue.drain()
            self.go_on()

    def abort(self) -> None:
        """End now; a message whose 250 was not said is the client's."""
        if self._transport is not None:
            self._record.end = self._record.end or "aborted"
            self._transport.abort()
            if self._handshaking is not None and self._ciphered:  # else it has yet to begin, and will see
                self._handshaking.cancel()

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
        session = self._service.session(peer.said(said).within(dialogue.standing.tls))
        transport.set_protocol(session)
        session.connection_made(transport)
        if self._ended and not session.eof_received():  # no loop tells it twice
            transport.close()

    def go_on(self) -> None:
        """Answer events until the machine needs more bytes or an answer that is not there yet."""
        dialogue = self._dialogue
        if dialogue is None or self._handshaking is not None:
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
                if turn == MOST and not machine.closing:
                    event = BREATH
                    break
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
        elif machine.state is State.TLS:
            self._secure(transport, dialogue)
        elif event is BREATH:
            self._rest()
        elif event is PAUSED or self._paused:  # else nothing is left over
            self.throttle()

    def _rest(self) -> None:
        """Until others have had their turn nothing is read."""
        if not self._resting:
            self._resting = True
            self._loop.call_soon(self._rested)
        self.throttle()

    def _rested(self) -> None:
        self._resting = False
        self.go_on()

    def hang_up(self) -> None:
        if self._dialogue is not None and self._transport is not None:
            if out := self._dialogue.machine.data_to_send():
                self._transport.write(out)
            self._closing = True
            self._transport.close()

    def throttle(self) -> None:
        dialogue, transport = self._dialogue, self._transport
        if dialogue is None or transport is None or self._handshaking is not None:
            return
        incoming = dialogue.incoming
        full = (
            self._unread
            or self._resting
            or dialogue.machine.full
            or (incoming is not None and incoming.pending > 0)
        )
        if full != self._paused:
            self._paused = full
            if not self._ended:
                (transport.pause_reading if full else transport.resume_reading)()
