"""The header of a message on its way in, as its beginning comes.

By submission it is completed: nothing of the message goes on before its header is whole; one that is longer
than `HEADER` bytes is not taken, as a Bcc may stand in what has not come yet.  Else it stays as it is, but
that nothing in it can be read as more of what we, or hooks, put on top of it.
"""

from openqmail.core.message.fields import HeaderLines
from openqmail.core.message.origination import Stamp, completed, header_size

HEADER = 256 * 1024
"""Bytes."""

READ = 512 * 1024
"""Bytes of a header that hooks read.  They look for it in the first MiB, where it may have CRLF and fields of
theirs besides."""


class PlainHeader:
    """A message whose first line begins with a blank gets an empty line before that, or it would go on where
    our own field ends.  Where hooks read it (`read`) any line that is no field gets one: what they do not
    take for header should be header to nobody; and one that is longer than `READ` is not taken, as what they
    want to see, or to have out of it, may stand in the rest.  Holds back no more than 2 KiB."""

    __slots__ = ("_done", "_lines", "_size", "too_large")

    def __init__(self, read: bool) -> None:
        self._lines = HeaderLines() if read else None
        self._size = 0
        self._done = False
        self.too_large = False

    def feed(self, data: bytes) -> bytes:
        """What can go on by now."""
        if self._done or not data:
            return data
        if self._lines is not None:
            return self._parted(self._lines, *self._lines.feed(data))
        self._done = True
        return b"\n" + data if data.startswith((b" ", b"\t")) else data

    def end(self) -> bytes:
        """No more will come; what is left."""
        if self._done or self._lines is None:
            return b""
        return self._parted(self._lines, *self._lines.finish())

    def _parted(self, lines: HeaderLines, header: bytes, body: bytes) -> bytes:
        """These, as they go on."""
        self._size += len(header)
        self.too_large = self._size > READ
        if self.too_large:
            return b""
        self._done = lines.in_body
        return header + b"\n" + body if self._done else header


class FreshHeader:
    def __init__(self, stamp: Stamp) -> None:
        self._stamp = stamp
        self._held = bytearray()
        self._seen = 0  # bytes whose lines are all of the header
        self._done = False
        self.too_large = False

    def feed(self, data: bytes) -> bytes:
        """What can go on by now."""
        if self._done or self.too_large:
            return data if self._done else b""
        self._held += data
        return self._look(whole=False)

    def end(self) -> bytes:
        """No more will come; what is left."""
        return b"" if self._done or self.too_large else self._look(whole=True)

    def _look(self, *, whole: bool) -> bytes:
        held = self._held
        size = header_size(held, whole, self._seen)
        if (len(held) if size is None else size) > HEADER:
            self.too_large = True
            self._held.clear()
            return b""
        if size is None:
            self._seen = held.rfind(b"\n") + 1
            return b""
        self._done = True
        self._held = bytearray()
        header, body = bytes(held[:size]), bytes(held[size:])
        if body and not body.startswith(b"\n"):
            body = b"\n" + body  # the header ended before what is no field
        return completed(header, self._stamp) + body
