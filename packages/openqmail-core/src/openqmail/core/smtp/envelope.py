"""The commands that hand an envelope to a peer, as far as its extensions allow.

MAIL, a RCPT for each recipient, DATA (RFC 5321 section 3.3), with SIZE (RFC 1870), BODY (RFC
6152), SMTPUTF8 (RFC 6531) and DSN (RFC 3461) where they are offered and wanted.  A message that
this peer can never take raises `PermanentFailure`, `ExtensionMissing` where an extension would help.
Domains become A-labels unless the transaction uses SMTPUTF8.
"""

import re
from collections.abc import Mapping
from functools import lru_cache

from openqmail.core.smtp.client_events import ExtensionMissing, Transaction
from openqmail.core.smtp.grammar import quote, wire_domain
from openqmail.core.smtp.notify import ascii_only
from openqmail.core.values import PermanentFailure

_VALUE = re.compile(rb"[\x21-\x3c\x3e-\x7e]+")
_VALUE_UTF8 = re.compile(rb"[\x21-\x3c\x3e-\x7e\x80-\xff]+")

_DOUBLE_BOUNCE = b"#@[]"
"""qmail's sender of double bounces, which no other host knows: it leaves as the null path."""

_ADDRESSES = 4096
"""Written addresses that are remembered: the same ones come again and again."""


def commands(transaction: Transaction, offered: Mapping[bytes, bytes]) -> list[bytes]:
    """MAIL, each RCPT in the order of the recipients, DATA."""
    sender = b"" if transaction.sender == _DOUBLE_BOUNCE else transaction.sender
    smtputf8 = transaction.smtputf8 or not _carried(sender, transaction.recipients)
    parameters = _parameters(transaction, smtputf8, offered)
    path = quote if smtputf8 else _ascii_path
    wishes = transaction.dsn
    if b"DSN" not in offered:
        wishes = ()
    elif transaction.ret or transaction.envid:
        parameters += _given(b"RET", transaction.ret) + _given(b"ENVID", transaction.envid)
    todo = [b"MAIL FROM:<%b>%b\r\n" % (path(sender), parameters)]
    for place, address in enumerate(transaction.recipients):
        wish = _wish(*wishes[place], smtputf8) if wishes else b""
        todo.append(b"RCPT TO:<%b>%b\r\n" % (path(address), wish))
    todo.append(b"DATA\r\n")
    return todo


def _parameters(transaction: Transaction, smtputf8: bool, offered: Mapping[bytes, bytes]) -> bytes:
    """The parameters of MAIL, each with a space in front."""
    parameters = b""
    if b"SIZE" in offered and transaction.size:
        limit = offered[b"SIZE"]
        if limit.isdigit() and len(limit) <= 20 and 0 < int(limit) < transaction.size:
            raise PermanentFailure(
                f"the message has {transaction.size} octets, and the peer takes {int(limit)} (#5.3.4)"
            )
        parameters += b" SIZE=%d" % transaction.size
    if transaction.eight_bit:
        if b"8BITMIME" not in offered:
            raise ExtensionMissing("the message is 8-bit, and the peer does not offer 8BITMIME (#5.6.3)")
        parameters += b" BODY=8BITMIME"
    if smtputf8:
        if b"SMTPUTF8" not in offered:
            raise ExtensionMissing("the message needs SMTPUTF8, which the peer does not offer (#5.6.7)")
        parameters += b" SMTPUTF8"
    return parameters


def _wish(notify: bytes, orcpt: bytes, smtputf8: bool) -> bytes:
    """The parameters of RCPT, each with a space in front."""
    if not smtputf8:
        return _given(b"NOTIFY", notify) + _given(b"ORCPT", ascii_only(orcpt))
    return _given(b"NOTIFY", notify) + _given(b"ORCPT", orcpt, _VALUE_UTF8)


def _given(keyword: bytes, value: bytes, form: re.Pattern[bytes] = _VALUE) -> bytes:
    """A parameter; none where it has no value, or one that could be more than a value."""
    return b" %b=%b" % (keyword, value) if form.fullmatch(value) else b""


def _carried(sender: bytes, recipients: tuple[bytes, ...]) -> bool:
    """Whether these addresses can do without SMTPUTF8: domains can, by A-labels."""
    for address in (sender, *recipients):
        if not address.isascii() and not address.rpartition(b"@")[0].isascii():
            return False
    return True


@lru_cache(_ADDRESSES)
def _ascii_path(address: bytes) -> bytes:
    if address.isascii():
        return quote(address)
    local, _, domain = address.rpartition(b"@")
    return quote(local + b"@" + wire_domain(domain))
