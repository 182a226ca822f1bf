"""One SMTP connection: a thin shell round the server machine.

Bytes go in, events come out, each is answered from policy, hooks, mailboxes or queue; what
is to be sent is written once a turn.  250 after the data is said only when the queue's
promise has come true.  The client is read no further while the machine waits for an answer
with a full buffer, or while the disk is behind; nor before the gate has let it in.
"""

import asyncio
from asyncio import AbstractEventLoop, Future
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from openqmail.core.hooks import SessionFacts
from openqmail.core.limits import network_of
from openqmail.core.message.trace import received
from openqmail.core.ports import CONNECTIONS, CONNECTIONS_PER_HOUR, MESSAGES_PER_HOUR
from openqmail.core.smtp import events
from openqmail.core.smtp.events import PAUSED
from openqmail.core.smtp.server import ServerSession
from openqmail.core.smtpd.incoming import Incoming
from openqmail.core.smtpd.policy import (
    BUSY,
    DENIED,
    HOPS,
    LEAVING,
    NOT_OURS,
    TOO_MANY_HOPS,
    TOO_OFTEN,
    Policy,
)
from openqmail.core.smtpd.record import SessionRecord
from openqmail.core.values import MessageId, OpenqmailError, QueueFull, Recipient, Reply

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

_TOO_MUCH = Reply(450, b"4.7.1", (b"too many messages from your network, try again later",))
_FULL = Reply(452, b"4.3.1", (b"too little room in the queue, try again later",))
_TROUBLE = Reply(451, b"4.3.0", (b"the queue has a problem, try again later",))


class SmtpSession(asyncio.BufferedProtocol):
    """A connection that was just accepted; it keeps the settings that it began with."""

    # How every session begins: what most never change is not set anew for each.
    _transport: asyncio.Transport | None = None
    _incoming: Incoming | None = None
    _known = False  # who it is
    _leased = False  # and so there is a machine
    _paused = False
    _draining = False
    _submitting = False
    _half_closed = False
    _closing = False
    _lingered = 0
    _unread = False  # what we said piles up
    _extended = False
    _heard = False  # since the last look at the clock
    _expires = _NEVER

    def __init__(self, service: "SmtpService", loop: AbstractEventLoop) -> None:
        self._service = service
        self._context = service.context
        self._admit = service.admit
        self._asked = service.asked
        self._recipients = service.recipients
        self._loop = loop
        self._read_into = service.buffer

    # --- the connection ---------------------------------------------------------------

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
            self._when(self._spend(CONNECTIONS_PER_HOUR), self._ask_in)
        else:
            self._ask_in(True)
        if not self._leased and not self._closing:  # the gate is not so quick
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
        self._leased = True
        self._machine = ServerSession(self._policy.offer)
        if "connect" in self._asked:
            self._decide("connect", (), self._machine.accept)
        else:
            self._machine.accept()
        self._pump()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._incoming is not None:
            self._forget()
        self._service.sessions.discard(self)
        if self._leased:
            self._leased = False
            self._context.gate.release(CONNECTIONS)
        if self._known:
            gone = "refused" if self._closing else "eof"
            self._record.ended("lost" if error is not None else gone)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._read_into  # one for all sessions: what was read is copied before another reads

    def buffer_updated(self, count: int) -> None:
        if self._leased:
            self._record.size += count
            self._machine.receive_data(bytes(self._read_into[:count]))
            self._pump()

    def pause_writing(self) -> None:
        """The client does not read what it is told: neither do we read more of it."""
        self._unread = True
        if self._transport is not None and self._leased:
            self._throttle(self._transport)

    def resume_writing(self) -> None:
        self._unread = False
        if self._leased:
            self._pump()

    def eof_received(self) -> bool:
        if not self._leased:
            return False
        self._machine.receive_data(b"")
        self._pump()
        return self._submitting  # keep our half open while an answer is owed

    def look(self, now: float) -> None:
        """Once a second: has the client been silent for as long as the machine is ready to wait?"""
        if self._closing:
            self._lingered += 1
            if self._lingered > LINGER:
                self.abort()
        elif not self._leased:
            self._lingered += 1
            if self._lingered > PATIENCE:
                self._refuse(BUSY)
        elif self._heard:
            wait = self._machine.deadline()
            self._expires = _NEVER if wait is None else now + wait
            self._heard = False
        elif now >= self._expires and not self._submitting:
            self._machine.timed_out()
            self._pump()

    def drain(self) -> None:
        """End as soon as no message is under way."""
        self._draining = True
        if not self._leased:
            self._refuse(LEAVING)
        elif self._transport is not None and self._incoming is None:
            self._machine.shutdown(LEAVING)
            self._pump()

    def abort(self) -> None:
        """End now; a message whose 250 was not said is the client's."""
        if self._transport is not None:
            self._record.end = self._record.end or "aborted"
            self._transport.abort()

    # --- the loop of events -----------------------------------------------------------

    def _pump(self) -> None:
        """Answer events until the machine needs more bytes or an answer that is not there yet."""
        machine = self._machine
        event: events.Event = PAUSED
        turn = 0
        while not self._unread:
            event = machine.next_event()
            act = _ACTIONS.get(type(event))
            if act is None:
                break
            act(self, event)
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
        if machine.closing or (self._half_closed and not self._submitting):
            if self._incoming is not None:
                self._forget()
            self._closing = True
            transport.close()
        elif event is PAUSED or self._paused:  # else nothing is left over
            self._throttle(transport)

    def _throttle(self, transport: asyncio.Transport) -> None:
        incoming = self._incoming
        full = self._unread or self._machine.full or (incoming is not None and incoming.pending > 0)
        if full != self._paused:
            self._paused = full
            (transport.pause_reading if full else transport.resume_reading)()

    def _resume(self) -> None:
        """The disk has got something to take, or has taken it."""
        if self._transport is not None:
            self._throttle(self._transport)

    def _decide(self, step: str, facts: tuple[Any, ...], accepted: Callable[[], None]) -> None:
        """Go on by `accepted` unless a hook refuses this step, in which some hook has a say."""
        task = self._loop.create_task(self._ask(step, facts, accepted))
        self._asking = task

    def _when(self, answer: "Future[T]", then: Callable[[T], None]) -> None:
        """Go on by `then` now where the answer is there, which is the rule, else when it comes."""
        if answer.done():
            then(answer.result())
        else:
            answer.add_done_callback(partial(self._told, then))

    def _told(self, then: Callable[[T], None], answer: "Future[T]") -> None:
        then(answer.result())
        if self._leased:
            self._pump()

    async def _ask(self, step: str, facts: tuple[Any, ...], accepted: Callable[[], None]) -> None:
        reply = await self._context.hooks.ask(step, self._session_facts(), *facts)
        if self._transport is None:
            return
        if reply is None:
            accepted()
        else:
            self._machine.send(reply)
        self._pump()

    # --- the steps: each goes on at once where no hook has a say, which is the rule ----

    def _on_hello(self, event: events.Hello) -> None:
        self._record.refused(self._machine.refused)  # before it had this name
        self._record.helo, self._extended = event.name, event.extended
        if self._incoming is not None:
            self._forget()
        if "helo" in self._asked:
            self._decide("helo", (), self._machine.accept)
        else:
            self._machine.accept()

    def _on_mail(self, event: events.Mail) -> None:
        if self._context.settings.messagesperhour and not self._policy.relay:
            self._when(self._spend(MESSAGES_PER_HOUR), partial(self._mail, event))
        else:
            self._mail(event, True)

    def _mail(self, event: events.Mail, seldom: bool) -> None:
        if self._transport is None:
            return
        if not seldom:
            self._machine.send(_TOO_MUCH)
        elif "mail" in self._asked:
            self._decide("mail", (event.sender,), partial(self._begin, event))
        else:
            self._begin(event)

    def _begin(self, event: events.Mail) -> None:
        self._incoming = Incoming(event, self._context.submission, self._resume)
        self._machine.accept()

    def _on_rcpt(self, event: events.Rcpt) -> None:
        incoming, recipient = self._incoming, event.recipient
        if incoming is None or not self._policy.takes(recipient.address):
            self._machine.send(NOT_OURS)
            return
        if self._policy.suffix:
            address = recipient.address + self._policy.suffix
            recipient = Recipient(address, recipient.notify, recipient.orcpt)
        if "rcpt" in self._asked:
            self._decide("rcpt", (incoming.mail.sender, recipient), partial(self._add, incoming, recipient))
        else:
            self._add(incoming, recipient)

    def _add(self, incoming: Incoming, recipient: Recipient) -> None:
        if self._recipients is None:
            self._checked(incoming, recipient, None)
        else:
            verdict = self._recipients.check(recipient.address)
            self._when(verdict, partial(self._checked, incoming, recipient))

    def _checked(self, incoming: Incoming, recipient: Recipient, refusal: Reply | None) -> None:
        if refusal is not None:
            self._machine.send(refusal)
            return
        incoming.recipients.append(recipient)
        self._machine.accept()

    def _on_data(self, event: events.Data) -> None:
        incoming = self._incoming
        if incoming is None:
            self._machine.accept()
        elif "data" in self._asked:
            envelope = incoming.envelope(self._service.origin)
            self._decide("data", (envelope,), partial(self._go_ahead, incoming))
        else:
            self._go_ahead(incoming)

    def _go_ahead(self, incoming: Incoming) -> None:
        incoming.add(
            received(
                helo=self._record.helo,
                client=self._client[0],
                by=self._context.settings.me,
                extended=self._extended,
                smtputf8=incoming.mail.smtputf8,
                now=self._context.clock.now(),
            )
        )
        self._machine.accept()

    def _on_chunk(self, event: events.Chunk) -> None:
        incoming = self._incoming
        if incoming is not None:
            incoming.add(event.data)
            if incoming.pending:
                self._resume()

    def _on_end(self, event: events.MessageEnd) -> None:
        incoming = self._incoming
        if incoming is None:
            return
        if incoming.end() > HOPS:
            self._forget()
            self._machine.send(TOO_MANY_HOPS)
            return
        self._submitting = True
        if "message" in self._asked:
            envelope = incoming.envelope(self._service.origin)
            self._decide("message", (envelope, event.size), partial(self._submit, incoming))
        else:
            self._submit(incoming)

    def _submit(self, incoming: Incoming) -> None:
        try:
            body = incoming.body()
        except OpenqmailError as error:
            self._submitted_badly(error)
            return
        future = self._context.submission.submit(incoming.envelope(self._service.origin), body)
        future.add_done_callback(partial(self._submitted, incoming))

    def _submitted(self, incoming: Incoming, done: Future[MessageId]) -> None:
        error = done.exception()
        if error is None:
            self._incoming = None
            self._submitting = False
            # even when nobody is there any more to be told
            self._record.accepted(done.result().number, incoming.mail.sender, len(incoming.recipients))
            if self._transport is None:
                return
            self._machine.accept(b"250 2.0.0 ok message %d\r\n" % done.result().number)
        else:
            self._submitted_badly(error)
            if self._transport is None:
                return
        if self._draining:
            self._machine.shutdown(LEAVING)
        self._pump()

    def _submitted_badly(self, error: BaseException) -> None:
        self._forget()
        if self._transport is not None:
            self._machine.send(_FULL if isinstance(error, QueueFull) else _TROUBLE)

    def _on_reset(self, event: events.Reset) -> None:
        self._forget()
        if self._draining:
            self._machine.shutdown(LEAVING)

    def _on_quit(self, event: events.Quit) -> None:
        self._record.end = "quit"
        self._forget()

    def _on_aborted(self, event: events.Aborted) -> None:
        """The machine has had its last word."""
        self._record.said_last(event.reply)
        self._forget()

    def _on_ended(self, event: events.Ended) -> None:
        """The client sends no more; an answer that it is owed is still given."""
        self._half_closed = True
        self._record.end = "eof"

    # --- parts ------------------------------------------------------------------------

    def _spend(self, rate: bytes) -> "Future[bool]":
        return self._context.gate.spend(rate, network_of(self._client[0]))

    def _refuse(self, reply: Reply) -> None:
        """Say why there is no service, and hang up."""
        if self._transport is not None and not self._closing:
            self._closing = True
            self._record.said_last(reply)
            self._transport.write(reply.encode())
            self._transport.close()

    def _forget(self) -> None:
        """The mail transaction under way, if any, is no more."""
        self._submitting = False
        if self._incoming is not None:
            self._incoming.abort()
            self._incoming = None

    def _session_facts(self) -> SessionFacts:
        """What hooks are told; gathered only when there is one to ask."""
        server = self._transport.get_extra_info("sockname") if self._transport else None
        return SessionFacts(
            service=self._context.listener.service,
            client=self._client[0],
            client_port=self._client[1],
            server=server[0] if server else "",
            relay=self._policy.relay,
            helo=self._record.helo,
            extended=self._extended,
        )


_ACTIONS: dict[type, Callable[[SmtpSession, Any], None]] = {
    events.Hello: SmtpSession._on_hello,
    events.Mail: SmtpSession._on_mail,
    events.Rcpt: SmtpSession._on_rcpt,
    events.Data: SmtpSession._on_data,
    events.Chunk: SmtpSession._on_chunk,
    events.MessageEnd: SmtpSession._on_end,
    events.Reset: SmtpSession._on_reset,
    events.Quit: SmtpSession._on_quit,
    events.Aborted: SmtpSession._on_aborted,
    events.Ended: SmtpSession._on_ended,
}
