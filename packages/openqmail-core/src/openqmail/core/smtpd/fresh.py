"""The header of a message on its way in by submission: completed as its beginning comes.

Nothing of the message goes on before its header is whole; one that is longer than `HEADER` bytes is not
taken, as a Bcc may stand in what has not come yet.
"""

from openqmail.core.message.origination import Stamp, completed, header_size

HEADER = 256 * 1024
"""Bytes."""


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
