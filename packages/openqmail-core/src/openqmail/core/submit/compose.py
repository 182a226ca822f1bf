"""The header of a new message, as qmail-inject(8) and qmail-header(5) make it.

Bcc, Return-Path and Content-Length are taken out; Date, Message-ID and From (of a resent
message: their Resent- twins) are put in where they are missing; addresses are completed where
they stand.  A field whose addresses cannot be read stays as it is, unless recipients are to
come from it: that is a HeaderError.  Lines may end with CRLF.  Pure, and light to import.
"""

from __future__ import annotations

from openqmail.core.message.origination import Field, Stamp
from openqmail.core.submit.addresses import AddressError, Defaults, mailboxes, plain

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
_ATEXT = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-/=?^_`{|}~.")
_WORD = 45
"""Octets that one encoded word holds, so that it stays within 75 characters (RFC 2047 section 2)."""


class HeaderError(ValueError):
    """Recipients were to come from a field that cannot be read; the text names it and says why."""


class Author:
    """Who writes, for a From field: a complete address, and a name for people, which may be empty."""

    __slots__ = ("address", "name")

    def __init__(self, address: bytes, name: bytes) -> None:
        self.address, self.name = address, name


class Composed:
    """`header` without the empty line that ends it; `recipients` that it names, complete and each
    once; `return_path`: the sender that it brought along, None when it had none that can be read."""

    __slots__ = ("header", "recipients", "return_path")

    def __init__(self, header: bytes, recipients: list[bytes], return_path: bytes | None) -> None:
        self.header, self.recipients, self.return_path = header, recipients, return_path


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


def _shown(field: Field) -> str:
    return field.text.partition(b":")[0].strip().decode("ascii", "replace")
