"""The routes of queued recipients, remembered; and the sender that a recipient is shown (VERP,
addresses(5)).  Where an address goes is decided by `control/routing.py`.
"""

from functools import lru_cache, partial

from openqmail.core.control.bindings import ANY, Source
from openqmail.core.control.routing import Routed, route, routed_before
from openqmail.core.control.settings import Settings
from openqmail.core.queue.store import Stored
from openqmail.core.values.address import Channel

ROUTES = 1000
"""Addresses whose route is remembered."""

_VERP = b"-@[]"


class Routes:
    """`route` and `routed_before` under one set of settings, with the latest answers remembered."""

    def __init__(self, settings: Settings) -> None:
        self.route = lru_cache(ROUTES)(partial(route, settings=settings))
        self.before = lru_cache(ROUTES)(partial(routed_before, settings=settings))
        bindings = settings.sources()
        usual = bindings.lines.get(b"*", ANY)

        def mark(sender: bytes) -> bytes:
            source = bindings.source_of(bounce_sender(sender))
            return b"" if _seen(source) == _seen(usual) else b"\0" + _seen(source)

        self._mark = lru_cache(ROUTES)(mark) if bindings.lines else None

    def of(self, stored: Stored, position: int) -> Routed:
        """Where the recipient at `position` of a queued message goes."""
        address = stored.envelope.recipients[position].address
        if stored.channels:
            return self.before(address, stored.channels[position])
        return self.route(address)

    def mark(self, sender: bytes) -> bytes:
        """What is put behind a remote domain to name the destination of this sender's mail: a host may refuse
        one address of ours and not another.  Empty where his mail goes out as most does."""
        return b"" if self._mark is None else self._mark(sender)

    def place(self, recipient: bytes) -> tuple[Channel, bytes]:
        """Channel and address of an accepted recipient, for the queue."""
        routed = self.route(recipient)
        return routed.channel, routed.address


def domain_of(destination: bytes) -> bytes:
    """The domain of a destination, without the mark."""
    return destination.partition(b"\0")[0]


def _seen(source: Source) -> bytes:
    """What others see of a source."""
    return f"{source.v4} {source.v6} ".encode() + source.helo


def is_verp(sender: bytes) -> bool:
    """Whether each recipient is shown a sender of its own."""
    return sender.endswith(_VERP)


def sender_for(sender: bytes, recipient: bytes) -> bytes:
    """The sender that `recipient` (as routed) is shown: `list-@host-@[]` becomes
    `list-user=domain@host`; any other stays as it is."""
    if not sender.endswith(_VERP):
        return sender
    local, at, host = sender[: -len(_VERP)].rpartition(b"@")
    user, sign, domain = recipient.rpartition(b"@")
    if not at or not sign:
        return sender
    return b"%s%s=%s@%s" % (local, user, domain, host)


def bounce_sender(sender: bytes) -> bytes:
    """To whom a bounce goes: `list-@host-@[]` is `list-@host`."""
    return sender.removesuffix(_VERP)
