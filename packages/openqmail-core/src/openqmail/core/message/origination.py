"""The header of a message that begins its way here: its fields, and what it may lack (RFC 5322, RFC 6409).

Who writes mail hands it to a program of this host, or to a submission service; both add a Date and a
Message-ID where there is none, and neither lets a Bcc go on.  Lines may end with CRLF.  Pure, and light
to import.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from time import struct_time

_MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")
_FROM_LINE = b"From "
"""What stands for a name where an mbox's own line is."""
_LONGEST = 998
"""Bytes of a name, and of the blanks behind it, as in fields.py: what is a field to one is one to all."""
_BLIND = frozenset((b"bcc", b"resent-bcc"))


class Field:
    """One header field: `name` in lower case, `text` all its lines as they were."""

    __slots__ = ("name", "text")

    def __init__(self, name: bytes, text: bytes) -> None:
        self.name, self.text = name, text

    def body(self) -> int:
        """The offset behind the colon."""
        return self.text.index(b":") + 1


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


def header_size(start: bytes | bytearray, whole: bool, place: int = 0) -> int | None:
    """How much of a message's start is its header; None when more of it has to be seen.  `place`: the
    lines before it have been seen, and are all of the header.

    A header ends before its first empty line, or before a line that is none of a header's.
    """
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


def completed(header: bytes, stamp: Stamp) -> bytes:
    """A header that is as long as `header_size` says, without Bcc, with Date and Message-ID (RFC 6409
    section 8); one of these that says nothing is none."""
    found = fields(header)
    names = {field.name for field in found if field.text.partition(b":")[2].strip()}
    added, left_out = [], set(_BLIND)
    if b"date" not in names:
        added.append(b"Date: " + stamp.date() + b"\n")
        left_out.add(b"date")
    if b"message-id" not in names:
        added.append(b"Message-ID: " + stamp.message_id() + b"\n")
        left_out.add(b"message-id")
    return b"".join((*added, *(field.text for field in found if field.name not in left_out)))


def _name(line: bytes | bytearray) -> bytes:
    """The field's name in lower case, empty when the line begins no field.

    Blanks before the colon are allowed (RFC 5322 section 4.5); an mbox begins with a line of its own."""
    before, colon, _ = line.partition(b":")
    name = before.rstrip(b" \t")
    bounded = 0 < len(name) <= _LONGEST and len(before) - len(name) <= _LONGEST
    if colon and bounded and all(32 < octet < 127 for octet in name):
        return bytes(name.lower())
    return _FROM_LINE if line.startswith(b"From ") else b""


def _continues(line: bytes | bytearray) -> bool:
    return line.startswith((b" ", b"\t"))
