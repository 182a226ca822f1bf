"""The header of a message on its way in, as its beginning comes.

By submission it is completed: nothing of the message goes on before its header is whole; one that is longer
than `HEADER` bytes is not taken, as a Bcc may stand in what has not come yet.  Else it stays as it is, but
that nothing in it can be read as more of what we, or hooks, put on top of it.
"""

from openqmail.core.message.fields import lines_of_fields
from openqmail.core.message.origination import Stamp, completed, header_size

HEADER = 256 * 1024
"""Bytes."""


class PlainHeader:
    """A message whose first line begins with a blank gets an empty line before that, or it would go on where
    our own field ends.  Where hooks read it (`read`) any line that is no field gets one: what they do not
    take for header should be header to nobody.  Holds back no more than a line, and lines are short."""

    __slots__ = ("_begun", "_done", "_held", "_read")

    too_large = False

    def __init__(self, read: bool) -> None:
        self._read = read
        self._held = b""
        self._begun = self._done = False

    def feed(self, data: bytes) -> bytes:
        """What can go on by now."""
        if self._done or not data:
            return data
        if self._read:
            data = self._held + data
            return self._look(data, data.rfind(b"\n") + 1)
        self._done = True
        return b"\n" + data if data.startswith((b" ", b"\t")) else data

    def end(self) -> bytes:
        """No more will come; what is left."""
        return b"" if self._done else self._look(self._held, len(self._held))

    def _look(self, data: bytes, size: int) -> bytes:
        """What of it can go on; `size` of it are whole lines."""
        end = lines_of_fields(data, size, self._begun)
        self._begun = self._begun or end > 0
        if end == size:
            self._held = data[size:]
            return data[:size]
        self._done = True
        self._held = b""
        return data if data.startswith(b"\n", end) else data[:end] + b"\n" + data[end:]


class FreshHeader:
    def __init__(self, stamp: Stamp) -> None:
        self._stamp = stamp
        self._held = b""
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
            self._held = b""
            return b""
        if size is None:
            self._seen = held.rfind(b"\n") + 1
            return b""
        self._done = True
        self._held = b""
        header, body = held[:size], held[size:]
        if body and not body.startswith(b"\n"):
            body = b"\n" + body  # the header ended before what is no field
        return completed(header, self._stamp) + body
