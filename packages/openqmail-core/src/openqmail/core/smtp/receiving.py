"""A message on its way in, as DATA carries it or as the chunks of BDAT do (RFC 3030): octets in, stored
form out, and the reply that refuses it.

Both are strict in the same way: only CRLF ends a line, no NUL, no line over 998 octets; for BODY=BINARYMIME
is not offered, and all else is text with such lines (RFC 3030 section 2).  What breaks this in DATA
makes it doubtful where the message ends, so it is `fatal`; a chunk's end is beyond doubt, and it is
swallowed to that before it is refused, as section 2 demands, unless too much of it is to come.  Pure.
"""

from openqmail.core.message.lines import ChunkDecoder, DataDecoder, Violation
from openqmail.core.smtp import tables
from openqmail.core.values import Reply

SWALLOWED = 64 * 1024 * 1024
"""Octets of a refused chunk that are swallowed: who announces more is sent away."""

_BROKEN: dict[Violation | None, Reply] = {
    violation: Reply(554, b"5.6.0", (b"the message has " + violation.value,))
    for violation in Violation
    if violation is not Violation.LONG_LINE
}


class DataBody:
    """What follows DATA, to its end.

    `over`: no more of it will come, and `rest` is what followed; `last`: then the message is whole.
    `refusal`: why it is not taken, told when it is over, or at once where it is `fatal`."""

    __slots__ = ("_decoder", "_limit", "fatal", "over", "refusal", "rest")

    command = "message"
    last = True

    def __init__(self, limit: int) -> None:
        self._decoder = DataDecoder()
        self._limit = limit  # octets, 0: none
        self.over = self.fatal = False
        self.rest = b""
        self.refusal: Reply | None = None

    @property
    def size(self) -> int:
        """Octets of the message so far, as RFC 1870 counts."""
        return self._decoder.size

    def feed(self, data: bytes) -> bytes:
        """The next octets; returns what is to be stored of them."""
        decoder = self._decoder
        stored = decoder.feed(data)
        self.over, self.rest = decoder.ended, decoder.rest
        violation = decoder.violation
        if violation is None and not 0 < self._limit < decoder.size:
            return stored
        broken = _BROKEN.get(violation)
        self.fatal = broken is not None
        self.refusal = broken or (tables.TOO_LARGE if 0 < self._limit < decoder.size else tables.LONG_LINE)
        return b""


class ChunkedBody:
    """What follows each BDAT of a transaction: `begin`, `feed` until it is `over`, so on to the `last`."""

    __slots__ = ("_decoder", "_left", "_limit", "command", "fatal", "last", "refusal", "rest", "size")

    def __init__(self, limit: int) -> None:
        self._decoder = ChunkDecoder()
        self._limit = limit
        self._left = 0
        self.command = "bdat"
        self.last = self.fatal = False
        self.size = 0
        self.rest = b""
        self.refusal: Reply | None = None

    @property
    def over(self) -> bool:
        """The chunk is."""
        return not self._left

    def begin(self, octets: int, last: bool) -> None:
        """A chunk was announced."""
        self._left, self.last = octets, last
        self.size += octets
        if 0 < self._limit < self.size:
            self.refuse(tables.TOO_LARGE)
        elif not octets and last:
            self._judge(b"")

    def refuse(self, reply: Reply) -> None:
        """The chunk that was begun is not wanted, nor is the message."""
        self.refusal = reply
        self.fatal = self._left > SWALLOWED

    def feed(self, data: bytes) -> bytes:
        """The next octets; returns what is to be stored of them."""
        left = self._left
        mine, self.rest = (data, b"") if len(data) <= left else (data[:left], data[left:])
        self._left = left - len(mine)
        return b"" if self.refusal is not None else self._judge(mine)

    def _judge(self, mine: bytes) -> bytes:
        decoder = self._decoder
        stored = decoder.feed(mine, self.last and not self._left)
        violation = decoder.violation
        if violation is None:
            return stored
        self.command = "message"
        self.refuse(_BROKEN.get(violation) or tables.LONG_LINE)
        return b""
