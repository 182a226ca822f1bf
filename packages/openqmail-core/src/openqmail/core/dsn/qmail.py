"""The bounce as qmail-send writes it (the qmail-send bounce message format, QSBMF).

`bounce` gives what stands before the copy of the original message: the caller appends that,
and sends the whole.  Pure; the time is handed in.  Byte for byte as recorded, with one
exception: a line break or NUL in an envelope address, which qmail-send lets into the header
of its bounce, is written `_` here, as qmail-send does in the list of recipients.
"""

import re

from openqmail.core.control.settings import Settings
from openqmail.core.message.trace import qmail_date, qmail_hop, quote

_EMPTY_LINE = re.compile(rb"(?<=\n)\n")
_BREAKS = bytes.maketrans(b"\n\r\0", b"___")

FAILED = b"""\
I'm afraid I wasn't able to deliver your message to the following addresses.
This is a permanent error; I've given up. Sorry it didn't work out.
"""
BOUNCED = b"I tried to deliver a bounce message to this address, but the bounce bounced!\n"
_COPY = b"--- Below this line is a copy of the message.\n\n"
_ORIGINAL_BOUNCE = b"--- Below this line is the original bounce.\n\n"


def bounce(
    settings: Settings,
    recipient: bytes,
    failures: bytes,
    *,
    double: bool,
    now: float,
    pid: int,
) -> bytes:
    """The head and text of a bounce to `recipient`, up to and with the Return-Path line of
    the copy that follows.

    `failures`: the paragraphs (see `report`) of all recipients that failed, as they stand in
    `bounce/N`.  `double`: what failed was a bounce itself.  `pid`: who the Received line says
    made it.
    """
    host = settings.bouncehost
    to = quoted_address(recipient)
    return b"".join(
        (
            qmail_hop(pid, b"for bounce", now),
            b"Date: %s\n" % qmail_date(now),
            b"From: %s@%s\n" % (quote(settings.bouncefrom.translate(_BREAKS)), host),
            b"To: %s\n" % to,
            b"Subject: failure notice\n\n",
            b"Hi. This is the qmail-send program at %s.\n" % host,
            BOUNCED if double else FAILED,
            b"\n",
            failures,
            _ORIGINAL_BOUNCE if double else _COPY,
            b"Return-Path: <%s>\n" % (b"" if double else to),
        )
    )


def report(address: bytes, text: bytes) -> bytes:
    """One recipient's paragraph, as it also stands in `bounce/N`: it ends with an empty line.
    One inside would begin the next paragraph, so it becomes `/` (at the very end of a report
    it may stay, as in qmail-send)."""
    paragraph = b"<%s>:\n%s" % (address.replace(b"\n", b"_"), text)
    if not paragraph.endswith(b"\n"):
        paragraph += b"\n"
    return _EMPTY_LINE.sub(b"/", paragraph[:-1]) + b"\n\n"


def quoted_address(address: bytes) -> bytes:
    """An envelope address as a header may carry it: the local part in quotes where RFC 5322
    section 3.4.1 wants them, the host as it is."""
    local, at, host = address.translate(_BREAKS).rpartition(b"@")
    if at:
        return quote(local) + b"@" + host
    return quote(host) if host else b""
