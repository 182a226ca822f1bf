"""What an SMTP client is answered: each event of the server machine, from policy, hooks, mailboxes or queue.

250 after the data is said only when the queue's promise has come true.  An answer that is not
there yet comes later, and then the connection is told to go on.  It reads and writes no socket.
"""

from asyncio import AbstractEventLoop, Future
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from openqmail.core.hooks import SessionFacts
from openqmail.core.limits import network_of
from openqmail.core.message.trace import received
from openqmail.core.ports import MESSAGES_PER_HOUR, RECIPIENTS_PER_HOUR
from openqmail.core.smtp import events
from openqmail.core.smtp.server import ServerSession
from openqmail.core.smtp.xclient import XClient
from openqmail.core.smtpd.bounds import bounds_of
from openqmail.core.smtpd.incoming import Incoming
from openqmail.core.smtpd.policy import (
    BAD_HELO,
    HOPS,
    LEAVING,
    TALKS_FIRST,
    TOO_MANY_GUESSES,
    TOO_MANY_HOPS,
    TOO_MANY_MESSAGES,
    Policy,
    at_home,
    bad_helo,
)
from openqmail.core.smtpd.record import SessionRecord
from openqmail.core.values import MessageId, OpenqmailError, QueueFull, Recipient, Reply

if TYPE_CHECKING:
    from openqmail.core.smtpd.service import SmtpService

T = TypeVar("T")

_TOO_MUCH = Reply(450, b"4.7.1", (b"too many messages from your network, try again later",))
_TOO_MANY_RECIPIENTS = Reply(450, b"4.7.1", (b"too many recipients from your network, try again later",))
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
        """The disk has got something to take, or has taken it."""
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
    _listed: "Future[Reply | None] | None" = None
    """What lists say of the client, where they are asked."""

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
        self._asked = service.asked
        self._recipients = service.recipients
        self._origin = service.origin
        self._admission = service.admission
        self._ours = (server, *service.addresses)
        self._bounds = bounds_of(service.context.settings, policy.relay)
        self._loop = loop
        self._policy = policy
        self._record = record
        self._client = client
        self._server = server

    def greet(self) -> None:
        """Now, or after a while in which the client is to listen.  Lists are asked meanwhile."""
        if self._admission.lists and self._policy.listed and self._policy.refusal is None:
            self._listed = self._admission.listed(self._client[0])
        if self._policy.greetdelay:
            self._loop.call_later(self._policy.greetdelay, self._greet_late)
        else:
            self._greet()

    def _greet_late(self) -> None:
        if self._connection.gone:
            return
        if self.machine.ahead:
            self.machine.send(TALKS_FIRST)
        else:
            self._greet()
        self._connection.go_on()

    def _greet(self) -> None:
        if "connect" in self._asked:
            self._decide("connect", (), self.machine.accept)
        else:
            self.machine.accept()

    def drain(self) -> None:
        """End as soon as no message is under way."""
        self.draining = True
        if self.incoming is None:
            self.machine.shutdown(LEAVING)

    def forget(self) -> None:
        """The mail transaction under way, if any, is no more."""
        self.submitting = False
        if self.incoming is not None:
            self.incoming.abort()
            self.incoming = None

    def end(self) -> None:
        """The client is gone: what is asked about it is of no use any more."""
        self.forget()
        if self._listed is not None:
            self._listed.cancel()

    # --- the steps: each goes on at once where no hook has a say, which is the rule ----

    def _on_hello(self, event: events.Hello) -> None:
        self._record.refused(self.machine.refused)  # before it had this name
        self._record.helo, self._extended = event.name, event.extended
        if self.incoming is not None:
            self.forget()
        settings = self._context.settings
        if settings.badhelo and not self._policy.relay and bad_helo(event.name, settings.badhelo):
            self.machine.send(BAD_HELO)
        elif "helo" in self._asked:
            self._decide("helo", (), self.machine.accept)
        else:
            self.machine.accept()

    def _on_xclient(self, event: events.XClientSaid) -> None:
        self._connection.begin_anew(event.said)

    def _on_mail(self, event: events.Mail) -> None:
        if not self._bounds.begin():
            self._part(TOO_MANY_MESSAGES)
        elif self._listed is not None:
            self._connection.when(self._listed, partial(self._mail_of, event))
        else:
            self._mail_of(event, self._policy.refusal)

    def _mail_of(self, event: events.Mail, refusal: Reply | None) -> None:
        """`refusal`: of whoever this client is."""
        if self._connection.gone:
            return
        if refusal is not None:
            self.machine.send(refusal)
        elif self._context.settings.messagesperhour and not self._policy.relay:
            spent = self._context.gate.spend(MESSAGES_PER_HOUR, network_of(self._client[0]))
            self._connection.when(spent, partial(self._mail, event))
        else:
            self._mail(event, True)

    def _mail(self, event: events.Mail, seldom: bool) -> None:
        if self._connection.gone:
            return
        if not seldom:
            self.machine.send(_TOO_MUCH)
        elif "mail" in self._asked:
            self._decide("mail", (event.sender,), partial(self._begin, event))
        else:
            self._begin(event)

    def _begin(self, event: events.Mail) -> None:
        self.incoming = Incoming(event, self._context.submission, self._connection.throttle)
        self.machine.accept()

    def _on_rcpt(self, event: events.Rcpt) -> None:
        incoming, recipient = self.incoming, event.recipient
        if incoming is None:
            self.machine.accept()
            return
        address = self._judge(incoming.mail.sender, recipient.address)
        if isinstance(address, Reply):
            self._refuse(address)
            return
        if address != recipient.address:
            recipient = Recipient(address, recipient.notify, recipient.orcpt)
        if self._counted:
            spent = self._context.gate.spend(RECIPIENTS_PER_HOUR, network_of(self._client[0]))
            self._connection.when(spent, partial(self._rcpt, incoming, recipient))
        else:
            self._rcpt(incoming, recipient, True)

    def _judge(self, sender: bytes, recipient: bytes) -> bytes | Reply:
        """`recipient` as it stands in the envelope, or the reply that refuses it."""
        address = at_home(recipient, self._ours, self._context.settings.localiphost)
        return self._policy.judge(sender, address) or address + self._policy.suffix

    @property
    def _counted(self) -> bool:
        """Each recipient counts against what its network may send in an hour."""
        return bool(self._context.settings.recipientsperhour) and not self._policy.relay

    def _rcpt(self, incoming: Incoming, recipient: Recipient, seldom: bool) -> None:
        if self._connection.gone:
            return
        if not seldom:
            self.machine.send(_TOO_MANY_RECIPIENTS)
        elif "rcpt" in self._asked:
            self._decide("rcpt", (incoming.mail.sender, recipient), partial(self._add, incoming, recipient))
        else:
            self._add(incoming, recipient)

    def _add(self, incoming: Incoming, recipient: Recipient) -> None:
        if self._recipients is None:
            self._checked(incoming, recipient, None)
        else:
            verdict = self._recipients.check(recipient.address, partial(self._ahead, incoming))
            self._connection.when(verdict, partial(self._checked, incoming, recipient))

    def _ahead(self, incoming: Incoming) -> list[bytes]:
        """The recipients behind the one that waits for its answer, that came with it and will be looked up
        in their turn; none where that is only known when a hook or the gate was asked."""
        if self._counted or "rcpt" in self._asked:
            return []
        sender, most = incoming.mail.sender, self._bounds.ahead(len(incoming.recipients))
        judged = [self._judge(sender, one.address) for one in self.machine.recipients_ahead(most)]
        return [one for one in judged if isinstance(one, bytes)]

    def _checked(self, incoming: Incoming, recipient: Recipient, refusal: Reply | None) -> None:
        if refusal is not None:
            self._refuse(refusal)
            return
        incoming.recipients.append(recipient)
        self.machine.accept()

    def _on_data(self, event: events.Data) -> None:
        incoming = self.incoming
        if incoming is None:
            self.machine.accept()
        elif "data" in self._asked:
            envelope = incoming.envelope(self._origin)
            self._decide("data", (envelope,), partial(self._go_ahead, incoming))
        else:
            self._go_ahead(incoming)

    def _go_ahead(self, incoming: Incoming) -> None:
        incoming.add(
            received(
                helo=self._record.helo,
                client=self._client[0],
                name=self._policy.name,
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
            if incoming.pending:
                self._connection.throttle()

    def _on_end(self, event: events.MessageEnd) -> None:
        incoming = self.incoming
        if incoming is None:
            return
        if incoming.end() > HOPS:
            self.forget()
            self.machine.send(TOO_MANY_HOPS)
            return
        self.submitting = True
        if "message" in self._asked:
            envelope = incoming.envelope(self._origin)
            self._decide("message", (envelope, event.size), partial(self._submit, incoming))
        else:
            self._submit(incoming)

    def _submit(self, incoming: Incoming) -> None:
        try:
            body = incoming.body()
        except OpenqmailError as error:
            self._submitted_badly(error)
            return
        future = self._context.submission.submit(incoming.envelope(self._origin), body)
        future.add_done_callback(partial(self._submitted, incoming))

    def _submitted(self, incoming: Incoming, done: Future[MessageId]) -> None:
        error = done.exception()
        if error is None:
            self.incoming = None
            self.submitting = False
            # even when nobody is there any more to be told
            self._record.accepted(done.result().number, incoming.mail.sender, len(incoming.recipients))
            if self._connection.gone:
                return
            self.machine.accept(b"250 2.0.0 ok message %d\r\n" % done.result().number)
        else:
            self._submitted_badly(error)
            if self._connection.gone:
                return
        if self.draining:
            self.machine.shutdown(LEAVING)
        self._connection.go_on()

    def _submitted_badly(self, error: BaseException) -> None:
        self.forget()
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

    def _refuse(self, reply: Reply) -> None:
        """Refuse a recipient: later each time, and not without end, where it is for good."""
        if reply.code < 500:
            self.machine.send(reply)
        elif not self._bounds.refuse():
            self._part(TOO_MANY_GUESSES)
        elif delay := self._bounds.delay:
            self._loop.call_later(delay, self._refuse_late, reply)
        else:
            self.machine.send(reply)

    def _refuse_late(self, reply: Reply) -> None:
        if not self._connection.gone:
            self.machine.send(reply)
            self._connection.go_on()

    def _part(self, reply: Reply) -> None:
        """Answer with 421, which ends the session."""
        self._record.said_last(reply)
        self.machine.send(reply)

    def _decide(self, step: str, facts: tuple[Any, ...], accepted: Callable[[], None]) -> None:
        """Go on by `accepted` unless a hook refuses this step, in which some hook has a say."""
        task = self._loop.create_task(self._ask(step, facts, accepted))
        self._asking = task

    async def _ask(self, step: str, facts: tuple[Any, ...], accepted: Callable[[], None]) -> None:
        reply = await self._context.hooks.ask(step, self._session_facts(), *facts)
        if self._connection.gone:
            return
        if reply is None:
            accepted()
        elif step == "rcpt":
            self._refuse(reply)
        else:
            self.machine.send(reply)
        self._connection.go_on()

    def _session_facts(self) -> SessionFacts:
        """What hooks are told; gathered only when there is one to ask."""
        return SessionFacts(
            service=self._context.listener.service,
            client=self._client[0],
            client_port=self._client[1],
            server=self._server,
            relay=self._policy.relay,
            name=self._policy.name.encode(),
            helo=self._record.helo,
            extended=self._extended,
        )


ACTIONS: dict[type, Callable[[Dialogue, Any], None]] = {
    events.Hello: Dialogue._on_hello,
    events.XClientSaid: Dialogue._on_xclient,
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
