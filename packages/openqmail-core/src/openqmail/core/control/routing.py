"""Where a recipient goes: this host or another, and under which address.  Pure.

Follows qmail-send(8) and the recorded behaviour of its `rewrite`, in this order: `envnoathost`,
`percenthack`, `locals`, `virtualdomains` (by full address, domain, `.suffix`es, the empty
catch-all; an empty prefix means "not virtual").  The address keeps its spelling; what is compared is
the one of values/address.py, so capitals and U-labels make no difference.  A message in qmail's layout
has been routed for good.
"""

from collections.abc import Callable
from itertools import chain

import msgspec

from openqmail.core.control.settings import Settings
from openqmail.core.values.address import Channel, canonical_address, canonical_domain, suffixes


class Routed(msgspec.Struct, frozen=True, gc=False):
    """`address` as delivered and logged; `domain` in its one spelling (`canonical_domain`); `prefix`: how
    many bytes of `address` a virtual domain put in front."""

    channel: Channel
    address: bytes
    domain: bytes
    prefix: int = 0

    @property
    def plain(self) -> bytes:
        """The address as people know it: without the prefix of a virtual domain."""
        return self.address[self.prefix :]


Tell = Callable[[str, bytes, bytes], object]
"""Is told of a control file that has a say, of the key in it that does, and what it makes of the address."""


def route(recipient: bytes, settings: Settings, tell: Tell | None = None) -> Routed:
    """Decide where `recipient` (as it stands in the envelope) goes; `tell` follows how it comes to that."""
    address, at, domain = recipient.rpartition(b"@")
    if not at:
        domain = settings.envnoathost
        address = recipient
        recipient = address + b"@" + domain
        if tell is not None:
            tell("envnoathost", domain, recipient)
    domain = canonical_domain(domain)
    if domain in settings.percenthack:
        recipient, domain = unhacked(recipient, settings.percenthack, tell)
    if domain in settings.locals:
        if tell is not None:
            tell("locals", domain, recipient)
        return Routed("local", recipient, domain)
    if settings.virtualdomains:
        key, prefix = _virtual(recipient, domain, settings.virtualdomains)
        address = prefix + b"-" + recipient if prefix else recipient
        if tell is not None and key is not None:
            tell("virtualdomains", key, address)
        if prefix:
            return Routed("local", address, domain, len(prefix) + 1)
    return Routed("remote", recipient, domain)


def routed_before(address: bytes, channel: Channel, settings: Settings) -> Routed:
    """An address that was routed earlier, as qmail's `local/N` and `remote/N` have it: it stays,
    and its prefix is what `virtualdomains` says of its domain now (qmail-send's `stripvdomprepend`)."""
    domain = canonical_domain(address.rpartition(b"@")[2])
    size = 0
    if settings.virtualdomains:
        _, prefix = _virtual(domain, domain, settings.virtualdomains)
        if prefix and address.startswith(prefix + b"-"):
            size = len(prefix) + 1
    return Routed(channel, address, domain, size)


def unhacked(recipient: bytes, hacked: frozenset[bytes], tell: Tell | None = None) -> tuple[bytes, bytes]:
    """`user%host@hacked` is `user@host`, as long as it applies."""
    local, _, domain = recipient.rpartition(b"@")
    while (key := canonical_domain(domain)) in hacked:
        user, percent, host = local.rpartition(b"%")
        if not percent:
            break
        if tell is not None:
            tell("percenthack", key, user + b"@" + host)
        local, domain = user, host
    recipient = local + b"@" + domain
    return recipient, canonical_domain(recipient.rpartition(b"@")[2])


def _virtual(recipient: bytes, domain: bytes, prefixes: dict[bytes, bytes]) -> tuple[bytes | None, bytes]:
    """The most particular entry and its prefix; no key and an empty prefix when none applies."""
    for name in chain((canonical_address(recipient), domain), suffixes(domain), (b"",)):
        prefix = prefixes.get(name)
        if prefix is not None:
            return name, prefix
    return None, b""
