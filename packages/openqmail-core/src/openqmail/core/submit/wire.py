"""The request on the socket `run/submit`, and its answer, in netstrings (as QMQP has them).

    1:1,  SENDER  RECIPIENT ...  0:,  MESSAGE

The version, the envelope's sender (empty: the null sender), each recipient, an empty netstring,
the message.  The answer is one netstring that begins with K (accepted), Z (try later) or D
(never).  A Z that says `BUSY` means that nothing was looked at: come again shortly.  Every
length is bounded before anything of it is read; each violation is a WireError.  Pure.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

VERSION = b"1"
LONGEST_ADDRESS = 900
"""Octets of a sender or recipient (qmail's own limit is 1,002, with what virtualdomains may add)."""
LONGEST_ANSWER = 4096
BUSY = b"(#4.3.2)"
"""Behind the text of a Z: there is no room, or the service is going; nothing was taken."""

_DIGITS = 15


class WireError(ValueError):
    """A request that is refused for its form; the text is a sentence for whoever sent it."""


class Malformed(WireError):
    """Not netstrings, not in their order, or of another version."""


class AddressRefused(WireError):
    """An address that is too long, or holds a NUL or a newline."""


class TooManyRecipients(WireError):
    pass


class MessageTooBig(WireError):
    pass


# --- events of a request ------------------------------------------------------------------


class Sender:
    __slots__ = ("address",)

    def __init__(self, address: bytes) -> None:
        self.address = address


class Recipient:
    __slots__ = ("address",)

    def __init__(self, address: bytes) -> None:
        self.address = address


class Message:
    """All recipients are there; the message is about to come, `size` octets of it."""

    __slots__ = ("size",)

    def __init__(self, size: int) -> None:
        self.size = size


class Chunk:
    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class End:
    """The request is whole."""

    __slots__ = ()


Event = Sender | Recipient | Message | Chunk | End


class RequestDecoder:
    """`receive` bytes as they come, then take events until None.

    `recipients`: how many there may be; `size`: octets of the message, 0 for no limit.  What is not
    taken is kept, so a caller that does not take should not read on.  After `End`, and after a
    WireError, nothing more comes.
    """

    __slots__ = ("_buffer", "_count", "_left", "_next", "_recipients", "_size")

    def __init__(self, recipients: int, size: int) -> None:
        self._recipients, self._size = recipients, size
        self._buffer = bytearray()
        self._next: Callable[[RequestDecoder], Event | None] = RequestDecoder._version
        self._count = 0
        self._left = 0

    def receive(self, data: bytes) -> None:
        self._buffer += data

    def next_event(self) -> Event | None:
        """What has come, or None until there is more.  Raises WireError."""
        try:
            return self._next(self)
        except WireError:
            self._finish()
            raise

    # --- what may come next, in order -------------------------------------------------

    def _version(self) -> Event | None:
        version = self._short(len(VERSION), _UNKNOWN)
        if version is None:
            return None
        if version != VERSION:
            raise _UNKNOWN
        self._next = RequestDecoder._sender
        return self._sender()

    def _sender(self) -> Event | None:
        address = self._address()
        if address is None:
            return None
        self._next = RequestDecoder._recipient
        return Sender(address)

    def _recipient(self) -> Event | None:
        address = self._address()
        if address is None:
            return None
        if address:
            self._count += 1
            if self._count > self._recipients:
                raise TooManyRecipients(f"there are more than {self._recipients} recipients (#5.5.3)")
            return Recipient(address)
        if not self._count:
            raise Malformed("there is no recipient")
        self._next = RequestDecoder._message
        return self._message()

    def _message(self) -> Event | None:
        size = self._length()
        if size is None:
            return None
        if self._size and size > self._size:
            raise MessageTooBig(f"the message is larger than {self._size} bytes (#5.3.4)")
        self._left = size
        self._next = RequestDecoder._content
        return Message(size)

    def _content(self) -> Event | None:
        if self._left:
            data = bytes(self._buffer[: self._left])
            if not data:
                return None
            del self._buffer[: self._left]
            self._left -= len(data)
            return Chunk(data)
        if not self._buffer:
            return None
        if self._buffer[0] != _COMMA:
            raise Malformed("the message is not ended by a comma")
        self._finish()
        return End()

    def _nothing(self) -> Event | None:
        self._buffer.clear()
        return None

    def _finish(self) -> None:
        self._next = RequestDecoder._nothing
        self._buffer.clear()

    # --- netstrings -------------------------------------------------------------------

    def _address(self) -> bytes | None:
        address = self._short(LONGEST_ADDRESS, _TOO_LONG)
        if address is not None and (b"\0" in address or b"\n" in address):
            raise AddressRefused("an address has a NUL or a newline (#5.1.3)")
        return address

    def _short(self, longest: int, too_long: WireError) -> bytes | None:
        """A whole netstring, which is left in the buffer until it is there."""
        start = self._colon()
        if start < 0:
            return None
        size = int(self._buffer[:start])
        if size > longest:
            raise too_long
        end = start + 1 + size
        if len(self._buffer) <= end:
            return None
        if self._buffer[end] != _COMMA:
            raise Malformed("a netstring is not ended by a comma")
        content = bytes(self._buffer[start + 1 : end])
        del self._buffer[: end + 1]
        return content

    def _length(self) -> int | None:
        start = self._colon()
        if start < 0:
            return None
        size = int(self._buffer[:start])
        del self._buffer[: start + 1]
        return size

    def _colon(self) -> int:
        """Where the colon behind a length is, -1 when it has not come."""
        digits = bytes(self._buffer[: _DIGITS + 1])
        colon = digits.find(b":")
        number = digits if colon < 0 else digits[:colon]
        if (number and not number.isdigit()) or len(number) > _DIGITS or not (number or colon):
            raise Malformed("what came is no netstring")
        if len(number) > 1 and number.startswith(b"0"):
            raise Malformed("a netstring's length begins with 0")
        return colon


_COMMA = ord(",")
_UNKNOWN = Malformed("the request is of a version that is not known here")
_TOO_LONG = AddressRefused(f"an address is longer than {LONGEST_ADDRESS} bytes (#5.1.3)")


class AnswerDecoder:
    """The answer as it comes: `receive` gives it once it is whole, its letter first.

    Raises WireError."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = b""

    def receive(self, data: bytes) -> bytes | None:
        self._buffer += data
        length, colon, rest = self._buffer.partition(b":")
        if (length and not length.isdigit()) or len(length) > len(str(LONGEST_ANSWER)):
            raise Malformed("the answer is no netstring")
        if not colon:
            return None
        size = int(length or b"0")
        if not 1 <= size <= LONGEST_ANSWER:
            raise Malformed("the answer has a length that none can have")
        if len(rest) <= size:
            return None
        if rest[size] != _COMMA or rest[:1] not in (b"K", b"Z", b"D"):
            raise Malformed("the answer is none of K, Z and D")
        return rest[:size]


# --- what is sent -------------------------------------------------------------------------


def netstring(content: bytes) -> bytes:
    return b"%d:%b," % (len(content), content)


def request_head(sender: bytes, recipients: list[bytes], size: int) -> bytes:
    """All of a request before the message's octets, which a comma ends."""
    envelope = b"".join([netstring(one) for one in (VERSION, sender, *recipients, b"")])
    return b"%b%d:" % (envelope, size)


def answer(letter: bytes, text: bytes) -> bytes:
    """The whole answer; `text` is cut where it is too long."""
    return netstring((letter + text)[:LONGEST_ANSWER])
