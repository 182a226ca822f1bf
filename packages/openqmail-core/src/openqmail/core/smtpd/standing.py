"""Who the client of a session is just now, and so what it may do: its address's policy, until it proves more.

TLS begins, a certificate or a login proves who it is, a front end names another one: each changes the policy,
the bounds, and what the machine offers from then on.
"""

from asyncio import Future
from typing import TYPE_CHECKING

import msgspec

from openqmail.core.message.trace import BARE, Secured
from openqmail.core.sasl import Facts, offered
from openqmail.core.smtp.server import ServerSession
from openqmail.core.smtpd.bounds import bounds_of
from openqmail.core.smtpd.policy import Policy
from openqmail.core.smtpd.record import SessionRecord
from openqmail.core.tls import TlsFacts
from openqmail.core.values import Reply

if TYPE_CHECKING:
    from openqmail.core.smtpd.service import SmtpService


class Standing:
    """`policy`, `bounds`, `tls`: those of now.  `extended`: it has said EHLO.  `listed`: what lists say of
    it, where they are asked and it still counts."""

    # How every one begins: what most never change is not set anew for each.
    tls: TlsFacts | None = None
    listed: "Future[Reply | None] | None" = None
    extended = False
    _secured = BARE
    _before: Policy  # that of a client that has logged in, as it was before

    def __init__(
        self, service: "SmtpService", machine: ServerSession, policy: Policy, record: SessionRecord
    ) -> None:
        self._service = service
        self._context = service.context
        self._machine = machine
        self._record = record
        self.policy = policy
        self.bounds = bounds_of(service.context.settings, policy.relay)

    @property
    def login(self) -> bytes | None:
        """As whom it has logged in."""
        return self._machine.identity

    @property
    def unproved(self) -> bool:
        """Mail for submission is not taken from it as yet: it has not logged in, which alone counts there
        unless control/submissionauth says 0."""
        if not self._service.submission or self.login is not None:
            return False
        return self._context.settings.submissionauth or not self.policy.relay

    @property
    def account(self) -> bytes | None:
        """The login as it is counted: a program that looks at no case is told Alice as well as alice."""
        login = self._machine.identity
        return login if login is None else login.lower()

    @property
    def secured(self) -> Secured:
        """What Received says of it."""
        if self._machine.identity is None:
            return self._secured
        return self._secured._replace(login=True)

    def tls_started(self, facts: TlsFacts, names: tuple[str, ...]) -> None:
        """The handshake is done: nothing that was known before counts any more (RFC 3207 section 4.2).

        `names`: those of the client's certificate, verified; one in control/tlsclients may relay."""
        self.log_in(None)
        allowed = self._context.settings.tlsclients.intersection(names)
        if allowed:
            self._trust()
            facts = msgspec.structs.replace(facts, peer=min(allowed))
        self._record.helo, self.extended = b"", False
        if self._service.implicit:
            self.tls_kept(facts)
        else:
            self._know(facts)
            self._machine.tls_started(facts)
            self.offer_auth()

    def tls_kept(self, facts: TlsFacts) -> None:
        """The connection was ciphered before this client's session began."""
        self._know(facts)
        self._machine.within_tls(facts)
        self.offer_auth()

    def log_in(self, identity: bytes | None) -> None:
        """Who has a login may relay, be it that a front end says so; TLS that begins ends it (None)."""
        if identity is not None:
            self._before = self.policy
            self._trust()
        elif self._record.login is not None:
            self.policy = self._before
            self.bounds = bounds_of(self._context.settings, self.policy.relay)
        self._machine.identity = self._record.login = identity

    def offer_auth(self) -> None:
        """What somebody can log in with here, by this connection."""
        if servable := self._context.gate.mechanisms:
            self._machine.offer_auth(offered(servable, self.sasl_facts(), in_clear=True))

    def greeted(self) -> None:
        """In plaintext: what can be logged in with at once, or when TLS has begun."""
        if self._context.settings.authplain:
            self.offer_auth()
        else:
            self._machine.auth_in_tls = bool(self._context.gate.mechanisms)

    def sasl_facts(self) -> Facts:
        tls, me = self.tls, self._context.settings.me
        return Facts(False, host=me) if tls is None else Facts(True, tls.bindings, me)

    def over(self) -> None:
        """What lists say is not wanted any more."""
        if self.listed is not None:
            self.listed.cancel()

    def _know(self, facts: TlsFacts) -> None:
        self.tls = self._record.tls = facts
        self._secured = Secured(facts.version, facts.cipher, facts.peer)

    def _trust(self) -> None:
        """The client has proved that it may relay."""
        self.policy = self.policy.trusted()
        self.bounds = bounds_of(self._context.settings, True)
        self.over()
        self.listed = None
