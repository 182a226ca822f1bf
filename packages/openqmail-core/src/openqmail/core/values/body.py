"""The stored form of a message: header and body as one sequence of bytes.

Lines end with LF, as in qmail's `mess/` and in a Maildir; every line is complete.
A body can be read again and again and need never be whole in memory.
"""

from collections.abc import Iterator
from typing import Protocol

import msgspec

CHUNK = 128 * 1024


class Body(Protocol):
    """What a delivery reads.  `data` is the whole body where it is small, else None."""

    @property
    def size(self) -> int: ...

    @property
    def data(self) -> bytes | None: ...

    def chunks(self) -> Iterator[bytes]:
        """The body from its beginning, in pieces of at most `CHUNK` bytes; may block on a disk."""
        ...


class BytesBody(msgspec.Struct, frozen=True, gc=False):
    """A small body, whole in memory."""

    data: bytes | None

    @property
    def size(self) -> int:
        return len(self.data or b"")

    def chunks(self) -> Iterator[bytes]:
        yield self.data or b""
