"""Frames: typed messages as bytes on a Unix stream socket, and back.  Pure.

A connection begins with a preface of four bytes, `OQ` and the version; what speaks another
version is refused before anything of it is understood.  A frame is the length of its payload
(four bytes, network order), how many descriptors come with it (one byte), and the payload: a
tagged msgspec struct in MessagePack.  A length is looked at before anything is kept for it.
"""

from collections.abc import Callable
from functools import cache
from struct import Struct
from typing import Any, Final

import msgspec

VERSION: Final = 3
PREFACE: Final = b"OQ" + VERSION.to_bytes(2, "big")

LARGEST: Final = 16 << 20
"""Bytes of a payload: a small body and an envelope of many thousand recipients."""

DESCRIPTORS: Final = 16
"""The most that come with one frame."""

_HEAD = Struct("!IB")


class FrameError(Exception):
    """The other side does not keep to the form; nothing more of it can be understood."""


_encode = msgspec.msgpack.Encoder().encode


@cache
def _decoding(messages: Any) -> Callable[[memoryview], Any]:
    return msgspec.msgpack.Decoder(messages).decode


def understand(*messages: Any) -> None:
    """Find out, before any process needs it, how these are read: then it is found once and lies in
    memory that all processes share."""
    for one in messages:
        _decoding(one)


class Encoder:
    """Makes frames of messages."""

    def __init__(self) -> None:
        self._encode = _encode

    def frame(self, message: msgspec.Struct, descriptors: int = 0) -> bytes:
        """Raises FrameError for what is too large to be sent."""
        payload = self._encode(message)
        if len(payload) > LARGEST:
            raise FrameError(f"a message of {len(payload)} bytes is larger than a frame may be, {LARGEST}")
        return _HEAD.pack(len(payload), descriptors) + payload


class Decoder:
    """Makes messages of bytes as they come; `messages` is the union of what may come."""

    def __init__(self, messages: Any, *, greeted: bool = False, largest: int = LARGEST) -> None:
        """`greeted`: the preface was read before; `largest`: bytes of a payload."""
        self._decode = _decoding(messages)
        self._largest = largest
        self._buffer = bytearray()
        self._at = 0
        self.greeted = greeted
        """The preface was read."""

    def feed(self, data: bytes) -> None:
        """What has been received."""
        if self._at:
            del self._buffer[: self._at]
            self._at = 0
        self._buffer += data

    def next(self) -> "tuple[Any, int] | None":
        """The next message and how many descriptors belong to it; None when there is no whole one.

        Raises FrameError."""
        buffer, at = self._buffer, self._at
        if not self.greeted:
            if len(buffer) < len(PREFACE):
                if not PREFACE.startswith(bytes(buffer)):
                    raise FrameError("does not begin as frames of openqmail do")
                return None
            self._greet(bytes(buffer[: len(PREFACE)]))
            at = self._at = len(PREFACE)
        begin = at + _HEAD.size
        if len(buffer) < begin:
            return None
        length, descriptors = _HEAD.unpack_from(buffer, at)
        if length > self._largest or descriptors > DESCRIPTORS:
            raise FrameError(f"a frame of {length} bytes with {descriptors} descriptors is too large")
        end = begin + length
        if len(buffer) < end:
            return None
        try:
            with memoryview(buffer) as view:
                message = self._decode(view[begin:end])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise FrameError(f"a frame that is not understood: {error}") from None
        self._at = end
        return message, descriptors

    @property
    def pending(self) -> int:
        """Bytes of a frame that is not whole yet."""
        return len(self._buffer) - self._at

    def _greet(self, preface: bytes) -> None:
        if preface[:2] != PREFACE[:2]:
            raise FrameError("does not begin as frames of openqmail do")
        if preface != PREFACE:
            version = int.from_bytes(preface[2:], "big")
            raise FrameError(f"speaks version {version} of the frames, this is version {VERSION}")
        self.greeted = True
