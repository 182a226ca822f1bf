"""Reads the little of DER (X.690) that an X.509 certificate (RFC 5280) is made of.

Strict where it matters: lengths are definite and stay within what they are in.  Nothing is
believed beyond that: the chain is OpenSSL's business.
"""

from collections.abc import Iterator
from typing import NamedTuple

from openqmail.core.values import OpenqmailError

SEQUENCE, SET, OID, OCTETS, BOOLEAN, INTEGER = 0x30, 0x31, 0x06, 0x04, 0x01, 0x02
UTC_TIME, GENERALIZED_TIME = 0x17, 0x18
STRINGS = {0x0C: "utf-8", 0x13: "ascii", 0x14: "latin-1", 0x16: "ascii", 0x1E: "utf-16-be"}
"""Types of text: UTF8String, PrintableString, TeletexString, IA5String, BMPString."""


class TlsError(OpenqmailError):
    """A certificate or a key that is of no use, or cannot be made; the text says what to do."""


class Element(NamedTuple):
    """`data[start:end]` is the content, `data[begin:end]` all of it."""

    tag: int
    begin: int
    start: int
    end: int
    data: bytes

    @property
    def content(self) -> bytes:
        return self.data[self.start : self.end]

    @property
    def whole(self) -> bytes:
        return self.data[self.begin : self.end]

    def children(self) -> Iterator["Element"]:
        at = self.start
        while at < self.end:
            one = element(self.data, at, self.end)
            yield one
            at = one.end

    def text(self) -> str:
        return self.content.decode(STRINGS.get(self.tag, "latin-1"), "replace")


def element(data: bytes, at: int, end: int) -> Element:
    """The element that begins at `at`, before `end`.  Raises TlsError."""
    if at + 2 > end:
        raise _broken()
    tag, length, start = data[at], data[at + 1], at + 2
    if length >= 0x80:
        size = length & 0x7F
        if not 1 <= size <= 4 or start + size > end:
            raise _broken()
        length = int.from_bytes(data[start : start + size], "big")
        start += size
    if start + length > end or tag & 0x1F == 0x1F:
        raise _broken()
    return Element(tag, at, start, start + length, data)


def dotted(content: bytes) -> str:
    """An object identifier as it is written: `2.5.4.3`."""
    numbers, value = list[int](), 0
    for byte in content:
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            numbers.append(value)
            value = 0
    if not numbers:
        raise _broken()
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, (first, numbers[0] - 40 * first, *numbers[1:])))


def _broken() -> TlsError:
    return TlsError("the certificate is damaged: its DER breaks off; fetch it again")
