"""A message as a hook reads it: again and again, in pieces, never whole in memory unless it is small.

Views of a body are laid over each other: without the first octets, with CRLF line ends, with
edits (edits.py).  A view of a small body is made at once, one of a large body as it is read.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator

from openqmail.core.values import Body, BytesBody

HEADER = 1024 * 1024
"""Bytes in which a header is looked for."""


class MessageBody:
    """What a hook is given.  `size` in bytes; `data` all of it where it is in memory, else None."""

    __slots__ = ("_end", "base")

    def __init__(self, base: Body, end: bytes = b"\n") -> None:
        self.base = base
        self._end = end

    @property
    def size(self) -> int:
        return self.base.size

    @property
    def data(self) -> bytes | None:
        return self.base.data

    def header(self) -> bytes:
        """All lines before the first empty one, as far as they stand within the first MiB.  May read the
        disk; raises OSError, OpenqmailError."""
        return head(self.base, self._end)[0]

    def chunks(self) -> Iterator[bytes]:
        """The message from its beginning, in pieces.  May read the disk; raises OSError, OpenqmailError."""
        return self.base.chunks()


def head(body: Body, end: bytes = b"\n") -> tuple[bytes, bytes]:
    """The header of a body, and what has been read behind it, with the empty line."""
    found = b""
    for chunk in [body.data] if body.data is not None else body.chunks():
        found += chunk
        if found.startswith(end):
            return b"", found
        at = found.find(end + end)
        if at >= 0:
            return found[: at + len(end)], found[at + len(end) :]
        if len(found) > HEADER:
            break
    return found, b""


def without(body: Body, skip: int) -> Body:
    """A body without its first `skip` bytes."""
    if body.data is not None:
        return BytesBody(body.data[skip:])
    return Rest(body, skip) if skip else body


def wire(body: Body) -> Body:
    """A stored body as SMTP carries it, without the dots that it adds: lines end with CRLF, the last too."""
    if body.data is not None:
        data = body.data if body.data.endswith(b"\n") or not body.data else body.data + b"\n"
        return BytesBody(data.replace(b"\n", b"\r\n"))
    return _Wire(body)


class View(ABC):
    """Of a large body."""

    data = None

    def __init__(self, base: Body) -> None:
        self.base = base
        self._size: int | None = None

    @property
    def size(self) -> int:
        """Reads the whole, the first time."""
        if self._size is None:
            self._size = sum(map(len, self.chunks()))
        return self._size

    @abstractmethod
    def chunks(self) -> Iterator[bytes]: ...


class Rest(View):
    """Without its first `skip` bytes."""

    def __init__(self, base: Body, skip: int) -> None:
        super().__init__(base)
        self.skip = skip
        self._size = base.size - skip

    def chunks(self) -> Iterator[bytes]:
        skip = self.skip
        for chunk in self.base.chunks():
            if skip < len(chunk):
                yield chunk[skip:]
            skip = max(0, skip - len(chunk))


class _Wire(View):
    def chunks(self) -> Iterator[bytes]:
        last = b"\n"
        for chunk in self.base.chunks():
            last = chunk[-1:] or last
            yield chunk.replace(b"\n", b"\r\n")
        if last != b"\n":
            yield b"\r\n"
