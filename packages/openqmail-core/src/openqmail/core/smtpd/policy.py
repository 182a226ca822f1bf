"""Who may send us what: pure decisions from `control/rules`, `rcpthosts` and `databytes`.

As in qmail-smtpd(8): RELAYCLIENT lets a client send to anybody and its value is appended to
every recipient; DATABYTES takes the place of the control file.  A missing `rcpthosts` is an
empty one: nobody but a relay client may send anything to anybody.
"""

import msgspec

from openqmail.core.control.settings import Settings
from openqmail.core.smtp.offer import Offer
from openqmail.core.values import Reply
from openqmail.core.values.address import suffixes

NOT_OURS = Reply(553, b"5.7.1", (b"sorry, that domain isn't in my list of allowed rcpthosts",))
DENIED = Reply(554, b"", (b"no service for your address here",))
BUSY = Reply(421, b"", (b"too many connections, try again later",))
TOO_OFTEN = Reply(421, b"4.7.0", (b"too many connections from your network, try again later",))
LEAVING = Reply(421, b"4.3.2", (b"shutting down, try again later",))
TOO_MANY_HANDSHAKES = Reply(454, b"4.7.0", (b"too many TLS handshakes just now, try again later",))
NO_SENDER = Reply(530, b"5.7.0", (b"authentication required",))
TOO_MANY_HOPS = Reply(554, b"5.4.6", (b"too many hops, this message is looping",))

HOPS = 100
"""A message with this many Received and Delivered-To fields is looping."""


class Policy(msgspec.Struct, frozen=True):
    """What one client may do, and what its sessions are offered."""

    relay: bool
    suffix: bytes
    rcpthosts: frozenset[bytes]
    offer: Offer

    def takes(self, recipient: bytes) -> bool:
        """Whether this client may send to `recipient` (no `@`: it is for this host)."""
        if self.relay:
            return True
        _, at, domain = recipient.rpartition(b"@")
        return not at or _listed(domain.lower(), self.rcpthosts)


def admit(settings: Settings, starttls: bool, client: str) -> Policy | None:
    """The policy for a client's address, who is offered STARTTLS or not; None when the rules deny it."""
    rule = settings.rules.match(client)
    if not rule.allow:
        return None
    suffix = rule.variables.get("RELAYCLIENT")
    size = rule.variables.get("DATABYTES")
    return Policy(
        relay=suffix is not None,
        suffix=(suffix or "").encode(),
        rcpthosts=settings.rcpthosts,
        offer=Offer(
            name=settings.me,
            size=settings.databytes if size is None else int(size),
            max_recipients=settings.maxrecipients,
            timeout=float(settings.timeoutsmtpd),
            hello=settings.smtpgreeting,
            starttls=starttls,
            dsn=settings.bounceformat == "dsn",
        ),
    )


def _listed(domain: bytes, rcpthosts: frozenset[bytes]) -> bool:
    return domain in rcpthosts or any(suffix in rcpthosts for suffix in suffixes(domain))
