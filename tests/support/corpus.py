"""The corpus in tests/corpus, as it is sent and as it must be found; and a look at what was delivered."""

import base64
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).resolve().parents[1] / "corpus"
ATTACHMENT = 5 * 1024 * 1024

_TRACE = re.compile(rb"(?:(?:Return-Path|Delivered-To|Received):[^\n]*\n(?:[ \t][^\n]*\n)*)*\Z")


class Mail(NamedTuple):
    """`text` has LF line endings."""

    name: str
    text: bytes

    @property
    def eight_bit(self) -> bool:
        return not self.text.isascii()

    @property
    def smtputf8(self) -> bool:
        """Whether the header itself holds more than ASCII (RFC 6532)."""
        return not self.text.partition(b"\n\n")[0].isascii()

    def marked(self, name: bytes) -> "Mail":
        """With a header field in front by which it is known again."""
        return Mail(self.name, b"X-Mark: " + name + b"\n" + self.text)

    def wire(self) -> bytes:
        """As a client hands it over: CRLF."""
        return self.text.replace(b"\n", b"\r\n")

    def found(self) -> bytes:
        """As it must be found: SMTP carries lines, so the last one has an end, too."""
        return self.text if self.text.endswith(b"\n") else self.text + b"\n"


def attachment(size: int = ATTACHMENT) -> bytes:
    """A mail with an attachment of `size` bytes, the same each time."""
    header = (
        b"From: Alice <alice@a.example>\nTo: you@example\nSubject: an attachment\n"
        b"Date: Tue, 24 Nov 2026 12:00:11 +0000\nMIME-Version: 1.0\n"
        b"Content-Type: application/octet-stream\nContent-Transfer-Encoding: base64\n\n"
    )
    return header + base64.encodebytes(hashlib.shake_128(b"openqmail").digest(size))


def corpus() -> Iterator[Mail]:
    """Every mail, by name, the large one last."""
    for file in sorted(FOLDER.glob("*.eml")):
        yield Mail(file.stem, file.read_bytes())
    yield Mail("attachment", attachment())


def mark_of(delivered: bytes) -> bytes | None:
    """The mark of a delivered mail, or None for mail without one (a bounce)."""
    found = re.search(rb"^X-Mark: ([^\n]*)\n", delivered, re.MULTILINE)
    return found[1] if found else None


def same(delivered: bytes, mail: Mail) -> bool:
    """Whether it is that mail byte for byte, with nothing but trace fields in front."""
    whole = mail.found()
    return delivered.endswith(whole) and bool(_TRACE.match(delivered[: len(delivered) - len(whole)]))
