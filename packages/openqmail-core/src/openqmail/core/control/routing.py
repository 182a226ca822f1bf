"""Where a recipient goes: this host or another, and under which address.  Pure.

Follows qmail-send(8) and the recorded behaviour of its `rewrite`, in this order: `envnoathost`,
`percenthack`, `locals`, `virtualdomains` (by full address, domain, `.suffix`es, the empty
catch-all; an empty prefix means "not virtual").  The case of letters is kept in the address and
ignored in every comparison.  A message in qmail's layout has been routed for good.
"""

from itertools import chain

import msgspec

from openqmail.core.control.settings import Settings
from openqmail.core.values.address import Channel, suffixes


class Routed(msgspec.Struct, frozen=True, gc=False):
    """`address` as delivered and logged; `domain` in lower case; `prefix`: how many bytes of
    `address` a virtual domain put in front."""

    channel: Channel
    address: bytes
    domain: bytes
    prefix: int = 0

    @property
    def plain(self) -> bytes:
        """The address as people know it: without the prefix of a virtual domain."""
        return self.address[self.prefix :]


def route(recipient: bytes, settings: Settings) -> Routed:
    """Decide where `recipient` (as it stands in the envelope) goes."""
    address, at, domain = recipient.rpartition(b"@")
    if not at:
        domain = settings.envnoathost
        address = recipient
        recipient = address + b"@" + domain
    domain = domain.lower()
    if domain in settings.percenthack:
        recipient, domain = unhacked(recipient, settings.percenthack)
    if domain in settings.locals:
        return Routed("local", recipient, domain)
    if settings.virtualdomains:
        prefix = _virtual(recipient, domain, settings.virtualdomains)
        if prefix:
            return Routed("local", prefix + b"-" + recipient, domain, len(prefix) + 1)
    return Routed("remote", recipient, domain)


def routed_before(address: bytes, channel: Channel, settings: Settings) -> Routed:
    """An address that was routed earlier, as qmail's `local/N` and `remote/N` have it: it stays,
    and its prefix is what `virtualdomains` says of its domain now (qmail-send's `stripvdomprepend`)."""
    domain = address.rpartition(b"@")[2].lower()
    size = 0
    if settings.virtualdomains:
        prefix = _virtual(domain, domain, settings.virtualdomains)
        if prefix and address.startswith(prefix + b"-"):
            size = len(prefix) + 1
    return Routed(channel, address, domain, size)


def unhacked(recipient: bytes, hacked: frozenset[bytes]) -> tuple[bytes, bytes]:
    """`user%host@hacked` is `user@host`, as long as it applies."""
    local, _, domain = recipient.rpartition(b"@")
    while domain.lower() in hacked:
        user, percent, host = local.rpartition(b"%")
        if not percent:
            break
        local, domain = user, host
    recipient = local + b"@" + domain
    return recipient, recipient.rpartition(b"@")[2].lower()


def _virtual(recipient: bytes, domain: bytes, prefixes: dict[bytes, bytes]) -> bytes:
    """The prefix of the most particular entry; empty when none applies."""
    found = prefixes.get(recipient.lower())
    if found is None:
        found = prefixes.get(domain)
    for name in chain(suffixes(domain), (b"",)):
        if found is not None:
            return found
        found = prefixes.get(name)
    return found or b""
