"""The header of a new message, as qmail-inject(8) and qmail-header(5) make it.

Bcc, Return-Path and Content-Length are taken out; Date, Message-ID and From (of a resent
message: their Resent- twins) are put in where they are missing; addresses are completed where
they stand.  A field whose addresses cannot be read stays as it is, unless recipients are to
come from it: that is a HeaderError.  Lines may end with CRLF.  Pure, and light to import.
"""

from __future__ import annotations

from openqmail.core.submit.addresses import AddressError, Defaults, mailboxes, plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from time import struct_time

_TO_FIELDS = (b"to", b"cc", b"bcc", b"apparently-to")
_RESENT_TO_FIELDS = (b"resent-to", b"resent-cc", b"resent-bcc")
_SENDER_FIELDS = (b"sender", b"from", b"reply-to", b"return-receipt-to", b"errors-to")
_COMPLETED = frozenset(
    (*_TO_FIELDS, *_RESENT_TO_FIELDS, *_SENDER_FIELDS, b"resent-sender", b"resent-from", b"resent-reply-to")
)
_REMOVED = frozenset((b"bcc", b"resent-bcc", b"return-path", b"content-length"))
_RESENT = frozenset(
    (*_RESENT_TO_FIELDS, b"resent-sender", b"resent-from", b"resent-reply-to", b"resent-date")
) | {b"resent-message-id"}
_MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")
_FROM_LINE = b"From "
"""What stands for a name where an mbox's own line is."""
_ATEXT = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-/=?^_`{|}~.")
_WORD = 45
"""Octets that one encoded word holds, so that it stays within 75 characters (RFC 2047 section 2)."""


class HeaderError(ValueError):
    """Recipients were to come from a field that cannot be read; the text names it and says why."""


class Field:
    """One header field: `name` in lower case, `text` all its lines as they were."""

    __slots__ = ("name", "text")

    def __init__(self, name: bytes, text: bytes) -> None:
        self.name, self.text = name, text

    def body(self) -> int:
        """The offset behind the colon."""
        return self.text.index(b":") + 1


class Author:
    """Who writes, for a From field: a complete address, and a name for people, which may be empty."""

    __slots__ = ("address", "name")

    def __init__(self, address: bytes, name: bytes) -> None:
        self.address, self.name = address, name


class Stamp:
    """When (UTC) and where a message is made; `unique` is what no other of this second and `host` has."""

    __slots__ = ("host", "moment", "unique")

    def __init__(self, moment: struct_time, unique: bytes, host: bytes) -> None:
        self.moment, self.unique, self.host = moment, unique, host

    def date(self) -> bytes:
        """`24 Nov 2026 18:44:57 -0000`"""
        at = self.moment
        day = b"%d %b %d" % (at.tm_mday, _MONTHS[at.tm_mon - 1], at.tm_year)
        return b"%b %02d:%02d:%02d -0000" % (day, at.tm_hour, at.tm_min, at.tm_sec)

    def message_id(self) -> bytes:
        return b"<%04d%02d%02d%02d%02d%02d.%b@%b>" % (*self.moment[:6], self.unique, self.host)


class Composed:
    """`header` without the empty line that ends it; `recipients` that it names, complete and each
    once; `return_path`: the sender that it brought along, None when it had none that can be read."""

    __slots__ = ("header", "recipients", "return_path")

    def __init__(self, header: bytes, recipients: list[bytes], return_path: bytes | None) -> None:
        self.header, self.recipients, self.return_path = header, recipients, return_path


def header_size(start: bytes, whole: bool) -> int | None:
    """How much of a message's start is its header; None when more of it has to be seen.

    A header ends before its first empty line, or before a line that is none of a header's.
    """
    place = 0
    while place < len(start):
        end = start.find(b"\n", place) + 1
        if not end:
            if not whole:
                return None
            end = len(start)
        line = start[place:end]
        if not _name(line) and not (place and _continues(line)):  # an empty line has no name either
            return place
        place = end
    return place if whole else None


def fields(header: bytes) -> list[Field]:
    """The fields of a header that is as long as `header_size` says."""
    found: list[Field] = []
    for line in header.split(b"\n"):  # a CR alone ends no line
        if not line:
            break
        name = _name(line)
        if found and _continues(line):
            found[-1].text += line + b"\n"
        elif name == _FROM_LINE:
            found.append(Field(name, b"MBOX-Line: " + line + b"\n"))
        else:
            found.append(Field(name, line + b"\n"))
    return found


def compose(found: list[Field], author: Author, defaults: Defaults, stamp: Stamp, named: bool) -> Composed:
    """Make the header whole.  `named`: recipients come from it.  Raises HeaderError."""
    names = {field.name for field in found}
    returned: bytes | None = None
    resent = not names.isdisjoint(_RESENT)
    wanted: tuple[bytes, ...] = (_RESENT_TO_FIELDS if resent else _TO_FIELDS) if named else ()
    recipients: list[bytes] = []
    kept: list[bytes] = []
    for field in found:
        if field.name == b"return-path":
            returned = _return_path(field, defaults)
        text = field.text
        if field.name in _COMPLETED:
            try:
                text, addresses = _completed(field, defaults)
            except AddressError as error:
                if field.name in wanted:
                    raise HeaderError(f"the field {_shown(field)}: {error}") from None
                addresses = []
            if field.name in wanted:
                if b"" in addresses:
                    raise HeaderError(f"the field {_shown(field)}: '<>' is no recipient")
                recipients += addresses
        if field.name not in _REMOVED:
            kept.append(text)
    added = _missing(names, b"Resent-" if resent else b"", author, stamp)
    return Composed(b"".join((*added, *kept)), list(dict.fromkeys(recipients)), returned)


def resolved(address: bytes, defaults: Defaults) -> bytes:
    """An address that a program named outside of a header, complete; `<>` or nothing stays empty.

    Raises AddressError."""
    if address.startswith(b"<") and address.endswith(b">"):
        address = address[1:-1]
    return defaults.complete(plain(address)) if address else b""


# --- parts --------------------------------------------------------------------------------


def _missing(names: set[bytes], prefix: bytes, author: Author, stamp: Stamp) -> list[bytes]:
    """The fields that a message must have, and has not."""
    low = prefix.lower()
    added: list[bytes] = []
    if low + b"date" not in names:
        added.append(prefix + b"Date: " + stamp.date() + b"\n")
    if low + b"message-id" not in names:
        added.append(prefix + b"Message-ID: " + stamp.message_id() + b"\n")
    if low + b"from" not in names:
        added.append(prefix + b"From: " + _written(author) + b"\n")
    if low + b"to" not in names and low + b"cc" not in names:
        added.append(prefix + b"Cc: recipient list not shown: ;\n")
    return added


def _completed(field: Field, defaults: Defaults) -> tuple[bytes, list[bytes]]:
    """The field with what its addresses lacked, and the addresses.  Raises AddressError."""
    start = field.body()
    text = field.text
    addresses: list[bytes] = []
    pieces: list[bytes] = [text[:start]]
    place = start
    for mailbox in mailboxes(text[start:]):
        addresses.append(defaults.complete(mailbox))
        if mailbox.route is not None:
            pieces.append(text[place : start + mailbox.route[0]])
            place = start + mailbox.route[1]
        if not mailbox.null:
            cut, added = defaults.missing(mailbox.domain)
            pieces += (text[place : start + mailbox.end - cut], added)
            place = start + mailbox.end
    pieces.append(text[place:])
    return b"".join(pieces), addresses


def _return_path(field: Field, defaults: Defaults) -> bytes | None:
    try:
        found = mailboxes(field.text[field.body() :])
    except AddressError:
        return None
    return defaults.complete(found[0]) if len(found) == 1 else None


def _written(author: Author) -> bytes:
    """`"Name" <local@host>`, or the address alone."""
    local, _, domain = author.address.rpartition(b"@")
    address = (local if _is_dot_atom(local) else _quoted(local)) + b"@" + domain
    if not author.name:
        return address
    name = _quoted(author.name) if author.name.isascii() else _encoded(author.name)
    return name + b" <" + address + b">"


def _is_dot_atom(local: bytes) -> bool:
    return all(local.split(b".")) and _ATEXT.issuperset(local)


def _quoted(text: bytes) -> bytes:
    printable = bytes([octet if octet >= 32 and octet != 127 else 32 for octet in text])
    return b'"' + printable.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def _encoded(name: bytes) -> bytes:
    """Encoded words (RFC 2047), each with whole characters."""
    from binascii import b2a_base64  # noqa: PLC0415  # few have such a name

    words: list[bytes] = [b""]
    for letter in name.decode("utf-8", "replace"):
        octets = (letter if letter.isprintable() else " ").encode()
        if len(words[-1]) + len(octets) > _WORD:
            words.append(b"")
        words[-1] += octets
    return b"\n ".join([b"=?utf-8?B?%b?=" % b2a_base64(word, newline=False) for word in words])


def _name(line: bytes) -> bytes:
    """The field's name in lower case, empty when the line begins no field.

    Blanks before the colon are allowed (RFC 5322 section 4.5); an mbox begins with a line of its own."""
    name, colon, _ = line.partition(b":")
    name = name.rstrip(b" \t")
    if colon and name and all(32 < octet < 127 for octet in name):
        return name.lower()
    return _FROM_LINE if line.startswith(b"From ") else b""


def _continues(line: bytes) -> bool:
    return line.startswith((b" ", b"\t"))


def _shown(field: Field) -> str:
    return field.text.partition(b":")[0].strip().decode("ascii", "replace")
