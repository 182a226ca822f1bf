"""XCLIENT, by which a front end that is trusted says whose session it passes on.

As Postfix documents it (XCLIENT_README): attributes by name, each once, values in xtext (RFC 3461 section
4), `[UNAVAILABLE]` and `[TEMPUNAVAIL]` for what is not known.  PROTO is read and has no effect: the
client's EHLO or HELO, which follows, says the same.  Pure; who may say it is the shell's to know.
"""

import ipaddress
import re

import msgspec

from openqmail.core.smtp import tables
from openqmail.core.smtp.notify import decode
from openqmail.core.smtp.proxy import plain
from openqmail.core.smtp.tables import Refusal

NAMES = (b"NAME", b"ADDR", b"PORT", b"PROTO", b"HELO", b"LOGIN", b"DESTADDR", b"DESTPORT", b"REVERSE_NAME")
"""The attributes, as EHLO lists them."""

TEMPORARY = b"[TEMPUNAVAIL]"
UNKNOWN = frozenset({b"[UNAVAILABLE]", TEMPORARY})

_XTEXT = re.compile(rb"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
_PRINTABLE = re.compile(rb"[\x21-\x7e\x80-\xff]{1,255}")
_HOST = re.compile(rb"[A-Za-z0-9._-]{1,255}")
_PORT = re.compile(rb"[0-9]{1,5}")


class XClient(msgspec.Struct, frozen=True):
    """What was said; None for what was not, which stays as it was.

    `name`, `reverse_name`, `helo`, `login`, `server` are empty where they are said to be unknown, ports 0; an
    unknown `client` is refused, since rules are by address.  A `name` that is unknown for the moment is
    left to be looked up here.  `name` leads back to the client's address,
    `reverse_name` may not."""

    name: bytes | None = None
    client: str | None = None
    port: int | None = None
    helo: bytes | None = None
    login: bytes | None = None
    server: str | None = None
    server_port: int | None = None
    reverse_name: bytes | None = None


def read_xclient(argument: bytes) -> XClient:
    """What stands behind `XCLIENT `.  Raises the refusal, 501."""
    given: dict[bytes, bytes] = {}
    for word in argument.split(b" "):
        attribute, equals, value = word.partition(b"=")
        attribute = attribute.upper()
        if attribute not in NAMES or attribute in given or not equals or not _XTEXT.fullmatch(value):
            raise Refusal(tables.BAD_XCLIENT)
        given[attribute] = decode(value)
    proto, name = given.get(b"PROTO"), given.get(b"NAME")
    client = _address(given.get(b"ADDR"))
    if client == "" or (proto is not None and proto.upper() not in (b"SMTP", b"ESMTP")):
        raise Refusal(tables.BAD_XCLIENT)
    return XClient(
        name=None if name == TEMPORARY else _text(name, _HOST),
        client=client,
        port=_port(given.get(b"PORT")),
        helo=_text(given.get(b"HELO"), _PRINTABLE),
        login=_text(given.get(b"LOGIN"), _PRINTABLE),
        server=_address(given.get(b"DESTADDR")),
        server_port=_port(given.get(b"DESTPORT")),
        reverse_name=_text(given.get(b"REVERSE_NAME"), _HOST),
    )


def _text(value: bytes | None, form: re.Pattern[bytes]) -> bytes | None:
    if value is None:
        return None
    if value.upper() in UNKNOWN:
        return b""
    if not form.fullmatch(value):
        raise Refusal(tables.BAD_XCLIENT)
    return value


def _address(value: bytes | None) -> str | None:
    """`IPV6:` stands before an address of IPv6; some front ends leave it out."""
    if value is None:
        return None
    if value.upper() in UNKNOWN:
        return ""
    tagged = value[:5].upper() == b"IPV6:"
    try:
        found = ipaddress.ip_address((value[5:] if tagged else value).decode("ascii"))
        if (tagged and found.version == 4) or b"%" in value:
            raise ValueError
    except ValueError:
        raise Refusal(tables.BAD_XCLIENT) from None
    return plain(found)


def _port(value: bytes | None) -> int | None:
    if value is None:
        return None
    if value.upper() in UNKNOWN:
        return 0
    if not _PORT.fullmatch(value) or int(value) > 65535:
        raise Refusal(tables.BAD_XCLIENT)
    return int(value)
