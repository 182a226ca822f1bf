"""One SMTP connection: a thin shell round the server machine.

Bytes go in, events come out, each is answered from the policy, the hooks or the queue; what
is to be sent is written once a turn.  250 after the data is said only when the queue's
promise has come true.  The client is read no further while the machine waits for an answer
with a full buffer, or while the disk is behind.
"""

import asyncio
from asyncio import AbstractEventLoop, Future
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from openqmail.core.hooks import SessionFacts
from openqmail.core.message.header import hops
from openqmail.core.message.trace import received
from openqmail.core.ports import ServiceContext
from openqmail.core.smtp import events
from openqmail.core.smtp.offer import Offer
from openqmail.core.smtp.server import ServerSession
from openqmail.core.smtpd.incoming import Incoming
from openqmail.core.smtpd.policy import DENIED, HOPS, NOT_OURS, TOO_MANY_HOPS, Policy, admit
from openqmail.core.values import MessageId, OpenqmailError, QueueFull, Recipient, Reply

if TYPE_CHECKING:
    from openqmail.core.smtpd.service import SmtpService

_NEVER = float("inf")

CONNECTIONS = b"connections"
"""The gate's counter of connections that are open."""

_BUSY = Reply(421, b"", (b"too many connections, try again later",))
_LEAVING = Reply(421, b"4.3.2", (b"shutting down, try again later",))
_FULL = Reply(452, b"4.3.1", (b"too little room in the queue, try again later",))
_TROUBLE = Reply(451, b"4.3.0", (b"the queue has a problem, try again later",))


class SmtpSession(asyncio.Protocol):
    """A connection that was just accepted; it keeps the settings that it began with."""

    def __init__(self, service: "SmtpService", context: ServiceContext, loop: AbstractEventLoop) -> None:
        self._service = service
        self._context = context
        self._loop = loop
        self._hooks = context.hooks
        self._transport: asyncio.Transport | None = None
        self._leased = False
        self._paused = False
        self._draining = False
        self._submitting = False
        self._half_closed = False
        self._client: tuple[str, int] = ("", 0)
        self._helo = b""
        self._extended = False
        self._incoming: Incoming | None = None
        self.expires = _NEVER

    # --- the connection ---------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        client = transport.get_extra_info("peername")
        if not client:  # gone before we looked
            self._transport.abort()
            return
        context = self._context
        if not context.gate.lease(CONNECTIONS):
            self._refuse(_BUSY)
            return
        self._client = client
        policy = admit(context.settings, client[0])
        if policy is None:
            context.gate.release(CONNECTIONS)
            self._refuse(DENIED)
            return
        self._leased = True
        self._policy: Policy = policy
        self._machine = ServerSession(self._offer(policy))
        self._service.opened(self)
        self._decide("connect", (), self._greet)
        self._flush()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._forget()
        self._service.closed(self)
        if self._leased:
            self._leased = False
            self._context.gate.release(CONNECTIONS)

    def data_received(self, data: bytes) -> None:
        if self._transport is not None and self._leased:
            self._machine.receive_data(data)
            self._pump()

    def eof_received(self) -> bool:
        if self._transport is None or not self._leased:
            return False
        self._machine.receive_data(b"")
        self._pump()
        return self._submitting  # keep our half open while an answer is owed

    def silent(self) -> None:
        """Nothing came for as long as the machine was ready to wait."""
        if not self._submitting:
            self._machine.timed_out()
            self._pump()

    def drain(self) -> None:
        """End as soon as no message is under way."""
        self._draining = True
        if self._transport is not None and self._incoming is None:
            self._machine.shutdown(_LEAVING)
            self._flush()

    def abort(self) -> None:
        """End now; a message whose 250 was not said is the client's."""
        if self._transport is not None:
            self._transport.abort()

    # --- the loop of events -----------------------------------------------------------

    def _pump(self) -> None:
        """Answer events until the machine needs more bytes or an answer that is not there yet."""
        machine = self._machine
        while True:
            event = machine.next_event()
            act = _ACTIONS.get(type(event))
            if act is None:
                break
            act(self, event)
        self._flush()

    def _flush(self) -> None:
        transport, machine = self._transport, self._machine
        if transport is None:
            return
        if out := machine.data_to_send():
            transport.write(out)
        if machine.closing or (self._half_closed and not self._submitting):
            self._forget()
            transport.close()
            return
        wait = machine.deadline()
        self.expires = _NEVER if wait is None else self._loop.time() + wait
        if self._paused or machine.full or self._incoming is not None:
            self._throttle(transport)

    def _throttle(self, transport: asyncio.Transport) -> None:
        incoming = self._incoming
        full = self._machine.full or (incoming is not None and incoming.busy)
        if full != self._paused:
            self._paused = full
            (transport.pause_reading if full else transport.resume_reading)()

    def _resume(self) -> None:
        """The disk has taken what was streamed to it."""
        if self._transport is not None:
            self._throttle(self._transport)

    def _decide(self, step: str, facts: tuple[Any, ...], accepted: Callable[[], None]) -> None:
        """Go on by `accepted`, unless a hook refuses this step."""
        if not self._hooks.has(step):
            accepted()
            return
        task = self._loop.create_task(self._ask(step, facts, accepted))
        self._asking = task

    async def _ask(self, step: str, facts: tuple[Any, ...], accepted: Callable[[], None]) -> None:
        reply = await self._hooks.ask(step, self._session_facts(), *facts)
        if self._transport is None:
            return
        if reply is None:
            accepted()
        else:
            self._answer(reply)
        self._pump()

    def _answer(self, reply: Reply) -> None:
        self._machine.send(reply)

    # --- the steps --------------------------------------------------------------------

    def _greet(self) -> None:
        greeting = self._context.settings.smtpgreeting + b" ESMTP"
        self._answer(Reply(220, b"", (greeting,)))

    def _on_hello(self, event: events.Hello) -> None:
        self._helo, self._extended = event.name, event.extended
        self._forget()
        self._decide("helo", (), self._machine.accept)

    def _on_mail(self, event: events.Mail) -> None:
        self._decide("mail", (event.sender,), partial(self._begin, event))

    def _begin(self, event: events.Mail) -> None:
        incoming = Incoming(self._context.submission, self._resume)
        incoming.sender = event.sender
        incoming.smtputf8 = event.smtputf8
        incoming.ret, incoming.envid = event.ret, event.envid
        self._incoming = incoming
        self._machine.accept()

    def _on_rcpt(self, event: events.Rcpt) -> None:
        incoming, recipient = self._incoming, event.recipient
        if incoming is None or not self._policy.takes(recipient.address):
            self._answer(NOT_OURS)
            return
        if self._policy.suffix:
            address = recipient.address + self._policy.suffix
            recipient = Recipient(address, recipient.notify, recipient.orcpt)
        self._decide("rcpt", (incoming.sender, recipient), partial(self._add, incoming, recipient))

    def _add(self, incoming: Incoming, recipient: Recipient) -> None:
        incoming.recipients.append(recipient)
        self._machine.accept()

    def _on_data(self, event: events.Data) -> None:
        incoming = self._incoming
        if incoming is None or not self._hooks.has("data"):
            self._machine.accept()
            return
        self._decide("data", (incoming.envelope(self._service.origin),), self._machine.accept)

    def _on_chunk(self, event: events.Chunk) -> None:
        incoming = self._incoming
        if incoming is None:
            return
        if not incoming.began:
            incoming.add(self._trace(incoming))
        incoming.add(event.data)

    def _on_end(self, event: events.MessageEnd) -> None:
        incoming = self._incoming
        if incoming is None:
            return
        if not incoming.began:  # an empty message still has our trace
            incoming.add(self._trace(incoming))
        if hops(incoming.head) > HOPS:
            self._forget()
            self._answer(TOO_MANY_HOPS)
            return
        self._submitting = True
        if not self._hooks.has("message"):
            self._submit(incoming)
            return
        envelope = incoming.envelope(self._service.origin)
        self._decide("message", (envelope, event.size), partial(self._submit, incoming))

    def _submit(self, incoming: Incoming) -> None:
        try:
            body = incoming.body()
        except OpenqmailError as error:
            self._submitted_badly(error)
            return
        future = self._context.submission.submit(incoming.envelope(self._service.origin), body)
        future.add_done_callback(self._submitted)

    def _submitted(self, done: Future[MessageId]) -> None:
        error = done.exception()
        if error is None:
            self._incoming = None
            self._submitting = False
            if self._transport is None:
                return
            self._answer(Reply(250, b"2.0.0", (b"ok message %d" % done.result().number,)))
        else:
            self._submitted_badly(error)
            if self._transport is None:
                return
        self._after_message()

    def _submitted_badly(self, error: BaseException) -> None:
        self._forget()
        if self._transport is not None:
            self._answer(_FULL if isinstance(error, QueueFull) else _TROUBLE)

    def _after_message(self) -> None:
        if self._draining:
            self._machine.shutdown(_LEAVING)
        self._pump()

    def _on_reset(self, event: events.Reset) -> None:
        self._forget()
        if self._draining:
            self._machine.shutdown(_LEAVING)

    def _on_last(self, event: events.Quit | events.Aborted) -> None:
        """QUIT or a violation: the machine has had its last word."""
        self._forget()

    def _on_ended(self, event: events.Ended) -> None:
        """The client sends no more; an answer that it is owed is still given."""
        self._half_closed = True

    # --- parts ------------------------------------------------------------------------

    def _refuse(self, reply: Reply) -> None:
        """Say why there is no service, and hang up."""
        if self._transport is not None:
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
            helo=self._helo,
            extended=self._extended,
        )

    def _offer(self, policy: Policy) -> Offer:
        settings = self._context.settings
        return Offer(
            name=settings.me,
            size=policy.size,
            max_recipients=settings.maxrecipients,
            timeout=float(settings.timeoutsmtpd),
        )

    def _trace(self, incoming: Incoming) -> bytes:
        return received(
            helo=self._helo,
            client=self._client[0],
            by=self._context.settings.me,
            extended=self._extended,
            smtputf8=incoming.smtputf8,
            now=self._context.clock.now(),
        )


_ACTIONS: dict[type, Callable[[SmtpSession, Any], None]] = {
    events.Hello: SmtpSession._on_hello,
    events.Mail: SmtpSession._on_mail,
    events.Rcpt: SmtpSession._on_rcpt,
    events.Data: SmtpSession._on_data,
    events.Chunk: SmtpSession._on_chunk,
    events.MessageEnd: SmtpSession._on_end,
    events.Reset: SmtpSession._on_reset,
    events.Quit: SmtpSession._on_last,
    events.Aborted: SmtpSession._on_last,
    events.Ended: SmtpSession._on_ended,
}
