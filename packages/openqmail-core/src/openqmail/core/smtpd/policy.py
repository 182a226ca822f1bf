"""Who may send us what: pure decisions from `control/rules`, `rcpthosts`, `badmailfrom` and their kin.

As in qmail-smtpd(8): RELAYCLIENT lets a client send to anybody and its value is appended to
every recipient; DATABYTES takes the place of the control file.  A missing `rcpthosts` is an
empty one: nobody but a relay client may send anything to anybody.  RBLSMTPD is rblsmtpd(1)'s.
"""

import ipaddress
import re
from collections.abc import Container
from functools import lru_cache

import msgspec

from openqmail.core.control.routing import unhacked
from openqmail.core.control.settings import Settings
from openqmail.core.smtp.offer import Offer
from openqmail.core.values import Reply
from openqmail.core.values.address import canonical_address, canonical_domain, suffixes

NOT_OURS = Reply(553, b"5.7.1", (b"sorry, that domain isn't in my list of allowed rcpthosts",))
BAD_SENDER = Reply(553, b"5.7.1", (b"sorry, your envelope sender is in my badmailfrom list",))
BAD_RECIPIENT = Reply(553, b"5.7.1", (b"sorry, that recipient is in my badrcptto list",))
BAD_HELO = Reply(550, b"5.7.1", (b"sorry, your name is in my badhelo list",))
NAMELESS = Reply(550, b"5.7.25", (b"your address has no name that leads back to it",))
DENIED = Reply(554, b"", (b"no service for your address here",))
BUSY = Reply(421, b"", (b"too many connections, try again later",))
TOO_OFTEN = Reply(421, b"4.7.0", (b"too many connections from your network, try again later",))
CROWDED = Reply(421, b"4.7.0", (b"too many connections from your network at once, try again later",))
TOO_MANY_MESSAGES = Reply(421, b"4.7.0", (b"enough messages for one connection, come again",))
ENOUGH_RECIPIENTS = Reply(452, b"4.5.3", (b"enough recipients for one connection, come again",))
TOO_MANY_GUESSES = Reply(421, b"4.7.1", (b"too many recipients were refused",))
TALKS_FIRST = Reply(554, b"5.7.1", (b"you talk before you are greeted",))
LEAVING = Reply(421, b"4.3.2", (b"shutting down, try again later",))
TOO_MANY_HANDSHAKES = Reply(454, b"4.7.0", (b"too many TLS handshakes just now, try again later",))
NO_SENDER = Reply(530, b"5.7.0", (b"authentication required",))
NO_TLS = Reply(530, b"5.7.0", (b"Must issue a STARTTLS command first",))
LONG_HEADER = Reply(552, b"5.3.4", (b"the header of the message is too large",))
TOO_MANY_HOPS = Reply(554, b"5.4.6", (b"too many hops, this message is looping",))

HOPS = 100
"""A message with this many Received and Delivered-To fields is looping."""


class Policy(msgspec.Struct, frozen=True):
    """What one client may do, and what its sessions are offered.

    `name`: of its host, empty where it is not known.  `refusal`: the answer to each MAIL.  `listed`:
    whether lists are asked about it.  `greetdelay`: seconds before it is greeted."""

    relay: bool
    suffix: bytes
    rcpthosts: frozenset[bytes]
    offer: Offer
    morercpthosts: frozenset[bytes] = frozenset()
    percenthack: frozenset[bytes] = frozenset()
    badmailfrom: frozenset[bytes] = frozenset()
    badrcptto: frozenset[bytes] = frozenset()
    name: str = ""
    refusal: Reply | None = None
    listed: bool = True
    greetdelay: int = 0

    def takes(self, recipient: bytes) -> bool:
        """Whether this client may send to `recipient` (no `@`: it is for this host)."""
        if self.relay:
            return True
        _, at, domain = recipient.rpartition(b"@")
        if not at:
            return True
        domain = canonical_domain(domain)
        if domain in self.percenthack:  # where the queue would send it counts, too
            if not self._has(domain):
                return False
            domain = unhacked(recipient, self.percenthack)[1]
        return self._has(domain)

    def _has(self, domain: bytes) -> bool:
        if domain in self.rcpthosts:  # nearly always
            return True
        return _listed(domain, self.rcpthosts) or (
            bool(self.morercpthosts) and _listed(domain, self.morercpthosts)
        )

    def judge(self, sender: bytes | None, recipient: bytes) -> Reply | None:
        """The reply that refuses this recipient of this sender, in qmail-smtpd's order; a sender of None
        is not judged."""
        if self.badmailfrom and sender is not None and _barred(sender, self.badmailfrom):
            return BAD_SENDER
        if self.badrcptto and _barred(recipient, self.badrcptto):
            return BAD_RECIPIENT
        return None if self.takes(recipient) else NOT_OURS

    def trusted(self) -> "Policy":
        """That of the same client once it has proved who it is: it may relay, and what is held against hosts
        that nobody knows does not count any more; what a rule says of it does."""
        refusal = None if self.refusal == NAMELESS else self.refusal
        return msgspec.structs.replace(self, relay=True, refusal=refusal, listed=False, greetdelay=0)


def admit(settings: Settings, starttls: bool, client: str, name: str | None = "") -> Policy | None:
    """The policy for a client's address, who is offered STARTTLS or not; None when the rules deny it.
    `name`: of its host, empty when it has none, None when that could not be found out."""
    rule = settings.rules.match(client, name or "")
    if not rule.allow:
        return None
    suffix = rule.variables.get("RELAYCLIENT")
    size = rule.variables.get("DATABYTES")
    rbl = rule.variables.get("RBLSMTPD")
    delay = rule.variables.get("GREETDELAY")
    refusal = _refusal(rbl) if rbl else None
    if refusal is None and name == "" and settings.requirereverse and suffix is None:
        refusal = NAMELESS
    return Policy(
        name=name or "",
        refusal=refusal,
        listed=suffix is None and rbl is None,
        greetdelay=0 if suffix is not None else settings.greetdelay if delay is None else int(delay),
        badmailfrom=settings.badmailfrom,
        badrcptto=settings.badrcptto,
        relay=suffix is not None,
        suffix=(suffix or "").encode(),
        rcpthosts=settings.rcpthosts,
        morercpthosts=settings.morercpthosts,
        percenthack=settings.percenthack,
        offer=Offer(
            name=settings.me,
            size=settings.databytes if size is None else int(size),
            max_recipients=settings.maxrecipients,
            max_messages=settings.maxmessages if suffix is None else 0,
            timeout=float(settings.timeoutsmtpd),
            max_errors=settings.maxerrors,
            hello=settings.smtpgreeting,
            starttls=starttls,
            dsn=settings.bounceformat == "dsn",
        ),
    )


def listed_as(domain: bytes, rcpthosts: frozenset[bytes]) -> bytes | None:
    """The domain or `.suffix` in the list that speaks of this domain; None: there is none."""
    return next((name for name in (domain, *suffixes(domain)) if name in rcpthosts), None)


def at_home(recipient: bytes, ours: Container[str], localiphost: bytes) -> bytes:
    """`recipient`, with `localiphost` where its domain is the literal of one of our addresses."""
    if not recipient.endswith(b"]"):
        return recipient
    local, _, domain = recipient.rpartition(b"@")
    try:
        address = ipaddress.ip_address(domain[1:-1].lower().removeprefix(b"ipv6:").decode())
    except ValueError:
        return recipient
    return local + b"@" + localiphost if str(address) in ours else recipient


def bad_helo(name: bytes, patterns: tuple[str, ...]) -> bool:
    """Whether `control/badhelo` has the name that a client says."""
    return _pattern(patterns).fullmatch(name.decode("ascii", "replace")) is not None


@lru_cache(4)
def _pattern(patterns: tuple[str, ...]) -> re.Pattern[str]:
    each = (".*".join(map(re.escape, ("*" + one if one[0] == "." else one).split("*"))) for one in patterns)
    return re.compile("|".join(each), re.IGNORECASE | re.DOTALL)


def _refusal(text: str) -> Reply:
    """What rblsmtpd says for RBLSMTPD: with a hyphen in front for good, else for now."""
    if text.startswith("-"):
        return Reply(553, b"5.7.1", (text[1:].encode(),))
    return Reply(451, b"4.7.1", (text.encode(),))


def _barred(address: bytes, listed: frozenset[bytes]) -> bool:
    """By the whole address, its domain, or a suffix of that."""
    address = canonical_address(address)
    at = address.rfind(b"@")
    if address in listed or at < 0:
        return address in listed
    return address[at:] in listed or any(suffix in listed for suffix in suffixes(address[at + 1 :]))


def _listed(domain: bytes, rcpthosts: frozenset[bytes]) -> bool:
    return listed_as(domain, rcpthosts) is not None
