"""Trace fields, as bytes in stored form: each line ends with LF.

`received` is what a receiving host puts on top (RFC 5321 section 4.4, RFC 3848);
`return_path` and `delivered_to` are the lines that qmail-local writes, byte for byte.
Nothing from a peer gets into a field before it is cleaned.  No clock: the time is handed in.
"""

import re
import time
from functools import lru_cache
from typing import NamedTuple

from openqmail.core.values.address import DOT_STRING

_DAYS = (b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun")
_MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")

_NOT_IN_NAME = re.compile(rb"[^A-Za-z0-9.\-_:\[\]]")
_NOT_IN_COMMENT = re.compile(rb"[^A-Za-z0-9.\-_:@+=*, ]")
_LONGEST_NAME = 255
_DOT_STRING = re.compile(DOT_STRING)
_ESCAPED = re.compile(rb'([\r\n"\\])')


class Secured(NamedTuple):
    """What TLS came to, and who the client has proved to be.

    `version` and `cipher` (IANA's name) empty without TLS; `peer`: the verified name of the client's
    certificate, or empty; `login`: the client has authenticated by SASL."""

    version: str = ""
    cipher: str = ""
    peer: str = ""
    login: bool = False


BARE = Secured()


def received(
    *,
    helo: bytes,
    client: str,
    by: bytes,
    extended: bool,
    smtputf8: bool,
    now: float,
    name: str = "",
    secured: Secured = BARE,
) -> bytes:
    """One Received field (`with` by RFC 3848 and RFC 6531, `tls` by RFC 8314 section 4.3).

    `helo`: the name the client gave itself, empty when it gave none; `client`: its address
    without brackets, empty when it has none; `by`: our name; `extended`: it said EHLO;
    `name`: of the client's host, where it was looked up.
    """
    return _hop(helo, client, by, extended, smtputf8, name, secured) + _date(int(now))


def return_path(sender: bytes) -> bytes:
    """The line that keeps the envelope's sender in a delivered message."""
    local, at, domain = sender.rpartition(b"@")
    if not at:
        local, domain = domain, b""
    address = quote(local) + at + domain if sender else b""
    return b"Return-Path: <" + address.replace(b"\n", b"_") + b">\n"


def delivered_to(recipient: bytes) -> bytes:
    """The line that tells who got the message here, and by which a loop is known."""
    return b"Delivered-To: " + recipient.replace(b"\n", b"_") + b"\n"


def quote(local: bytes) -> bytes:
    """A local part as it stands in a header: as it is where it is a Dot-string of ASCII, else
    as a Quoted-string (RFC 5321 section 4.1.2)."""
    if _DOT_STRING.fullmatch(local):
        return local
    return b'"' + _ESCAPED.sub(rb"\\\1", local) + b'"'


def qmail_hop(pid: int, how: bytes, now: float) -> bytes:
    """The Received field of a message that this host queues by itself: `how` is `for bounce` or
    `by uid N`."""
    return b"Received: (qmail %d invoked %b); %b\n" % (pid, how, qmail_date(now))


def qmail_date(now: float) -> bytes:
    """`24 Nov 2026 18:44:57 -0000`, the date of qmail's own fields."""
    return _day_and_time(time.gmtime(now)) + b" -0000"


@lru_cache(maxsize=1024)
def _hop(
    helo: bytes, client: str, by: bytes, extended: bool, smtputf8: bool, host: str, secured: Secured
) -> bytes:
    """The field as far as the date: clients come again."""
    literal = _literal(client)
    name = _NOT_IN_NAME.sub(b"?", helo[:_LONGEST_NAME]) or literal or b"unknown"
    known = _clean(host) + b" " if host else b""
    origin = name + b" (" + known + literal + b")" if literal else name
    protocol = b"UTF8SMTP" if smtputf8 else b"ESMTP" if extended else b"SMTP"
    if extended:  # there is no word for the others
        protocol += (b"S" if secured.version else b"") + (b"A" if secured.login else b"")
    tls = _tls(secured) if secured.version else b""
    return b"Received: from " + origin + b"\n  by " + by + b" with " + protocol + tls + b"; "


def _tls(secured: Secured) -> bytes:
    """The clause, and what else there is to say in a comment behind it."""
    comment = secured.version[:_LONGEST_NAME]
    if secured.peer:
        comment += ", certificate of " + secured.peer[:_LONGEST_NAME]
    text = _NOT_IN_COMMENT.sub(b"?", comment.encode("ascii", "replace"))
    return b" tls " + _clean(secured.cipher) + b"\n  (" + text + b")"


def _clean(name: str) -> bytes:
    return _NOT_IN_NAME.sub(b"?", name[:_LONGEST_NAME].encode("ascii", "replace"))


def _literal(client: str) -> bytes:
    """An address literal (RFC 5321 section 4.1.3)."""
    address = client.partition("%")[0]
    if not address:
        return b""
    tag = b"IPv6:" if ":" in address else b""
    return b"[" + tag + _NOT_IN_NAME.sub(b"?", address.encode("ascii", "replace")) + b"]"


@lru_cache(maxsize=4)
def _date(second: int) -> bytes:
    """`Tue, 24 Nov 2026 18:44:57 +0000` and the end of the line."""
    moment = time.gmtime(second)
    return b"%s, %s +0000\n" % (_DAYS[moment.tm_wday], _day_and_time(moment))


def _day_and_time(moment: time.struct_time) -> bytes:
    return b"%d %s %d %02d:%02d:%02d" % (
        moment.tm_mday,
        _MONTHS[moment.tm_mon - 1],
        moment.tm_year,
        moment.tm_hour,
        moment.tm_min,
        moment.tm_sec,
    )
