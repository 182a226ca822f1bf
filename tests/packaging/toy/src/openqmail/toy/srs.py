"""Rewrites the sender of forwarded mail, so that it comes from here, and takes bounces back: a toy SRS."""

from hashlib import blake2b

from openqmail.core.hooks import Answer, HookContext, Replace, SessionFacts
from openqmail.core.values import Envelope, Recipient

KEY = b"no secret"


class Rewriter:
    def __init__(self, context: HookContext) -> None:
        self._me = context.settings.me

    def forward(self, envelope: Envelope, via: bytes) -> Envelope:
        local, at, domain = envelope.sender.rpartition(b"@")
        if not at or domain == self._me or envelope.sender == b"#@[]":
            return envelope
        sender = b"SRS0=%b=%b=%b@%b" % (_mark(domain, local), domain, local, self._me)
        return Envelope(
            sender, envelope.recipients, envelope.origin, envelope.smtputf8, envelope.ret, envelope.envid
        )

    def rcpt(self, session: SessionFacts, recipient: Recipient) -> Answer:
        local, _, host = recipient.address.rpartition(b"@")
        if host != self._me or not local.startswith(b"SRS0="):
            return None
        _, mark, domain, name = local.split(b"=", 3)
        return Replace(name + b"@" + domain, skip_checks=mark == _mark(domain, name))


def _mark(domain: bytes, local: bytes) -> bytes:
    return blake2b(b"%b@%b" % (local, domain), key=KEY, digest_size=4).hexdigest().encode()
