"""An SMTP reply: code, enhanced status code (RFC 3463) and lines of text.

`encode()` gives the wire form (RFC 5321 section 4.2).  Text is cleaned there: what is
not printable ASCII becomes `?`, so nothing from a peer can end a line early.
"""

import re

import msgspec

_UNSAFE = re.compile(rb"[^\x20-\x7e]")


class Reply(msgspec.Struct, frozen=True, gc=False):
    """`enhanced` is empty where RFC 2034 forbids one (greeting, EHLO, 3xx)."""

    code: int
    enhanced: bytes = b""
    lines: tuple[bytes, ...] = (b"",)

    @property
    def positive(self) -> bool:
        """2xx or 3xx."""
        return 200 <= self.code < 400

    @property
    def permanent(self) -> bool:
        """5xx."""
        return self.code >= 500

    def encode(self) -> bytes:
        """The reply as bytes on the wire, a CRLF after each line."""
        prefix = self.enhanced + b" " if self.enhanced else b""
        lines = [prefix + _UNSAFE.sub(b"?", line) for line in self.lines]
        head = [b"%d-%s\r\n" % (self.code, line) for line in lines[:-1]]
        return b"".join(head) + b"%d %s\r\n" % (self.code, lines[-1])
