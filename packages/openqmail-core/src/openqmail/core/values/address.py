"""What several rooms need to know of addresses, in qmail's plain form (bytes).

A domain can be written in many ways that lead to one host: in capitals, in full-width letters, with
U-labels or A-labels (RFC 5890, UTS 46), as a literal of IPv6 with more zeros or less.  Whoever asks a
table about one asks for `canonical_domain` or `canonical_address`, or a sender could choose what the
administrator's lines say of it.  An envelope keeps its own spelling.
"""

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Literal

Channel = Literal["local", "remote"]
"""By which way a recipient gets his mail: on this host, or on another."""

DOT_STRING = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
"""A local part that needs no quotes, as a regular expression (RFC 5321 section 4.1.2)."""

MAX_ADDRESS = 899
"""Octets in an address, as in qmail-smtpd; RFC 5321 asks for 64 + 1 + 255 at least."""

MOST_QUEUED = 1000
"""Octets in an address in the queue: readers of qmail's files allow some more."""


def may_be_queued(address: bytes) -> bool:
    """Whether the queue's files hold it, where a NUL or a line end would end it."""
    return len(address) <= MOST_QUEUED and b"\0" not in address and b"\n" not in address


def suffixes(domain: bytes) -> Iterator[bytes]:
    """`.b.c`, then `.c`, of `a.b.c`: how control files name what lies below a domain."""
    dot = domain.find(b".")
    while dot >= 0:
        yield domain[dot:]
        dot = domain.find(b".", dot + 1)


def a_labels(domain: bytes) -> bytes:
    """A domain beyond ASCII with A-labels alone.  Raises UnicodeError for what is none."""
    import idna  # noqa: PLC0415  # costs a start more than all else here, and is needed by few

    if len(domain) > MAX_ADDRESS:
        raise UnicodeError("too long")
    return idna.encode(domain.decode(), uts46=True, transitional=False)  # its IDNAError is a UnicodeError


def canonical_domain(domain: bytes) -> bytes:
    """The one spelling that every table has: small letters, A-labels, literals as `[2001:db8::1]`.  What is
    no domain, and so leads nowhere, is only in small letters."""
    domain = domain.lower()
    try:
        if not domain.isascii():
            return a_labels(domain)
        if domain.startswith(b"[") and domain.endswith(b"]"):
            return b"[%b]" % str(ip_address(domain[1:-1].removeprefix(b"ipv6:").decode())).encode()
    except ValueError:  # UnicodeError is one
        pass
    return domain


def canonical_address(address: bytes) -> bytes:
    """An address as tables have it: the domain in its one spelling, the local part in small letters."""
    local, at, domain = address.rpartition(b"@")
    if not at:
        return _small(address)
    return _small(local) + at + canonical_domain(domain)


def _small(local: bytes) -> bytes:
    if local.isascii():
        return local.lower()
    try:
        return local.decode().lower().encode()
    except UnicodeDecodeError:
        return local.lower()
