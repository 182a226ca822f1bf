"""One connection of the local submission: one request (wire.py), its hooks, its answer.

The kernel says who calls; one whose uid it does not tell is put off.  K is said only when the queue's
promise has come true.  Bounded are recipients, the message, and a client's silence.  Hooks are asked as for
SMTP, at mail, rcpt, data and message.
"""

import asyncio
from asyncio import AbstractEventLoop, Future
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from openqmail.core.hooks import Conversation, Examined, SessionFacts, examine
from openqmail.core.hooks.interface import WhyReset
from openqmail.core.log import Notice, SubmitAccepted, SubmitRefused
from openqmail.core.message.fresh import PlainHeader
from openqmail.core.message.trace import qmail_hop
from openqmail.core.ports import LargeBody
from openqmail.core.submit import wire
from openqmail.core.submit.caller import caller
from openqmail.core.submit.incoming import Incoming
from openqmail.core.values import (
    Decision,
    Envelope,
    MessageId,
    Origin,
    QueueFull,
    Recipient,
    Reply,
)
from openqmail.core.values.verdict import GO_ON, Refusal

if TYPE_CHECKING:
    from openqmail.core.submit.service import SubmitService

SILENCE = 30
"""Seconds that a client may be silent before its message is whole."""
WHOLE = 300
"""Seconds that a request may take in all: who drips bytes holds a place up as who is silent does."""

_BUSY = b"too many connections, try again later " + wire.BUSY
_LEAVING = b"shutting down, try again later " + wire.BUSY
_NOBODY = b"the system does not say who you are, so nothing is taken from you (#4.7.0)"
_FULL = b"too little room in the queue, try again later (#4.3.1)"
_TROUBLE = b"the queue has a problem, try again later (#4.3.0)"
_LONG_HEADER = b"the header of the message is too large (#5.3.4)"


class SubmitSession(asyncio.Protocol):
    """One connection, one request."""

    _transport: asyncio.Transport | None = None
    _origin: Origin | None = None  # set once it is admitted
    _silent = 0
    _age = 0
    _began = False  # something of the request has come
    _submitting = False  # it is with the queue, which will say what became of it
    _told = False  # what became of it, to the log
    _waiting = False  # for a hook, or for the queue's promise
    _paused = False
    _incoming: Incoming | None = None  # the message, until it is the queue's
    _message = False  # hooks know of one
    _behind = 0  # pieces that hooks have not taken yet

    def __init__(self, service: "SubmitService", loop: AbstractEventLoop) -> None:
        self._service = service
        self._context = service.context
        self._hooks: Conversation | None = None
        if service.asked:
            self._hooks = Conversation(self._context.hooks, service.asked, self._facts)
        self._loop = loop
        settings = self._context.settings
        self._request = wire.RequestDecoder(settings.maxrecipients, settings.databytes)
        self._sender = b""
        self._recipients: list[Recipient] = []

    # --- the connection ---------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        origin = caller(transport.get_extra_info("socket"))
        if origin is None:
            self._answer(b"Z", _NOBODY)
        elif self._service.draining:
            self._answer(b"Z", _LEAVING)
        elif not self._service.admit(self, origin.uid):
            self._answer(b"Z", _BUSY)
        else:
            self._origin = origin

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._forget()
        if self._hooks is not None:
            self._over("abandoned")
            self._hooks.reset("end")
            self._hooks = None  # or each would keep the other, until the garbage is collected
        if self._began and not self._submitting:
            self._log_refusal("gone", b"the client went away, or was silent for too long")
        if self._origin is not None:
            self._service.left(self, self._origin.uid)

    def data_received(self, data: bytes) -> None:
        if self._origin is None:
            return
        self._silent = 0
        self._began = True
        self._request.receive(data)
        self._pump()

    def eof_received(self) -> bool:
        return self._waiting  # keep our half open while an answer is owed

    def look(self) -> None:
        """Once a second."""
        if not self._waiting and not self._paused:
            self._silent += 1
            self._age += 1
            if self._silent > SILENCE or self._age > WHOLE:
                self.abort()

    def drain(self) -> None:
        """What has begun may end; silence is bounded."""
        if not self._began:
            self._answer(b"Z", _LEAVING)

    def abort(self) -> None:
        """End now; a message whose K was not said is the client's."""
        if self._transport is not None:
            self._transport.abort()

    # --- the request ------------------------------------------------------------------

    def _pump(self) -> None:
        """Take events until more bytes or an answer are needed."""
        try:
            while not self._waiting:
                event = self._request.next_event()
                if event is None:
                    break
                self._take(event)
        except wire.WireError as error:
            self._answer(b"D", str(error).encode())
        self._throttle()

    def _take(self, event: wire.Event) -> None:
        match event:
            case wire.Sender():
                self._ask("mail", event.address, partial(self._set_sender, event.address))
            case wire.Recipient():
                recipient = Recipient(event.address)
                self._ask("rcpt", recipient, partial(self._add_recipient, recipient))
            case wire.Message():
                self._ask("data", self._envelope(), partial(self._begin, event.size))
            case wire.Chunk():
                if self._incoming is not None:
                    self._incoming.add(event.data)
            case wire.End():
                if self._incoming is not None:
                    self._end(self._incoming)

    def _set_sender(self, address: bytes, decision: Decision) -> None:
        self._sender = address if decision.address is None else decision.address
        self._message = True

    def _add_recipient(self, recipient: Recipient, decision: Decision) -> None:
        if decision.address is not None:
            recipient = Recipient(decision.address)
        self._recipients.append(recipient)

    def _begin(self, size: int, decision: Decision) -> None:
        """The message comes, with our line on top."""
        if self._origin is None:
            return
        heard, read = None, False
        if self._hooks is not None:
            self._hooks.listen(self._streaming)
            read = self._hooks.examines
            if self._hooks.stream is not None:
                heard = self._hooks.stream.feed
        how = b"by uid %d" % self._origin.uid
        hop = qmail_hop(self._origin.pid, how, self._context.clock.now())
        header = PlainHeader(read)
        self._incoming = Incoming(hop, size, self._context.submission, header, heard, self._stored)

    def _stored(self, error: BaseException | None) -> None:
        """The disk has taken a piece of it, or has not."""
        if error is not None:
            self._refused_by_queue(error)
        self._throttle()

    def _end(self, incoming: Incoming) -> None:
        self._waiting = True
        body = incoming.end()
        if incoming.too_large:
            self._over("refused")
            self._answer(b"D", _LONG_HEADER)
        elif self._hooks is None or not self._hooks.examines:
            self._submit(self._envelope(), body)
        else:
            submission, log = self._context.submission, self._context.log
            asked = examine(self._hooks, submission, self._envelope(), incoming.head, body, log)
            if isinstance(asked, Examined):
                self._examined(asked)
            else:
                self._examining = asked
                asked.add_done_callback(self._examined_later)

    def _examined_later(self, asked: "Future[Examined]") -> None:
        if asked.cancelled():
            return
        if self._open:
            self._examined(asked.result())
        else:
            asked.result().abandon()

    def _examined(self, found: Examined) -> None:
        if found.error is not None:
            self._refused_by_queue(found.error)
        elif found.refusal is not None:
            self._refuse(found.refusal)
        elif found.drop:
            self._over("done")
            self._told = True
            sender = found.envelope.sender.decode("ascii", "replace")
            self._context.log(Notice(f"submit: a message from <{sender}> is thrown away, as a hook wants"))
            self._answer(b"K", b"ok")
        else:
            self._submit(found.envelope, found.body)

    def _submit(self, envelope: Envelope, body: bytes | LargeBody) -> None:
        self._incoming = None  # from here on it is the queue's
        self._submitting = True
        hold = self._hooks.hold if self._hooks is not None else ""
        future = self._context.submission.submit(envelope, body, hold)
        future.add_done_callback(partial(self._submitted, envelope))

    def _submitted(self, envelope: Envelope, done: Future[MessageId]) -> None:
        error = _failure(done)
        if error is not None:
            self._refused_by_queue(error)
        elif self._origin is not None:
            number, origin = done.result().number, self._origin
            self._told = True  # even when nobody is there any more to be told
            self._over("done")
            count = len(envelope.recipients)
            self._context.log(SubmitAccepted(number, origin.uid, origin.pid, envelope.sender, count))
            self._answer(b"K", b"ok message %d qp %d" % (number, origin.pid))

    def _refused_by_queue(self, error: BaseException) -> None:
        self._over("refused")
        self._answer(b"Z", _FULL if isinstance(error, QueueFull) else _TROUBLE)

    def _envelope(self) -> Envelope:
        """A sender or recipient beyond ASCII needs RFC 6531's extension on every hop."""
        ascii_only = self._sender.isascii() and all(one.address.isascii() for one in self._recipients)
        origin = self._origin or Origin(0, 0)
        return Envelope(self._sender, tuple(self._recipients), origin, smtputf8=not ascii_only)

    # --- hooks ------------------------------------------------------------------------

    def _ask(self, step: str, fact: Any, then: Callable[[Decision], None]) -> None:
        """Go on by `then` unless a hook refuses, at once where they answer at once."""
        if self._hooks is None:
            then(GO_ON)
            return
        asked = self._hooks.ask(step, fact)
        if isinstance(asked, Decision):
            self._decided(then, asked)
        else:
            self._waiting = True
            asked.add_done_callback(partial(self._decided_later, then))

    def _decided(self, then: Callable[[Decision], None], decision: Decision) -> None:
        if decision.refusal is None:
            then(decision)
        else:
            self._refuse(decision.refusal)

    def _decided_later(self, then: Callable[[Decision], None], asked: "Future[Decision]") -> None:
        if self._open and not asked.cancelled():
            self._waiting = False
            self._decided(then, asked.result())
            self._pump()

    def _refuse(self, refusal: Refusal) -> None:
        self._over("refused")
        reply = refusal.reply or _HUNG_UP
        self._answer(b"D" if reply.permanent else b"Z", _text(reply))

    def _streaming(self, behind: bool) -> None:
        """The hooks have got something of the message to take, or have taken it."""
        self._behind += 1 if behind else -1
        self._throttle()

    def _over(self, why: WhyReset) -> None:
        if self._hooks is not None and self._message:
            self._message = False
            self._hooks.reset(why)

    def _facts(self, id: int, listed: bool) -> SessionFacts:
        """What hooks are told: it comes from this host.  Who it is stands in the envelope's origin."""
        return SessionFacts(
            service="submit",
            client="",
            client_port=0,
            server="",
            relay=True,
            id=id,
            sender=self._sender if self._message else None,
            count=len(self._recipients),
        )

    # --- parts ------------------------------------------------------------------------

    @property
    def _open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def _throttle(self) -> None:
        """The client is read no further while we wait, or the disk is behind."""
        if self._transport is None or not self._open:
            return
        pending = self._incoming.pending if self._incoming is not None else 0
        full = self._waiting or pending > 0 or self._behind > 0
        if full != self._paused:
            self._paused = full
            (self._transport.pause_reading if full else self._transport.resume_reading)()

    def _answer(self, letter: bytes, text: bytes) -> None:
        """The last word, said once; what the client still sends is not read."""
        if letter != b"K":
            self._log_refusal(_OUTCOMES[letter], text)
        self._waiting = True
        self._forget()
        if self._transport is not None and self._open:
            self._transport.write(wire.answer(letter, text))
            self._transport.close()

    def _log_refusal(self, outcome: str, text: bytes) -> None:
        """Once; never after it was accepted."""
        if not self._told:
            self._told = True
            origin = self._origin
            uid, pid = (origin.uid, origin.pid) if origin is not None else (None, None)
            self._context.log(SubmitRefused(outcome, uid, pid, self._sender, text))

    def _forget(self) -> None:
        if self._incoming is not None:
            self._incoming.abort()
            self._incoming = None


_OUTCOMES = {b"D": "failure", b"Z": "deferral"}

_HUNG_UP = Reply(450, b"4.7.0", (b"nothing is taken from you just now",))
"""For a hook that wants to hang up without a word: a program has to be told something."""


def _failure(done: Future[Any]) -> BaseException | None:
    return asyncio.CancelledError() if done.cancelled() else done.exception()


def _text(reply: Reply) -> bytes:
    """A hook's reply in one line, its code behind it."""
    text = b" ".join(reply.lines)
    return b"%b (#%b)" % (text, reply.enhanced) if reply.enhanced else text
