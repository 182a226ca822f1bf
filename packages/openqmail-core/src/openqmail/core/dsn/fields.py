"""The fields of a delivery status notification: message/delivery-status (RFC 3464 section 2), or
message/global-delivery-status (RFC 6533 section 4) for a message that came by SMTPUTF8.

Addresses are written so that a program reads them back: those beyond ASCII have the type utf-8.
Whatever stands in an envelope or a report, a field is one field: what is not printable becomes `_` in
an address and `?` in a text, no line is longer than 998 octets, and what was said is cut where it is
long (allowance.py): the status code follows from all of it.  Pure.
"""

import re
from collections.abc import Iterator

import msgspec

from openqmail.core.dsn.allowance import Allowance
from openqmail.core.dsn.qmail import quoted_address
from openqmail.core.dsn.status import Action, meaning
from openqmail.core.message.trace import qmail_date
from openqmail.core.smtp import notify

LONGEST = 900
"""Octets of a word, or of an address, that are written; SMTP carries lines of 998."""
_WIDTH = 76
DIAGNOSTIC = 1000
"""Octets of what one host, or program, said."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_NOT_PRINTABLE = re.compile(rb"[^\x20-\x7e]")


class Told(msgspec.Struct, frozen=True, gc=False):
    """What is told of one recipient.  `address`: as the sender knows it; `text`: the report; `orcpt`: as
    it came, or empty."""

    action: Action
    address: bytes
    text: bytes
    orcpt: bytes = b""


class Report(msgspec.Struct, frozen=True):
    """What is told of a message, to `recipient`.

    `arrival`: when it came, seconds UTC; `until`: how long it is tried, 0 when it no longer is; `envid`:
    as it came; `smtputf8`: it came by SMTPUTF8; `double`: it was a bounce itself.
    """

    recipient: bytes
    told: tuple[Told, ...]
    arrival: int
    until: int = 0
    envid: bytes = b""
    smtputf8: bool = False
    double: bool = False


def fields(report: Report, me: bytes) -> bytes:
    """The content of the part, in stored form; it ends with a newline.  `me`: our name."""
    return b"\n".join(b"".join(group) for group in _groups(report, me))


def folded(name: bytes, text: bytes) -> bytes:
    """A field of words, on as many lines as it takes."""
    lines = [name + b":"]
    for word in _NOT_PRINTABLE.sub(b"?", b" ".join(text.split())).split(b" "):
        for at in range(0, len(word), LONGEST):
            piece = word[at : at + LONGEST]
            if len(lines[-1]) + len(piece) < _WIDTH:
                lines[-1] += b" " + piece
            else:
                lines.append(b" " + piece)
    return b"\n".join(lines) + b"\n"


def _groups(report: Report, me: bytes) -> Iterator[list[bytes]]:
    head = []
    if envid := _printable(notify.decode(report.envid)):
        head.append(_line(b"Original-Envelope-Id", envid))
    head.append(_line(b"Reporting-MTA", b"dns; " + _printable(me)))
    head.append(_line(b"Arrival-Date", qmail_date(report.arrival)))
    yield head
    room = Allowance(each=DIAGNOSTIC)
    for told in report.told:
        yield _recipient(told, report, room)


def _recipient(told: Told, report: Report, room: Allowance) -> list[bytes]:
    said = meaning(told.text, told.action)
    group = []
    if original := _original(told.orcpt, report.smtputf8):
        group.append(_address(b"Original-Recipient", *original))
    group.append(_address(b"Final-Recipient", *_final(told.address, report.smtputf8)))
    group.append(_line(b"Action", told.action.encode()))
    group.append(_line(b"Status", said.status))
    if said.host:
        group.append(_line(b"Remote-MTA", b"dns; " + said.host))
    if said.reply:
        group.append(folded(b"Diagnostic-Code", b"smtp; " + room.take(said.reply)))
    elif told.text.strip():
        group.append(folded(b"Diagnostic-Code", b"x-openqmail; " + room.take(told.text)))
    if told.action == "delayed" and report.until:
        group.append(_line(b"Will-Retry-Until", qmail_date(report.until)))
    return group


def _line(name: bytes, value: bytes) -> bytes:
    return b"%s: %s\n" % (name, value)


def _address(name: bytes, kind: bytes, address: bytes) -> bytes:
    """A line of its own for one that is long; what no line can hold is cut off."""
    if len(address) > LONGEST:
        address = address[:LONGEST].decode("utf-8", "ignore").encode()
    return b"%s: %s;%s %s\n" % (name, kind, b"\n" if len(address) > LONGEST - 100 else b"", address)


def _final(address: bytes, smtputf8: bool) -> tuple[bytes, bytes]:
    """Type and address of a recipient (RFC 3464 section 2.3.2, RFC 6533 section 3)."""
    if not address.isascii():
        try:
            return b"utf-8", _utf8(address.decode(), smtputf8)
        except UnicodeDecodeError:
            pass
    return b"rfc822", quoted_address(_NOT_PRINTABLE.sub(b"_", address)).strip() or b'""'


def _original(orcpt: bytes, smtputf8: bool) -> tuple[bytes, bytes] | None:
    """What the sender called a recipient; None where it did not say."""
    kind, semicolon, value = orcpt.partition(b";")
    if not semicolon or not notify.is_type(kind):
        return None
    if kind.lower() == b"utf-8":
        value = _utf8(notify.decode_utf8(value).decode("utf-8", "replace"), smtputf8)
    else:
        value = _printable(notify.decode(value))
    return (kind, value) if value else None


def _utf8(address: str, smtputf8: bool) -> bytes:
    address = _CONTROL.sub("_", address).strip()
    return address.encode() if smtputf8 else notify.encode_utf8(address.encode())


def _printable(value: bytes) -> bytes:
    return _NOT_PRINTABLE.sub(b"_", value)[:LONGEST].strip()
