"""What an SMTP client is answered: each event of the server machine, from policy, hooks, mailboxes or queue.

250 after the data is said only when the queue's promise has come true.  An answer that is not
there yet comes later, and then the connection is told to go on.  It reads and writes no socket.
"""

from asyncio import AbstractEventLoop, CancelledError, Future
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from openqmail.core.hooks import Conversation, Examined, HangUp, SessionFacts, examine
from openqmail.core.hooks.interface import WhyReset
from openqmail.core.limits import network_of
from openqmail.core.log import Alert, Notice
from openqmail.core.message.trace import received
from openqmail.core.ports import MESSAGES_PER_HOUR, LargeBody
from openqmail.core.smtp import events
from openqmail.core.smtp.server import ServerSession
from openqmail.core.smtpd.incoming import Incoming
from openqmail.core.smtpd.policy import HOPS, LEAVING, NOT_OURS, TOO_MANY_HOPS, Policy
from openqmail.core.smtpd.record import SessionRecord
from openqmail.core.values import Decision, Envelope, MessageId, OpenqmailError, QueueFull, Recipient, Reply
from openqmail.core.values.verdict import GO_ON, Refusal

if TYPE_CHECKING:
    from openqmail.core.smtpd.service import SmtpService

T = TypeVar("T")

_TOO_MUCH = Reply(450, b"4.7.1", (b"too many messages from your network, try again later",))
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

    def throttle(self) -> None:
        """The disk, or a hook, has got something to take, or has taken it."""
        ...

    def hang_up(self) -> None:
        """Write what was said, and end."""
        ...


class Dialogue:
    """With one client that was let in."""

    # How every one begins: what most never change is not set anew for each.
    incoming: Incoming | None = None
    """The mail transaction under way."""
    submitting = False
    """An answer to its end is owed."""
    half_closed = False
    """The client sends no more."""
    draining = False
    _extended = False

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
        """It keeps the settings that it began with."""
        self.machine = ServerSession(policy.offer)
        self._connection = connection
        self._context = service.context
        self._hooks: Conversation | None = None
        if service.asked:
            self._hooks = Conversation(service.context.hooks, service.asked, self._session_facts)
        self._recipients = service.recipients
        self._origin = service.origin
        self._loop = loop
        self._policy = policy
        self._record = record
        self._client = client
        self._server = server

    def greet(self) -> None:
        if self._hooks is None:
            self.machine.accept()
        else:
            self._decide(self._hooks.ask("connect"), self._welcome)

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
        """The connection is no more."""
        self.forget()
        if self._hooks is not None:
            self._hooks.reset("end")
            self._hooks = None  # or each would keep the other, until the garbage is collected

    # --- the steps: each goes on at once where no hook has a say, which is the rule ----

    def _on_hello(self, event: events.Hello) -> None:
        self._record.refused(self.machine.refused)  # before it had this name
        self._record.helo, self._extended = event.name, event.extended
        if self.incoming is not None:
            self.forget()
        if self._hooks is None:
            self.machine.accept()
        else:
            self._decide(self._hooks.ask("helo", event.name), self._welcome)

    def _welcome(self, decision: Decision) -> None:
        self.machine.accept()

    def _on_mail(self, event: events.Mail) -> None:
        if self._context.settings.messagesperhour and not self._policy.relay:
            spent = self._context.gate.spend(MESSAGES_PER_HOUR, network_of(self._client[0]))
            self._when(spent, partial(self._mail, event))
        else:
            self._mail(event, True)

    def _mail(self, event: events.Mail, seldom: bool) -> None:
        if self._connection.gone:
            return
        if not seldom:
            self.machine.send(_TOO_MUCH)
        elif self._hooks is None:
            self._begin(event, GO_ON)
        else:
            self._decide(self._hooks.ask("mail", event.sender), partial(self._begin, event))

    def _begin(self, event: events.Mail, decision: Decision) -> None:
        if decision.address is not None:
            event = msgspec.structs.replace(event, sender=decision.address)
        self.incoming = Incoming(event, self._context.submission, self._connection.throttle)
        self.machine.accept()

    def _on_rcpt(self, event: events.Rcpt) -> None:
        incoming, recipient = self.incoming, event.recipient
        if incoming is None:
            self.machine.send(NOT_OURS)
        elif self._hooks is None or not self._hooks.has("rcpt"):
            self._add(incoming, recipient, GO_ON)
        else:
            listed = self._policy.takes(recipient.address)
            decision = self._hooks.ask("rcpt", recipient, listed=listed)
            self._decide(decision, partial(self._add, incoming, recipient))

    def _add(self, incoming: Incoming, recipient: Recipient, decision: Decision) -> None:
        """Hooks have had their say; what core itself checks comes after them."""
        address = recipient.address if decision.address is None else decision.address
        if not decision.skip_checks and not self._policy.takes(address):
            self.machine.send(NOT_OURS)
            return
        if self._policy.suffix or decision.address is not None:
            recipient = Recipient(address + self._policy.suffix, recipient.notify, recipient.orcpt)
        if self._recipients is None or decision.skip_checks:
            self._checked(incoming, recipient, None)
        else:
            verdict = self._recipients.check(recipient.address)
            self._when(verdict, partial(self._checked, incoming, recipient))

    def _checked(self, incoming: Incoming, recipient: Recipient, refusal: Reply | None) -> None:
        if refusal is not None:
            self.machine.send(refusal)
            return
        incoming.recipients.append(recipient)
        self.machine.accept()

    def _on_data(self, event: events.Data) -> None:
        incoming = self.incoming
        if incoming is None:
            self.machine.accept()
        elif self._hooks is None:
            self._go_ahead(incoming, GO_ON)
        else:
            decision = self._hooks.ask("data", incoming.envelope(self._origin))
            self._decide(decision, partial(self._go_ahead, incoming))

    def _go_ahead(self, incoming: Incoming, decision: Decision) -> None:
        if self._hooks is not None:
            self._hooks.listen(partial(self._streaming, incoming))
        incoming.begin(
            received(
                helo=self._record.helo,
                client=self._client[0],
                by=self._context.settings.me,
                extended=self._extended,
                smtputf8=incoming.mail.smtputf8,
                now=self._context.clock.now(),
            )
        )
        self.machine.accept()

    def _on_chunk(self, event: events.Chunk) -> None:
        incoming = self.incoming
        if incoming is not None:
            incoming.add(event.data)
            if self._hooks is not None and self._hooks.stream is not None:
                self._hooks.stream.feed(event.data)
            if incoming.pending:
                self._connection.throttle()

    def _streaming(self, incoming: Incoming, behind: bool) -> None:
        """The hooks have got something of the message to take, or have taken it."""
        incoming.pending += 1 if behind else -1
        if not incoming.pending:
            self._connection.throttle()

    def _on_end(self, event: events.MessageEnd) -> None:
        incoming = self.incoming
        if incoming is None:
            return
        if incoming.end() > HOPS:
            self.forget("refused")
            self.machine.send(TOO_MANY_HOPS)
            return
        self.submitting = True
        try:
            body = incoming.body()
        except OpenqmailError as error:
            self._submitted_badly(error)
            return
        envelope = incoming.envelope(self._origin)
        if self._hooks is None or not self._hooks.examines:
            self._submit(incoming, envelope, body)
        else:
            submission = self._context.submission
            found = examine(self._hooks, submission, envelope, incoming.head, body)
            if isinstance(found, Examined):
                self._examined(incoming, found)
            else:
                self._examining = self._loop.create_task(self._examine(incoming, body, found))

    async def _examine(
        self, incoming: Incoming, body: bytes | LargeBody, examination: Awaitable[Examined]
    ) -> None:
        """What hooks say of the whole message, and make of it, where that takes its time."""
        found: Examined | Exception
        try:
            found = await examination
        except (OpenqmailError, OSError) as error:
            found = error
        except Exception as error:  # a fault of ours must not leave the client without an answer
            self._context.log(Alert(f"smtpd: hooks could not be asked about a message: {error!r}; deferred"))
            found = error
        if self.incoming is not incoming:  # the client is gone
            if isinstance(found, Examined) and found.body is not body and not isinstance(found.body, bytes):
                found.body.abort()
            return
        if isinstance(found, Exception):
            self._submitted_badly(found)
            self._answered()
        elif self._examined(incoming, found):
            self._answered()

    def _examined(self, incoming: Incoming, found: Examined) -> bool:
        """What hooks made of the message; whether the client has been answered."""
        if found.refusal is not None:
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
        submit = self._context.submission.submit
        hold = self._hooks.hold if self._hooks is not None else ""
        future = submit(envelope, body, hold) if hold else submit(envelope, body)
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

    def _on_reset(self, event: events.Reset) -> None:
        self.forget()
        if self.draining:
            self.machine.shutdown(LEAVING)

    def _on_quit(self, event: events.Quit) -> None:
        self._record.end = "quit"
        self.forget()

    def _on_aborted(self, event: events.Aborted) -> None:
        """The machine has had its last word."""
        self._record.said_last(event.reply)
        self.forget()

    def _on_ended(self, event: events.Ended) -> None:
        """The client sends no more; an answer that it is owed is still given."""
        self.half_closed = True
        self._record.end = "eof"

    # --- parts ------------------------------------------------------------------------

    def _decide(self, asked: "Decision | Future[Decision]", then: Callable[[Decision], None]) -> None:
        """Go on by `then` unless a hook refuses, now where they answer at once, which is the rule."""
        if isinstance(asked, Decision):
            self._decided(then, asked)
        else:
            asked.add_done_callback(partial(self._decided_later, then))

    def _decided(self, then: Callable[[Decision], None], decision: Decision) -> None:
        if decision.refusal is None:
            then(decision)
        else:
            self._refuse(decision.refusal)

    def _decided_later(self, then: Callable[[Decision], None], asked: "Future[Decision]") -> None:
        if not self._connection.gone and not asked.cancelled():
            self._decided(then, asked.result())
            self._connection.go_on()

    def _refuse(self, refusal: Refusal) -> None:
        if refusal.reply is not None:
            self.machine.send(refusal.reply)
        if isinstance(refusal, HangUp):
            self._record.end = "hook"
            self._connection.hang_up()

    def _when(self, answer: "Future[T]", then: Callable[[T], None]) -> None:
        """Go on by `then` now where the answer is there, which is the rule, else when it comes."""
        if answer.done():
            then(answer.result())
        else:
            answer.add_done_callback(partial(self._told, then))

    def _told(self, then: Callable[[T], None], answer: "Future[T]") -> None:
        then(answer.result())
        self._connection.go_on()

    def _session_facts(self, id: int, listed: bool) -> SessionFacts:
        """What hooks are told; gathered only when there is one to ask."""
        return SessionFacts(
            service=self._context.listener.service,
            client=self._client[0],
            client_port=self._client[1],
            server=self._server,
            relay=self._policy.relay,
            helo=self._record.helo,
            extended=self._extended,
            id=id,
            listed=listed,
            sender=None if self.incoming is None else self.incoming.mail.sender,
            count=0 if self.incoming is None else len(self.incoming.recipients),
        )


ACTIONS: dict[type, Callable[[Dialogue, Any], None]] = {
    events.Hello: Dialogue._on_hello,
    events.Mail: Dialogue._on_mail,
    events.Rcpt: Dialogue._on_rcpt,
    events.Data: Dialogue._on_data,
    events.Chunk: Dialogue._on_chunk,
    events.MessageEnd: Dialogue._on_end,
    events.Reset: Dialogue._on_reset,
    events.Quit: Dialogue._on_quit,
    events.Aborted: Dialogue._on_aborted,
    events.Ended: Dialogue._on_ended,
}
