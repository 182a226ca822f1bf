"""A message as a program hands it over on a descriptor, kept until it can be sent, and again.

Small ones stay in memory, from `SMALL` on they go into a file without a name.  A message whose
lines all end with CRLF is taken as text and has LF ends here; one that mixes them keeps its
octets.  A last line without its end gets one.  Light to import.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

SMALL = 1024 * 1024
"""Octets that are held in memory, about; a header has to fit in there."""
CHUNK = 64 * 1024


class Spool:
    """A whole message in its stored form: `size` octets; `start` is as much of it as is in memory.

    Raises OSError where the file cannot be written."""

    __slots__ = ("_file", "_is_text", "_start", "size")

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._file: BinaryIO | None = None
        held: list[bytes] = []
        total = returns = newlines = ends = 0
        last = b""
        for piece in pieces:
            total += len(piece)
            returns += piece.count(b"\r")
            newlines += piece.count(b"\n")
            ends += piece.count(b"\r\n") + (last == b"\r" and piece.startswith(b"\n"))
            last = piece[-1:] or last
            if self._file is not None:
                self._file.write(piece)
            else:
                held.append(piece)
                if total > SMALL:
                    self._file = _unnamed()
                    self._file.writelines(held)
        self._is_text = 0 < ends == returns == newlines
        if total and last != b"\n":
            total += 1
            if self._file is None:
                held.append(b"\n")
            else:
                self._file.write(b"\n")
        self._start = self._stored(b"".join(held))
        self.size = total - ends if self._is_text else total

    @property
    def start(self) -> bytes:
        return self._start

    @property
    def whole(self) -> bool:
        """Whether `start` is all of it."""
        return self.size == len(self._start)

    def chunks(self, skip: int) -> Iterator[bytes]:
        """All from the octet `skip` of the start on; may be asked for again."""
        if self._file is None:
            yield self._start[skip:]
            return
        self._file.seek(0)
        while chunk := self._file.read(CHUNK):
            stored = self._stored(chunk)
            if skip < len(stored):
                yield stored[skip:]
            skip = max(skip - len(stored), 0)

    def _stored(self, piece: bytes) -> bytes:
        return piece.replace(b"\r", b"") if self._is_text else piece


def pieces(stream: BinaryIO, dot: bool) -> Iterator[bytes]:
    """What can be read of a stream; with `dot` until a line that is nothing but a dot."""
    if not dot:
        while piece := stream.read(CHUNK):
            yield piece
        return
    in_line = False
    while line := stream.readline(CHUNK):
        if not in_line and line in (b".\n", b".\r\n", b"."):
            return
        in_line = not line.endswith(b"\n")
        yield line


def _unnamed() -> BinaryIO:
    from tempfile import TemporaryFile  # noqa: PLC0415  # it loads a lot, and few messages are large

    return TemporaryFile()
