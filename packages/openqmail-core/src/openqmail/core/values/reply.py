"""An SMTP reply: code, enhanced status code (RFC 3463) and lines of text.

`encode()` gives the wire form (RFC 5321 section 4.2).  Text is cleaned there: what is
not printable ASCII becomes `?`, so nothing from a peer can end a line early.
"""

import msgspec

_PRINTABLE = bytes(code if 0x20 <= code < 0x7F else ord("?") for code in range(256))


class Reply(msgspec.Struct, frozen=True, gc=False):
    """`enhanced` is empty where RFC 2034 forbids one (greeting, EHLO, 3xx)."""

    code: int
    enhanced: bytes = b""
    lines: tuple[bytes, ...] = (b"",)

    @property
    def permanent(self) -> bool:
        """5xx."""
        return self.code >= 500

    def encode(self) -> bytes:
        """The reply as bytes on the wire, a CRLF after each line."""
        prefix = self.enhanced + b" " if self.enhanced else b""
        *head, last = [prefix + line.translate(_PRINTABLE) for line in self.lines]
        end = b"%d %s\r\n" % (self.code, last)
        if not head:
            return end
        return b"".join([b"%d-%s\r\n" % (self.code, line) for line in head]) + end
