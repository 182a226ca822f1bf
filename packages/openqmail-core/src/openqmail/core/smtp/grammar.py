"""Addresses as SMTP writes them, to and from the plain form that an envelope keeps.

`reverse_path` and `forward_path` read the Path of RFC 5321 section 4.1.2 strictly; the result
is unquoted (`"a b"@x` becomes `a b@x`: the last `@` divides).  Source routes are read and
dropped (appendix C, section 4.1.1.3).  Octets beyond ASCII are read as RFC 6531 section 3.3
extends the grammar; whether they were allowed is the caller's question.  `quote` is the way
back, `wire_domain` turns U-labels into A-labels by IDNA2008 (RFC 5890, UTS 46).
"""

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from openqmail.core.values import PermanentFailure
from openqmail.core.values.address import DOT_STRING, MAX_ADDRESS, a_labels

MAX_DOMAIN = 255
MAX_LABEL = 63

SHORT = MAX_LABEL
"""A path no longer than this is within every limit."""

DOMAIN = rb"[A-Za-z0-9]+(?:-+[A-Za-z0-9]+)*(?:\.[A-Za-z0-9]+(?:-+[A-Za-z0-9]+)*)*"

_COMMON = re.compile(rb"<(%b@(%b))>" % (DOT_STRING, DOMAIN))
_MAILBOX = re.compile(rb"%b@(%b)" % (DOT_STRING, DOMAIN))
_DOMAIN = re.compile(DOMAIN)
_ATOMS = re.compile(DOT_STRING.replace(b"~-]", rb"~\x80-\xff-]"))
_DOMAIN_UTF8 = re.compile(DOMAIN.replace(b"0-9]", rb"0-9\x80-\xff]"))
_QUOTED = re.compile(rb'"((?:[\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\x20-\x7e])*)"')
_QUOTED_PAIR = re.compile(rb"\\(.)")
_TO_QUOTE = re.compile(rb'["\\]')
_UNQUOTABLE = re.compile(rb"[\x00-\x1f\x7f]")
_POSTMASTER = re.compile(rb"<(postmaster)>", re.IGNORECASE)


class AddressError(PermanentFailure):
    """An address, or a domain, that SMTP's grammar does not know."""


def reverse_path(text: bytes) -> tuple[bytes, bytes]:
    """Read the path of MAIL at the beginning of `text`; returns the sender and what follows."""
    if text.startswith(b"<>"):
        return b"", text[2:]
    return _path(text)


def forward_path(text: bytes) -> tuple[bytes, bytes]:
    """Read the path of RCPT; `<Postmaster>` needs no domain (section 4.1.1.3)."""
    if found := _POSTMASTER.match(text):
        return found.group(1), text[found.end() :]
    return _path(text)


def quote(address: bytes) -> bytes:
    """The plain form as it stands between angle brackets; the empty address stays empty."""
    found = _MAILBOX.fullmatch(address)
    if found and len(address) <= SHORT:
        return address
    if not address or address.lower() == b"postmaster":
        return address
    local, at, domain = address.rpartition(b"@")
    if not at:
        raise AddressError("the address has no domain (#5.1.3)")
    if len(address) > MAX_ADDRESS:
        raise AddressError("the address is too long (#5.1.3)")
    if _UNQUOTABLE.search(local):
        raise AddressError("the address has a control character, which SMTP cannot carry (#5.1.3)")
    _check_utf8(address)
    if domain.startswith(b"["):
        _check_literal(domain)
    else:
        _check_domain(domain)
    if not _ATOMS.fullmatch(local):
        local = b'"' + _TO_QUOTE.sub(rb"\\\g<0>", local) + b'"'
    return local + b"@" + domain


def wire_domain(domain: bytes) -> bytes:
    """The domain with A-labels alone, for DNS and for hosts without SMTPUTF8."""
    if domain.isascii():
        return domain
    try:
        return a_labels(domain)
    except UnicodeError as error:
        raise AddressError("the domain is no internationalised domain name (#5.1.2)") from error


def _path(text: bytes) -> tuple[bytes, bytes]:
    """Path = "<" [ A-d-l ":" ] Mailbox ">"."""
    found = _COMMON.match(text)
    if found and found.end() - found.start() <= SHORT:
        return found.group(1), text[found.end() :]
    if not text.startswith(b"<"):
        raise AddressError("an address stands between < and >")
    local, position = _local_part(text, _skip_route(text, 1))
    if text[position : position + 1] != b"@":
        raise AddressError("the address has no domain")
    domain, position = _domain(text, position + 1)
    if text[position : position + 1] != b">":
        raise AddressError("the address is not well formed")
    address = local + b"@" + domain
    if len(address) > MAX_ADDRESS:
        raise AddressError("the address is too long")
    _check_utf8(address)
    return address, text[position + 1 :]


def _skip_route(text: bytes, position: int) -> int:
    """A-d-l = At-domain *( "," At-domain ), then a colon; it is ignored."""
    if text[position : position + 1] != b"@":
        return position
    while text[position : position + 1] == b"@":
        _, position = _domain(text, position + 1)
        if text[position : position + 1] == b":":
            return position + 1
        if text[position : position + 1] != b",":
            break
        position += 1
    raise AddressError("the source route is not well formed")


def _local_part(text: bytes, position: int) -> tuple[bytes, int]:
    """Local-part = Dot-string / Quoted-string, unquoted."""
    if found := _ATOMS.match(text, position):
        return found.group(), found.end()
    if found := _QUOTED.match(text, position):
        return _QUOTED_PAIR.sub(rb"\1", found.group(1)), found.end()
    raise AddressError("the part before @ is not well formed")


def _domain(text: bytes, position: int) -> tuple[bytes, int]:
    """Domain / address-literal."""
    if text[position : position + 1] == b"[":
        end = text.find(b"]", position) + 1
        _check_literal(text[position:end])
        return text[position:end], end
    found = _DOMAIN_UTF8.match(text, position)
    if not found:
        raise AddressError("the domain is not well formed")
    domain = found.group()
    _check_domain(domain)
    return domain, found.end()


def _check_domain(domain: bytes) -> None:
    ascii_form = wire_domain(domain)
    if not _DOMAIN.fullmatch(ascii_form):
        raise AddressError("the domain is not well formed")
    if len(domain) > MAX_DOMAIN or len(ascii_form) > MAX_DOMAIN:
        raise AddressError("the domain is too long")
    if any(len(label) > MAX_LABEL for label in ascii_form.split(b".")):
        raise AddressError("a label of the domain is too long")


def _check_literal(literal: bytes) -> None:
    """address-literal (section 4.1.3); no tag but IPv6 has ever been registered."""
    inner = literal[1:-1]
    if not literal.endswith(b"]") or not inner.isascii() or b"%" in inner:
        raise AddressError("the address literal is not well formed")
    text = inner.decode("ascii")
    try:
        if text[:5].lower() == "ipv6:":
            IPv6Address(text[5:])
        else:
            IPv4Address(text)
    except AddressValueError as error:
        raise AddressError("the address literal is not well formed") from error


def _check_utf8(address: bytes) -> None:
    if address.isascii():
        return
    try:
        address.decode()
    except UnicodeDecodeError as error:
        raise AddressError("the address is not UTF-8") from error
