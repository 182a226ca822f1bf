"""The arguments of commands: for MAIL and RCPT a path, then parameters (RFC 5321 sections
4.1.1.2, 4.1.1.3 and 4.1.1.11).

SIZE is RFC 1870's, BODY RFC 6152's, SMTPUTF8 RFC 6531's, RET, ENVID, NOTIFY and ORCPT RFC 3461's
(see `notify`); any other parameter, and any after HELO, is refused with 555.  Each reader returns the
event, or raises the refusal; `common` reads whole lines of the forms that nearly all clients send.
"""

import binascii
import re
from functools import lru_cache

from openqmail.core.smtp import notify as form
from openqmail.core.smtp import tables
from openqmail.core.smtp.events import Auth, Data, Hello, Mail, Quit, Rcpt
from openqmail.core.smtp.grammar import DOMAIN, SHORT, AddressError, forward_path, reverse_path
from openqmail.core.smtp.tables import Refusal
from openqmail.core.values import Recipient, Reply
from openqmail.core.values.address import DOT_STRING

_COMMON = re.compile(
    rb"(?:(?i:MAIL FROM):<((?:%b@%b)?)>|(?i:RCPT TO):<(%b@%b)>"
    rb"|(?i:EHLO) ([\x21-\x7e]+)|(?i:HELO) ([\x21-\x7e]+)|(?i:(DATA)|(QUIT)))\r\n"
    % (DOT_STRING, DOMAIN, DOT_STRING, DOMAIN)
)
_KEYWORD = re.compile(rb"[A-Za-z0-9][A-Za-z0-9-]*")
_VALUE = re.compile(rb"[\x21-\x3c\x3e-\x7e\x80-\xff]+")
_SIZE = re.compile(rb"[0-9]{1,20}")
_CHUNK = re.compile(rb"([0-9]{1,20})( +(?i:LAST))?")
_MAILBOX = re.compile(rb"<>|(?:[!-*,-<>-~]|\+[0-9A-F]{2})+")
"""xtext, or nobody; the value of MAIL's AUTH."""
_OF_DSN = frozenset({b"RET", b"ENVID", b"NOTIFY", b"ORCPT"})
_WORD = re.compile(rb"[\x21-\x7e]{1,255}")

SHORT_LINE = SHORT
"""Octets in a command line that `common` may be asked about: all in it is within every limit."""

Parameters = dict[bytes, bytes | None]


class Uncommon(Exception):
    """A line has none of the common forms."""


@lru_cache(maxsize=4096)
def common(line: bytes) -> Hello | Mail | Rcpt | Data | Quit:
    """What a short line says, where it has a common form without parameters.  Clients come
    again, and so do addresses.  Raises Uncommon for any other, and keeps none: it may be a password, in AUTH
    or sent astray."""
    found = _COMMON.fullmatch(line)
    if found is None:
        raise Uncommon
    sender, recipient, ehlo, helo, data, _ = found.groups()
    if sender is not None:
        return Mail(sender)
    if recipient is not None:
        return Rcpt(Recipient(recipient))
    if ehlo is not None:
        return Hello(ehlo, True)
    if helo is not None:
        return Hello(helo, False)
    return Data() if data is not None else Quit()


def read_hello(argument: bytes, extended: bool) -> Hello:
    """Any one word will do: section 4.1.4 forbids to judge a client by its name."""
    if not _WORD.fullmatch(argument):
        raise Refusal(tables.BAD_HELLO)
    return Hello(argument, extended)


def read_mail(argument: bytes, extended: bool, limit: int, dsn: bool, auth: bool = False) -> Mail:
    """What stands behind `MAIL `; `limit` is the size that is offered, 0 for none; `dsn`: DSN is; `auth`:
    AUTH is, whose parameter is taken and believed nobody (RFC 4954 section 5)."""
    if argument[:5].upper() != b"FROM:":
        raise Refusal(tables.NOT_FROM)
    try:
        sender, rest = reverse_path(argument[5:])
    except AddressError as error:
        raise Refusal(Reply(501, b"5.1.7", (str(error).encode(),))) from error
    given = _parameters(rest, extended, dsn)
    if auth and b"AUTH" in given and not _MAILBOX.fullmatch(given.pop(b"AUTH") or b""):
        raise Refusal(tables.BAD_VALUE)
    mail = _mail(sender, given)
    if not mail.smtputf8 and not sender.isascii():
        raise Refusal(tables.NEEDS_SMTPUTF8)
    if 0 < limit < mail.size:
        raise Refusal(tables.TOO_LARGE)
    return mail


def read_rcpt(argument: bytes, extended: bool, smtputf8: bool, dsn: bool) -> Rcpt:
    """What stands behind `RCPT `; `smtputf8` is the transaction's; `dsn`: DSN is offered."""
    if argument[:3].upper() != b"TO:":
        raise Refusal(tables.NOT_TO)
    try:
        address, rest = forward_path(argument[3:])
    except AddressError as error:
        raise Refusal(Reply(501, b"5.1.3", (str(error).encode(),))) from error
    recipient = _recipient(address, _parameters(rest, extended, dsn), smtputf8)
    if not smtputf8 and not address.isascii():
        raise Refusal(tables.NEEDS_SMTPUTF8)
    return Rcpt(recipient)


def read_auth(argument: bytes, offered: tuple[bytes, ...]) -> Auth:
    """AUTH SP mechanism [SP initial-response]; "=" is an empty one (RFC 4954 section 4)."""
    mechanism, given, initial = argument.partition(b" ")
    if not mechanism or b" " in initial:
        raise Refusal(tables.BAD_AUTH)
    if mechanism.upper() not in offered:
        raise Refusal(tables.NO_MECHANISM)
    if not given:
        return Auth(mechanism.upper(), None)
    return Auth(mechanism.upper(), b"" if initial == b"=" else read_base64(initial))


def read_bdat(argument: bytes) -> tuple[int, bool] | None:
    """BDAT SP chunk-size [SP LAST] (RFC 3030 section 2): octets, and whether it is the last; None where it
    says neither, and nobody can tell what of what follows is message."""
    found = _CHUNK.fullmatch(argument)
    return (int(found[1]), found[2] is not None) if found else None


def read_base64(text: bytes) -> bytes:
    """A line of an AUTH exchange."""
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error as error:
        raise Refusal(tables.BAD_BASE64) from error


def _mail(sender: bytes, given: Parameters) -> Mail:
    size, eight_bit, smtputf8, ret, envid = 0, False, False, b"", b""
    for keyword, value in given.items():
        if keyword == b"SIZE" and value is not None and _SIZE.fullmatch(value):
            size = int(value)
        elif keyword == b"BODY" and value is not None and value.upper() in {b"7BIT", b"8BITMIME"}:
            eight_bit = value.upper() == b"8BITMIME"
        elif keyword == b"SMTPUTF8" and value is None:
            smtputf8 = True
        elif keyword == b"RET" and value is not None and value.upper() in {b"FULL", b"HDRS"}:
            ret = value.upper()
        elif keyword == b"ENVID" and value is not None and form.is_envid(value):
            envid = value
        elif keyword in {b"SIZE", b"BODY", b"SMTPUTF8", b"RET", b"ENVID"}:
            raise Refusal(tables.BAD_VALUE)
        else:
            raise Refusal(tables.UNKNOWN_PARAMETER)
    return Mail(sender, size, eight_bit, smtputf8, ret, envid)


def _recipient(address: bytes, given: Parameters, smtputf8: bool) -> Recipient:
    notify, orcpt = b"", b""
    for keyword, value in given.items():
        if keyword not in {b"NOTIFY", b"ORCPT"}:
            raise Refusal(tables.UNKNOWN_PARAMETER)
        if keyword == b"NOTIFY" and value is not None and form.is_notify(value.upper()):
            notify = value.upper()
        elif keyword == b"ORCPT" and value is not None and form.is_orcpt(value, smtputf8):
            orcpt = value
        else:
            raise Refusal(tables.BAD_VALUE)
    return Recipient(address, notify, orcpt)


def _parameters(text: bytes, extended: bool, dsn: bool) -> Parameters:
    """SP esmtp-param *( SP esmtp-param ), keywords in upper case."""
    given: Parameters = {}
    if not text:
        return given
    if not text.startswith(b" "):
        raise Refusal(tables.BAD_PARAMETERS)
    for parameter in text[1:].split(b" "):
        keyword, equals, value = parameter.partition(b"=")
        if not _KEYWORD.fullmatch(keyword) or (equals and not _VALUE.fullmatch(value)):
            raise Refusal(tables.BAD_PARAMETERS)
        if not extended:
            raise Refusal(tables.AFTER_HELO)
        keyword = keyword.upper()
        if keyword in _OF_DSN and not dsn:
            raise Refusal(tables.UNKNOWN_PARAMETER)
        if keyword in given:
            raise Refusal(tables.TWICE)
        given[keyword] = value if equals else None
    return given
