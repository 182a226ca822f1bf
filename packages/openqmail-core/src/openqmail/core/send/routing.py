"""The routes of queued recipients, remembered; and the sender that a recipient is shown (VERP,
addresses(5)).  Where an address goes is decided by `control/routing.py`.
"""

from functools import lru_cache, partial

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

    def of(self, stored: Stored, position: int) -> Routed:
        """Where the recipient at `position` of a queued message goes."""
        address = stored.envelope.recipients[position].address
        if stored.channels:
            return self.before(address, stored.channels[position])
        return self.route(address)

    def place(self, recipient: bytes) -> tuple[Channel, bytes]:
        """Channel and address of an accepted recipient, for the queue."""
        routed = self.route(recipient)
        return routed.channel, routed.address


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
