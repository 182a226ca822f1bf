"""A message's two forms: lines that end with CRLF on the wire, with LF where it is stored.

`DataDecoder` turns what follows DATA into the stored form, `ChunkDecoder` what follows BDAT, `DataEncoder`
the stored form into what follows DATA; chunks may end anywhere, and neither holds more than a few bytes back.
Only CRLF "." CRLF ends a message, only CRLF ends a line (RFC 5321 sections 2.3.8, 4.1.1.4,
4.5.2 and 4.5.3.1.6): all else is named as a violation, never mended.  `unfit` and `Fitness`
tell beforehand what SMTP cannot carry; `wire_form` encodes a body that is whole in memory.
"""

import re
from enum import Enum

from openqmail.core.values import PermanentFailure

MAX_LINE = 998
"""Octets in a line of text without its CRLF (RFC 5321 section 4.5.3.1.6)."""

_END = b"\r\n.\r\n"
_TAILS = frozenset(_END)
_FATAL = re.compile(rb"\r(?!\n)|(?<!\r)\n|\0")


class Violation(Enum):
    """What a body on the wire may not hold."""

    BARE_CR = b"a carriage return without a line feed"
    BARE_LF = b"a line feed without a carriage return"
    NUL = b"a NUL octet"
    LONG_LINE = b"a line over 998 octets"


_BY_OCTET = {b"\r": Violation.BARE_CR, b"\n": Violation.BARE_LF, b"\0": Violation.NUL}


_TOO_LONG = -1


def _column(stored: bytes, column: int) -> int:
    """Where in its line the next octet will stand after this chunk, whose first stands at
    `column`; `_TOO_LONG` when a line is over the limit by then."""
    start, size = 0, len(stored)
    # Hop from the last LF that is near enough to the next: few hops for many lines.
    while size - start + column > MAX_LINE:
        end = stored.rfind(b"\n", start, start + MAX_LINE + 1 - column)
        if end < 0:
            return _TOO_LONG
        start, column = end + 1, 0
    end = stored.rfind(b"\n", start)
    return column + size - start if end < 0 else size - end - 1


class DataDecoder:
    """Wire form to stored form.

    `feed` gives what can be stored of a chunk.  `ended` is true once the end was seen, and
    `rest` is what followed it.  `size` counts as RFC 1870 does: the lines with their CRLF,
    without the dots added for transparency.  After `violation` is any but `LONG_LINE` the
    decoder gives nothing more; the first such one wins, and it wins over `LONG_LINE`.
    """

    __slots__ = ("_began", "_column", "_held", "ended", "rest", "size", "violation")

    def __init__(self) -> None:
        self._held = b"\r\n"  # the end of the DATA command: a first line may begin with a dot
        self._began = False
        self._column = 0
        self.ended = False
        self.rest = b""
        self.size = 0
        self.violation: Violation | None = None

    @property
    def broken(self) -> bool:
        """A violation that makes it doubtful where the message ends."""
        return self.violation is not None and self.violation is not Violation.LONG_LINE

    def feed(self, data: bytes) -> bytes:
        """The next bytes from the wire; returns the stored form of what is certain by now."""
        if self.violation is not None and self.broken:
            return b""
        if self.ended:
            self.rest += data
            return b""
        data = self._held + data
        dot = data.find(b"\r\n.")  # one search for the end and for stuffed dots
        stuffed = dot >= 0 and data[dot : dot + 5] != _END
        end = data.find(_END, dot) if stuffed else dot
        if end >= 0:
            self.ended = True
            self.rest = data[end + 5 :]
            data = data[: end + 2]
            self._held = b""
        else:
            data = self._hold_back(data)
        return self._stored(data, stuffed) if data else b""

    def _hold_back(self, data: bytes) -> bytes:
        """Keep any tail that the end of the message could begin with."""
        self._held = b""
        if data[-1] in _TAILS:
            for length in (4, 3, 2, 1):
                if data.endswith(_END[:length]):
                    self._held = data[-length:]
                    return data[:-length]
        return data

    def _stored(self, wire: bytes, stuffed: bool) -> bytes:
        # A CR is never last in `wire` but before its LF.  To take all CR out and to put one
        # before each LF is the identity only where no CR and no LF stands alone.
        plain = wire.replace(b"\r\n.", b"\r\n") if stuffed else wire
        stored = plain.replace(b"\r", b"")
        if 0 in stored or stored.replace(b"\n", b"\r\n") != plain:
            return self._break(wire)
        self.size += len(plain)
        if not self._began:
            self._began = True
            stored = stored[1:]  # the LF of the DATA command
            self.size -= 2
        if self.violation is None:
            self._column = _column(stored, self._column)
            if self._column < 0:
                self.violation = Violation.LONG_LINE
        return stored

    def _break(self, wire: bytes) -> bytes:
        self.violation = _BY_OCTET[_FATAL.findall(wire)[0]]
        self.ended = False
        self.rest = b""
        return b""


class ChunkDecoder:
    """The same for chunks whose length is known (RFC 3030): no dot means anything, and a line may go on in
    the next chunk.  After the first `violation` it gives nothing more."""

    __slots__ = ("_column", "_held", "violation")

    def __init__(self) -> None:
        self._column = 0
        self._held = b""
        self.violation: Violation | None = None

    def feed(self, data: bytes, last: bool) -> bytes:
        """The next bytes from the wire; `last`: no more will come."""
        if self.violation is not None:
            return b""
        wire = self._held + data if self._held else data
        self._held = b""
        if wire.endswith(b"\r") and not last:
            wire, self._held = wire[:-1], b"\r"
        stored = wire.replace(b"\r", b"")
        if 0 in stored or stored.replace(b"\n", b"\r\n") != wire:
            self.violation = _BY_OCTET[_FATAL.findall(wire)[0]]
            return b""
        self._column = _column(stored, self._column)
        if self._column < 0:
            self.violation = Violation.LONG_LINE
            return b""
        return stored


class DataEncoder:
    """Stored form to wire form: `feed` each chunk, then `finish`.

    A dot is doubled wherever it follows a CRLF that was really written.  A message without
    a final newline gets one.  A CR in a chunk is refused: it could only go out bare.
    """

    __slots__ = ("_in_line",)

    def __init__(self) -> None:
        self._in_line = False

    def feed(self, stored: bytes) -> bytes:
        """The wire form of the next chunk."""
        if not stored:
            return b""
        if b"\r" in stored:
            raise PermanentFailure("the message holds a carriage return, which SMTP cannot carry (#5.6.0)")
        wire = stored
        if b"\n." in wire:
            wire = wire.replace(b"\n.", b"\n..")
        if not self._in_line and wire.startswith(b"."):
            wire = b"." + wire
        self._in_line = not wire.endswith(b"\n")
        return wire.replace(b"\n", b"\r\n")

    def finish(self) -> bytes:
        """The end of the message."""
        return _END if self._in_line else _END[2:]


class Fitness:
    """Whether SMTP can carry a body, looked at in chunks; `eight_bit` says whether any octet
    seen so far has its high bit set, so that the next hop must offer 8BITMIME (RFC 6152)."""

    __slots__ = ("_column", "eight_bit", "reason")

    def __init__(self) -> None:
        self._column = 0
        self.eight_bit = False
        self.reason: str | None = None

    def feed(self, stored: bytes) -> str | None:
        """Look at the next chunk; returns why the body is unfit, None while it is not."""
        if self.reason is None:
            self.reason = self._look(stored)
        return self.reason

    def _look(self, stored: bytes) -> str | None:
        self.eight_bit = self.eight_bit or not stored.isascii()
        if _CR in stored:
            return _HOLDS_CR
        if 0 in stored:
            return _HOLDS_NUL
        self._column = _column(stored, self._column)
        return _HOLDS_LONG_LINE if self._column < 0 else None


_CR = 13
_HOLDS_CR = "it holds a carriage return, and SMTP knows them only at the end of a line"
_HOLDS_NUL = "it holds a NUL octet, which SMTP cannot carry"
_HOLDS_LONG_LINE = "it has a line over 998 octets, the longest that SMTP can carry"


def unfit(body: bytes) -> str | None:
    """Why SMTP cannot carry a whole stored body; None when it can."""
    if _CR in body:
        return _HOLDS_CR
    if 0 in body:
        return _HOLDS_NUL
    start, near = 0, len(body) - MAX_LINE
    while start < near:
        start = body.rfind(b"\n", start, start + MAX_LINE + 1) + 1
        if not start:
            return _HOLDS_LONG_LINE
    return None


def chunk_form(wire: bytes) -> bytes:
    """What `wire_form` made as BDAT carries it (RFC 3030): without the end and the dots for transparency."""
    lines = wire[:-3]
    if lines.startswith(b"."):
        lines = lines[1:]
    return lines.replace(b"\r\n..", b"\r\n.") if b"\r\n.." in lines else lines


def wire_form(body: bytes) -> tuple[bytes, int]:
    """A whole stored body that is not `unfit` as it stands on the wire, its end included; and
    its size as RFC 1870 counts, without that end and the dots added for transparency."""
    wire = body.replace(b"\n", b"\r\n")
    size = len(wire)
    if b"\n." in wire:
        wire = wire.replace(b"\n.", b"\n..")
    if wire.startswith(b"."):
        wire = b"." + wire
    complete = not wire or wire.endswith(b"\n")
    return wire + (_END[2:] if complete else _END), size
