"""A stored body that is read from the disk: a slice of a segment, or a file of its own."""

from collections.abc import Iterator
from hashlib import blake2b

from openqmail.core.values import QueueDamaged, TemporaryFailure
from openqmail.core.values.body import CHUNK
from openqmail.core.world import Disk


class FileBody:
    """`size` bytes from `offset` of a file, which is opened anew by each reading.

    With a `digest` (BLAKE2b) the last piece is given only when the whole has proved right, so
    nobody ever has a damaged message whole."""

    __slots__ = ("_digest", "_disk", "_offset", "_path", "_size")

    def __init__(self, disk: Disk, path: bytes, offset: int, size: int, digest: bytes = b"") -> None:
        self._disk, self._path, self._offset, self._size = disk, path, offset, size
        self._digest = digest

    @property
    def size(self) -> int:
        return self._size

    @property
    def data(self) -> bytes | None:
        return None

    def chunks(self) -> Iterator[bytes]:
        """Raises TemporaryFailure when the file has become shorter than it was, QueueDamaged when
        it is not what was written."""
        hashed = blake2b(digest_size=len(self._digest)) if self._digest else None
        file = self._disk.open(self._path)
        try:
            done = 0
            while done < self._size:
                chunk = file.read_at(self._offset + done, min(CHUNK, self._size - done))
                if not chunk:
                    raise TemporaryFailure(f"{self._path!r} ends before the message does")
                done += len(chunk)
                if hashed is not None:
                    hashed.update(chunk)
                    if done == self._size and hashed.digest() != self._digest:
                        raise QueueDamaged(f"{self._path!r} is damaged: it is not what was written")
                yield chunk
        finally:
            file.close()
