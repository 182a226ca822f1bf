"""The second half of a dialogue, from DATA or the first BDAT on: a message for the hooks and the queue.

250 at its end is said only when the queue's promise has come true.  An answer that is not there yet comes
later, and then the connection is told to go on.  It reads and writes no socket.
"""

from asyncio import AbstractEventLoop, CancelledError, Future
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from openqmail.core.hooks import Conversation, Examined, HangUp, SessionFacts, examine
from openqmail.core.hooks.interface import WhyReset
from openqmail.core.log import Notice
from openqmail.core.message.fresh import FreshHeader, PlainHeader
from openqmail.core.message.trace import received
from openqmail.core.ports import LargeBody
from openqmail.core.smtp import events
from openqmail.core.smtp.server import ServerSession
from openqmail.core.smtp.xclient import XClient
from openqmail.core.smtpd.incoming import Incoming
from openqmail.core.smtpd.policy import HOPS, LEAVING, LONG_HEADER, TOO_MANY_HOPS, Policy
from openqmail.core.smtpd.record import SessionRecord
from openqmail.core.smtpd.standing import Standing
from openqmail.core.values import Decision, Envelope, MessageId, OpenqmailError, QueueFull, Reply
from openqmail.core.values.verdict import GO_ON, Refusal

if TYPE_CHECKING:
    from openqmail.core.smtpd.service import SmtpService

T = TypeVar("T")

_FULL = Reply(452, b"4.3.1", (b"too little room in the queue, try again later",))
_TROUBLE = Reply(451, b"4.3.0", (b"the queue has a problem, try again later",))


class Connection(Protocol):
    """Whose dialogue it is."""

    @property
    def gone(self) -> bool:
        """Nobody is there any more to be told."""
        ...

    def go_on(self) -> None:
        """An answer that was owed has been given."""
        ...

    def when(self, answer: "Future[T]", then: Callable[[T], None]) -> None:
        """Go on by `then` now where the answer is there, else when it comes."""
        ...

    def begin_anew(self, said: XClient) -> None:
        """The session is over, and one for another client begins."""
        ...

    def throttle(self) -> None:
        """The disk, or a hook, has got something to take, or has taken it."""
        ...

    def hang_up(self) -> None:
        """Write what was said, and end."""
        ...


class Handover:
    """What a dialogue keeps of its session, and what it does with a message."""

    # How every one begins: what most never change is not set anew for each.
    incoming: Incoming | None = None
    """The mail transaction under way."""
    submitting = False
    """An answer to its end is owed."""
    draining = False
    _hooks: Conversation | None = None
    """None where no hook is asked anything."""

    def __init__(
        self,
        connection: Connection,
        service: "SmtpService",
        loop: AbstractEventLoop,
        policy: Policy,
        record: SessionRecord,
        client: tuple[str, int],
        server: str,
    ) -> None:
        self.machine = ServerSession(policy.offer)
        self.standing = Standing(service, self.machine, policy, record)
        self._connection = connection
        self._service = service
        self._context = service.context
        if service.asked:
            self._hooks = Conversation(service.context.hooks, service.asked, self._session_facts)
        self._loop = loop
        self._record = record
        self._client = client
        self._server = server

    def drain(self) -> None:
        """End as soon as no message is under way."""
        self.draining = True
        if self.incoming is None:
            self.machine.shutdown(LEAVING)

    def forget(self, why: WhyReset = "abandoned") -> None:
        """The mail transaction under way, if any, is no more."""
        self.submitting = False
        if self.incoming is not None:
            self.incoming.abort()
            self.incoming = None
            if self._hooks is not None:
                self._hooks.reset(why)

    def over(self) -> None:
        """The connection is no more: what is asked about the client is of no use any more."""
        self.forget()
        self.standing.over()
        if self._hooks is not None:
            self._hooks.reset("end")
            self._hooks = None  # or each would keep the other, until the garbage is collected

    # --- the message comes ------------------------------------------------------------

    def _on_data(self, event: events.Data) -> None:
        incoming, hooks = self.incoming, self._hooks
        if incoming is None:
            self.machine.accept()
            return
        asked = GO_ON if hooks is None else hooks.ask("data", incoming.envelope(self._service.origin))
        if asked is GO_ON:
            self._go_ahead(incoming, GO_ON)
        else:
            self._decide(asked, partial(self._go_ahead, incoming))

    def _go_ahead(self, incoming: Incoming, decision: Decision) -> None:
        incoming.begin(
            received(
                helo=self._record.helo,
                client=self._client[0],
                name=self.standing.policy.name,
                by=self._context.settings.me,
                extended=self.standing.extended,
                smtputf8=incoming.mail.smtputf8,
                now=self._context.clock.now(),
                secured=self.standing.secured,
            )
        )
        if self._hooks is not None:
            self._hooks.listen(partial(self._streaming, incoming))
            if self._hooks.stream is not None:
                incoming.heard = self._hooks.stream.feed
        if self._service.submission:
            incoming.fresh = FreshHeader(self._service.stamp())
        else:
            incoming.fresh = PlainHeader(self._hooks is not None and self._hooks.examines)
        self.machine.accept()

    def _on_chunk(self, event: events.Chunk) -> None:
        incoming = self.incoming
        if incoming is not None:
            incoming.add(event.data)
            if incoming.pending:
                self._connection.throttle()

    def _streaming(self, incoming: Incoming, behind: bool) -> None:
        """The hooks have got something of the message to take, or have taken it."""
        incoming.pending += 1 if behind else -1
        if not incoming.pending:
            self._connection.throttle()

    # --- it is whole ------------------------------------------------------------------

    def _on_end(self, event: events.MessageEnd) -> None:
        incoming = self.incoming
        if incoming is None:
            return
        if incoming.end() > HOPS:
            self.forget("refused")
            self.machine.send(TOO_MANY_HOPS)
            return
        if incoming.fresh is not None and incoming.fresh.too_large:
            self.forget("refused")
            self.machine.send(LONG_HEADER)
            return
        self.submitting = True
        try:
            body = incoming.body()
        except OpenqmailError as error:
            self._submitted_badly(error)
            return
        envelope = incoming.envelope(self._service.origin)
        if self._hooks is None or not self._hooks.examines:
            self._submit(incoming, envelope, body)
            return
        submission, log = self._context.submission, self._context.log
        asked = examine(self._hooks, submission, envelope, incoming.head, body, log)
        if isinstance(asked, Examined):
            self._examined(incoming, asked)
        else:
            self._examining = asked
            asked.add_done_callback(partial(self._examined_later, incoming))

    def _examined_later(self, incoming: Incoming, asked: "Future[Examined]") -> None:
        if asked.cancelled():
            return
        if self.incoming is not incoming:  # the client is gone
            asked.result().abandon()
        elif self._examined(incoming, asked.result()):
            self._answered()

    def _examined(self, incoming: Incoming, found: Examined) -> bool:
        """What hooks made of the message; whether the client has been answered."""
        if found.error is not None:
            self._submitted_badly(found.error)
        elif found.refusal is not None:
            self.forget("refused")
            self._refuse(found.refusal)
        elif found.drop:
            sender = found.envelope.sender.decode("ascii", "replace")
            self._context.log(Notice(f"smtpd: a message from <{sender}> is thrown away, as a hook wants"))
            self.forget("done")
            self.machine.accept(b"250 2.0.0 ok\r\n")
        else:
            self._submit(incoming, found.envelope, found.body)
            return False
        return True

    def _submit(self, incoming: Incoming, envelope: Envelope, body: bytes | LargeBody) -> None:
        hold = self._hooks.hold if self._hooks is not None else ""
        future = self._context.submission.submit(envelope, body, hold)
        future.add_done_callback(partial(self._submitted, incoming, envelope))

    def _submitted(self, incoming: Incoming, envelope: Envelope, done: Future[MessageId]) -> None:
        error = CancelledError() if done.cancelled() else done.exception()
        if error is None:
            self.incoming = None
            self.submitting = False
            if self._hooks is not None:
                self._hooks.reset("done")
            # even when nobody is there any more to be told
            self._record.accepted(done.result().number, envelope.sender, len(envelope.recipients))
            if self._connection.gone:
                return
            self.machine.accept(b"250 2.0.0 ok message %d\r\n" % done.result().number)
        else:
            self._submitted_badly(error)
            if self._connection.gone:
                return
        self._answered()

    def _answered(self) -> None:
        """The client has been told what became of its message."""
        if self.draining:
            self.machine.shutdown(LEAVING)
        self._connection.go_on()

    def _submitted_badly(self, error: BaseException) -> None:
        self.forget("refused")
        if not self._connection.gone:
            self.machine.send(_FULL if isinstance(error, QueueFull) else _TROUBLE)

    # --- asking, and saying no --------------------------------------------------------

    def _decide(
        self,
        asked: "Decision | Future[Decision]",
        then: Callable[[Decision], None],
        otherwise: Callable[[Refusal], None] | None = None,
    ) -> None:
        """Go on by `then` unless a hook refuses, now where they answer at once, which is the rule."""
        if isinstance(asked, Decision):
            self._decided(then, otherwise, asked)
        else:
            asked.add_done_callback(partial(self._decided_later, then, otherwise))

    def _decided(
        self,
        then: Callable[[Decision], None],
        otherwise: Callable[[Refusal], None] | None,
        decision: Decision,
    ) -> None:
        if decision.refusal is None:
            then(decision)
        elif otherwise is None:
            self._refuse(decision.refusal)
        else:
            otherwise(decision.refusal)

    def _decided_later(
        self,
        then: Callable[[Decision], None],
        otherwise: Callable[[Refusal], None] | None,
        asked: "Future[Decision]",
    ) -> None:
        if not self._connection.gone and not asked.cancelled():
            self._decided(then, otherwise, asked.result())
            self._connection.go_on()

    def _refuse(self, refusal: Refusal) -> None:
        """As a hook wants."""
        if refusal.reply is not None:
            self.machine.send(refusal.reply)
        if isinstance(refusal, HangUp):
            self._record.end = "refused"
            self._connection.hang_up()

    def _part(self, reply: Reply) -> None:
        """Answer with 421, which ends the session."""
        self._record.said_last(reply)
        self.machine.send(reply)

    def _session_facts(self, id: int, listed: bool) -> SessionFacts:
        """What hooks are told; gathered only when there is one to ask."""
        standing, incoming = self.standing, self.incoming
        return SessionFacts(
            service=self._context.listener.service,
            client=self._client[0],
            client_port=self._client[1],
            server=self._server,
            relay=standing.policy.relay,
            helo=self._record.helo,
            extended=standing.extended,
            name=standing.policy.name.encode(),
            tls=standing.tls,
            identity=self.machine.identity or b"",
            id=id,
            sender=None if incoming is None else incoming.mail.sender,
            count=0 if incoming is None else len(incoming.recipients),
            listed=listed,
        )
