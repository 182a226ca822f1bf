"""What an SMTP client is answered: each event of the server machine, from policy, hooks, mailboxes or queue.

Here is the half before the message: the greeting, who the client is, MAIL and RCPT; the other is
`Handover`.  Hooks are asked at RCPT before core's own checks, so that they may spare a recipient those.
"""

from asyncio import AbstractEventLoop, Future
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from openqmail.core.hooks import HangUp
from openqmail.core.hooks.interface import WhyReset
from openqmail.core.limits import network_of
from openqmail.core.ports import (
    MESSAGES_OF_LOGIN,
    MESSAGES_PER_HOUR,
    RECIPIENTS_OF_LOGIN,
    RECIPIENTS_PER_HOUR,
    SaslClient,
)
from openqmail.core.smtp import events
from openqmail.core.smtpd.authentication import MESSAGES, NOT_YOURS, RECIPIENTS, Attempts, may_send
from openqmail.core.smtpd.handover import Connection, Handover
from openqmail.core.smtpd.incoming import Incoming
from openqmail.core.smtpd.policy import (
    BAD_HELO,
    ENOUGH_RECIPIENTS,
    LEAVING,
    NO_SENDER,
    NO_TLS,
    NOT_OURS,
    TALKS_FIRST,
    TOO_MANY_GUESSES,
    TOO_MANY_HANDSHAKES,
    TOO_MANY_MESSAGES,
    Policy,
    at_home,
    bad_helo,
)
from openqmail.core.smtpd.record import SessionRecord
from openqmail.core.values import Decision, Recipient, Reply
from openqmail.core.values.verdict import GO_ON, Refusal

if TYPE_CHECKING:
    from openqmail.core.smtpd.service import SmtpService

_TOO_MUCH = Reply(450, b"4.7.1", (b"too many messages from your network, try again later",))
_TOO_MANY_RECIPIENTS = Reply(450, b"4.7.1", (b"too many recipients from your network, try again later",))


class Dialogue(Handover):
    """With one client that was let in.  Each step goes on at once where no hook has a say, which is the
    rule."""

    half_closed = False
    """The client sends no more."""
    _attempts: Attempts | None = None

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
        super().__init__(connection, service, loop, policy, record, client, server)
        self._admission = service.admission
        self._recipients = service.recipients
        self._ours = (server, *service.addresses)

    def forget(self, why: WhyReset = "abandoned") -> None:
        """What was under way, a login or mail, is no more."""
        if self._attempts is not None:
            self._attempts.abort()
        super().forget(why)

    # --- the greeting, and who the client is ------------------------------------------

    def greet(self) -> None:
        """Now, or after a while in which the client is to listen.  Lists are asked meanwhile.  Neither is for
        submission: people prove who they are."""
        service, standing = self._service, self.standing
        if not service.implicit:
            standing.greeted()
        if service.submission:
            self._greet()
            return
        policy = standing.policy
        if self._admission.lists and policy.listed and policy.refusal is None:
            standing.listed = self._admission.listed(self._client[0])
        if policy.greetdelay:
            self._loop.call_later(policy.greetdelay, self._greet_late)
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
        asked = GO_ON if self._hooks is None else self._hooks.ask("connect")
        if asked is GO_ON:
            self.machine.accept()
        else:
            self._decide(asked, self._welcome)

    def _welcome(self, decision: Decision) -> None:
        self.machine.accept()

    def _on_hello(self, event: events.Hello) -> None:
        self._record.refused(self.machine.refused)  # before it had this name
        self._record.helo, self.standing.extended = event.name, event.extended
        if self.incoming is not None:
            self.forget()
        badhelo = self._context.settings.badhelo
        if badhelo and not self.standing.policy.relay and bad_helo(event.name, badhelo):
            self.machine.send(BAD_HELO)
            return
        asked = GO_ON if self._hooks is None else self._hooks.ask("helo", event.name)
        if asked is GO_ON:
            self.machine.accept()
        else:
            self._decide(asked, self._welcome)

    def _on_xclient(self, event: events.XClientSaid) -> None:
        self._connection.begin_anew(event.said)

    def _on_starttls(self, event: events.StartTls) -> None:
        if self._service.handshakes.free(self._client[0], self.standing.policy.relay):
            self.machine.accept()  # and the session begins the handshake
        else:
            self.machine.send(TOO_MANY_HANDSHAKES)

    def _on_auth(self, event: events.Auth) -> None:
        if self._attempts is None:
            self._attempts = Attempts(
                self._context.gate,
                self.machine,
                self._connection,
                self._record,
                SaslClient(*self._client[:2], self._context.listener.service),
                self._proved,
            )
        self._attempts.begin(event, self.standing.sasl_facts())

    def _on_auth_response(self, event: events.AuthResponse) -> None:
        if self._attempts is not None:
            self._attempts.respond(event)

    def _proved(self, identity: bytes) -> None:
        """The client has the secret of that login."""
        if self._hooks is None:
            self._logged_in(identity, GO_ON)
        else:
            self._decide(self._hooks.ask("auth", identity), partial(self._logged_in, identity))

    def _logged_in(self, identity: bytes, decision: Decision) -> None:
        self.standing.log_in(identity)
        self.machine.authenticated(identity)

    # --- MAIL: lists, rates, hooks ----------------------------------------------------

    def _on_mail(self, event: events.Mail) -> None:
        standing = self.standing
        if standing.unproved:
            self.machine.send(NO_TLS if self.machine.lacks_tls else NO_SENDER)
        elif not standing.bounds.begin():
            self._part(TOO_MANY_MESSAGES)
        elif standing.listed is not None:
            self._connection.when(standing.listed, partial(self._mail_of, event))
        else:
            self._mail_of(event, standing.policy.refusal)

    def _mail_of(self, event: events.Mail, refusal: Reply | None) -> None:
        """`refusal`: of whoever this client is."""
        if self._connection.gone:
            return
        login, settings, gate = self.standing.account, self._context.settings, self._context.gate
        if refusal is not None:
            self.machine.send(refusal)
        elif login is not None and settings.loginmessagesperhour:
            spent = gate.spend(MESSAGES_OF_LOGIN, login)
            self._connection.when(spent, partial(self._mail, event, MESSAGES))
        elif settings.messagesperhour and not self.standing.policy.relay:
            spent = gate.spend(MESSAGES_PER_HOUR, network_of(self._client[0]))
            self._connection.when(spent, partial(self._mail, event, _TOO_MUCH))
        else:
            self._mail(event, _TOO_MUCH, True)

    def _mail(self, event: events.Mail, otherwise: Reply, seldom: bool) -> None:
        if self._connection.gone:
            return
        if not seldom:
            self.machine.send(otherwise)
            return
        asked = GO_ON if self._hooks is None else self._hooks.ask("mail", event.sender)
        if asked is GO_ON:
            self._begin(event, GO_ON)
        else:
            self._decide(asked, partial(self._begin, event))

    def _begin(self, event: events.Mail, decision: Decision) -> None:
        """Hooks have had their say."""
        if decision.address is not None:
            event = msgspec.structs.replace(event, sender=decision.address)
        login, senders = self.standing.login, self._context.settings.senders
        if login is not None and not decision.skip_checks and not may_send(senders, login, event.sender):
            self.machine.send(NOT_YOURS)
            return
        self.incoming = Incoming(event, self._context.submission, self._connection.throttle)
        self.incoming.unchecked = decision.skip_checks
        self.machine.accept()

    # --- RCPT: hooks, policy, rates, mailboxes ----------------------------------------

    def _on_rcpt(self, event: events.Rcpt) -> None:
        incoming = self.incoming
        if incoming is None:
            self.machine.send(NOT_OURS)
            return
        if not self.standing.bounds.name():
            self.machine.send(ENOUGH_RECIPIENTS)
            return
        recipient = self._at_home(event.recipient, event.recipient.address)
        asked: Decision | Future[Decision] = GO_ON
        if self._hooks is not None and self._hooks.has("rcpt"):
            asked = self._hooks.ask("rcpt", recipient, self.standing.policy.takes(recipient.address))
        if asked is GO_ON:
            self._checks(incoming, recipient, GO_ON)
        else:
            self._decide(asked, partial(self._checks, incoming, recipient), self._unwanted)

    def _at_home(self, recipient: Recipient, address: bytes) -> Recipient:
        """The recipient with that address; ours, where it is the literal of one of this host."""
        return _with(recipient, at_home(address, self._ours, self._context.settings.localiphost))

    def _checks(self, incoming: Incoming, recipient: Recipient, decision: Decision) -> None:
        """Hooks have had their say; what core itself checks comes after them."""
        if decision.address is not None:
            recipient = self._at_home(recipient, decision.address)
        address: bytes | Reply = recipient.address + self.standing.policy.suffix
        if not decision.skip_checks:
            address = self._judge(incoming, recipient.address)
        if isinstance(address, Reply):
            self._refuse_recipient(address)
            return
        recipient, unchecked, counted = _with(recipient, address), decision.skip_checks, self._counted
        if counted is None:
            self._rcpt(incoming, recipient, unchecked, RECIPIENTS, True)
        else:
            counter, key, otherwise = counted
            spent = self._context.gate.spend(counter, key)
            self._connection.when(spent, partial(self._rcpt, incoming, recipient, unchecked, otherwise))

    def _judge(self, incoming: Incoming, address: bytes) -> bytes | Reply:
        """The address as it stands in the envelope, or the reply that refuses it."""
        sender, policy = None if incoming.unchecked else incoming.mail.sender, self.standing.policy
        return policy.judge(sender, address) or address + policy.suffix

    @property
    def _counted(self) -> tuple[bytes, bytes, Reply] | None:
        """By which counter each recipient is counted in an hour, under which name, and what is said when
        there are too many."""
        login, settings = self.standing.account, self._context.settings
        if login is not None and settings.loginrecipientsperhour:
            return RECIPIENTS_OF_LOGIN, login, RECIPIENTS
        if settings.recipientsperhour and not self.standing.policy.relay:
            return RECIPIENTS_PER_HOUR, network_of(self._client[0]), _TOO_MANY_RECIPIENTS
        return None

    def _rcpt(
        self, incoming: Incoming, recipient: Recipient, unchecked: bool, otherwise: Reply, seldom: bool
    ) -> None:
        if self._connection.gone:
            return
        if not seldom:
            self.machine.send(otherwise)
        elif self._recipients is None or unchecked:
            self._checked(incoming, recipient, None)
        else:
            verdict = self._recipients.check(recipient.address, partial(self._ahead, incoming))
            self._connection.when(verdict, partial(self._checked, incoming, recipient))

    def _ahead(self, incoming: Incoming) -> list[bytes]:
        """The recipients behind the one that waits for its answer, that came with it and will be looked up
        in their turn; none where that is only known when a hook was asked.  The gate is asked about each in
        its turn: whoever has named too many may have some looked up, and is not told."""
        if self._hooks is not None and self._hooks.has("rcpt"):
            return []
        most = self.standing.bounds.ahead(len(incoming.recipients))
        homed = [self._at_home(one, one.address) for one in self.machine.recipients_ahead(most)]
        judged = [self._judge(incoming, one.address) for one in homed]
        return [one for one in judged if isinstance(one, bytes)]

    def _checked(self, incoming: Incoming, recipient: Recipient, refusal: Reply | None) -> None:
        if refusal is not None:
            self._refuse_recipient(refusal)
            return
        incoming.recipients.append(recipient)
        self.machine.accept()

    def _unwanted(self, refusal: Refusal) -> None:
        """A hook refuses a recipient."""
        if isinstance(refusal, HangUp):
            self._refuse(refusal)
        else:
            self._refuse_recipient(refusal.reply)

    def _refuse_recipient(self, reply: Reply) -> None:
        """Later each time, and not without end, where it is for good."""
        bounds = self.standing.bounds
        if reply.code < 500:
            self.machine.send(reply)
        elif not bounds.refuse():
            self._part(TOO_MANY_GUESSES)
        elif delay := bounds.delay:
            self._loop.call_later(delay, self._refuse_late, reply)
        else:
            self.machine.send(reply)

    def _refuse_late(self, reply: Reply) -> None:
        if not self._connection.gone:
            self.machine.send(reply)
            self._connection.go_on()

    # --- the end ----------------------------------------------------------------------

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


def _with(recipient: Recipient, address: bytes) -> Recipient:
    """The same by another address."""
    if address == recipient.address:
        return recipient
    return Recipient(address, recipient.notify, recipient.orcpt)


ACTIONS: dict[type, Callable[[Dialogue, Any], None]] = {
    events.Hello: Dialogue._on_hello,
    events.StartTls: Dialogue._on_starttls,
    events.XClientSaid: Dialogue._on_xclient,
    events.Auth: Dialogue._on_auth,
    events.AuthResponse: Dialogue._on_auth_response,
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
