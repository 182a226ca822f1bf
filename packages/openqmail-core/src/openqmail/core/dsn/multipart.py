"""A report as MIME: multipart/report (RFC 6522) of a text for people, the fields of RFC 3464 for
programs, and the original or its header.

`enclose` gives what stands before the copy and what behind it, so that a large original need not be
in memory.  The boundary is handed in and has to be one that no stranger can guess: nothing is searched
for it.  `Auto-Submitted` is RFC 3834's auto-replied, as for every answer that no person wrote.  All
in stored form; pure, the time is handed in.
"""

import re
from itertools import groupby

import msgspec

from openqmail.core.control.settings import Settings
from openqmail.core.dsn.fields import LONGEST, Report, Told, fields
from openqmail.core.dsn.qmail import BOUNCED, FAILED, quoted_address, report
from openqmail.core.dsn.status import Action
from openqmail.core.message.header import header_end
from openqmail.core.message.trace import qmail_date, qmail_hop, quote

HEADER = 64 * 1024
"""Bytes of an original's header that are given back."""

_DELAYED = b"""\
I haven't been able to deliver your message to the following addresses yet.
You need not do anything: I'll go on trying until %s, and tell you when I give up.
"""
_DELIVERED = b"Your message was delivered to the following addresses.\n"
_RELAYED = b"""\
Your message was handed on for the following addresses. The hosts that took it
will not tell you whether it was delivered.
"""
_EXPANDED = b"""\
The following addresses stand for several others, to whom your message was sent on.
You will not be told when it reaches them.
"""

_SUBJECTS: dict[Action, bytes] = {"failed": b"failure notice", "delayed": b"delay notice"}
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_NOT_IN_HEADER = bytes.maketrans(b"\r\0", b"??")
_LONG = re.compile(rb"[^\n]{%d,%d}(?=[^\n\x80-\xbf])" % (LONGEST - 10, LONGEST))
"""A piece of a line that is too long; it ends with no half of a character in UTF-8."""
_BREAKS = bytes.maketrans(b"\n\r\0", b"___")


class Copy(msgspec.Struct, frozen=True, gc=False):
    """What of the original is given back: all of it (`whole`) or its header; `eight_bit`: any octet of
    that has its high bit set."""

    whole: bool
    eight_bit: bool


def enclose(
    settings: Settings, report: Report, copy: Copy, *, boundary: bytes, now: float, pid: int
) -> tuple[bytes, bytes]:
    """What stands before and behind the copy.  `boundary`: at most 70 letters and digits, also the
    message's own id; `pid`: who the Received line says made it."""
    words = _words(settings, report)
    facts = fields(report, settings.me)
    eight_bit = copy.eight_bit or not (words.isascii() and facts.isascii())
    head = b"".join(
        (
            *_header(settings, report, boundary, now, pid),
            b"Content-Type: multipart/report; report-type=delivery-status;\n",
            b'\tboundary="%s"\n' % boundary,
            _encoding(eight_bit),
            b"\n--%s\n" % boundary,
            b"Content-Type: text/plain; charset=%s\n" % (b"us-ascii" if words.isascii() else b"utf-8"),
            _encoding(not words.isascii()),
            b"\n",
            words,
            b"\n--%s\n" % boundary,
            b"Content-Type: message/%s\n" % _of_fields(report),
            _encoding(not facts.isascii()),
            b"\n",
            facts,
            b"\n--%s\n" % boundary,
            b"Content-Type: %s\n" % _of_copy(report, copy),
            _encoding(copy.eight_bit),
            b"\n",
        )
    )
    return head, b"\n--%s--\n" % boundary


def header(original: bytes) -> bytes:
    """The header of a message whose beginning this is, fit to be sent: long lines are divided, what
    SMTP cannot carry is `?`."""
    end = header_end(original)
    if end > HEADER:
        end = original.rfind(b"\n", 0, HEADER) + 1
    return _LONG.sub(rb"\g<0>\n ", original[:end].translate(_NOT_IN_HEADER))


def _header(settings: Settings, report: Report, boundary: bytes, now: float, pid: int) -> tuple[bytes, ...]:
    host = settings.bouncehost
    sender = quote(settings.bouncefrom.translate(_BREAKS))
    return (
        qmail_hop(pid, b"for bounce", now),
        b"Date: %s\n" % qmail_date(now),
        b"From: %s@%s\n" % (sender, host),
        b"To: %s\n" % quoted_address(report.recipient),
        b"Subject: %s\n" % _SUBJECTS.get(report.told[0].action, b"success notice"),
        b"Message-ID: <%s@%s>\n" % (boundary, host),
        b"Auto-Submitted: auto-replied\n",
        b"MIME-Version: 1.0\n",
    )


def _words(settings: Settings, of: Report) -> bytes:
    """The text for people, with the reports as they were written."""
    text = [b"Hi. This is the qmail-send program at %s.\n" % settings.bouncehost]
    for action, group in groupby(of.told, key=_action):
        text.append(_introduction(action, of) + b"\n")
        text += [report(told.address, told.text) for told in group]
    words = b"".join(text)
    if not words.isascii() or _CONTROL.search(words.decode()):
        words = _CONTROL.sub("?", words.decode("utf-8", "replace")).encode()
    return _LONG.sub(rb"\g<0>\n", words) if len(max(words.split(b"\n"), key=len)) > LONGEST else words


def _action(told: Told) -> Action:
    return told.action


def _introduction(action: Action, of: Report) -> bytes:
    if action == "failed":
        return BOUNCED if of.double else FAILED
    if action == "delayed":
        return _DELAYED % qmail_date(of.until)
    return {"delivered": _DELIVERED, "relayed": _RELAYED, "expanded": _EXPANDED}[action]


def _encoding(eight_bit: bool) -> bytes:
    return b"Content-Transfer-Encoding: 8bit\n" if eight_bit else b""


def _of_fields(of: Report) -> bytes:
    return b"global-delivery-status" if of.smtputf8 else b"delivery-status"


def _of_copy(of: Report, copy: Copy) -> bytes:
    """RFC 6522 sections 3 and 4, RFC 6533 section 5."""
    if copy.whole:
        return b"message/global" if of.smtputf8 else b"message/rfc822"
    return b"message/global-headers" if of.smtputf8 else b"text/rfc822-headers"
