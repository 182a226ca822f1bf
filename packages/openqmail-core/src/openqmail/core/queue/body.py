"""A stored body that is read from the disk: a slice of a segment, or a file of its own."""

from collections.abc import Callable, Iterator
from hashlib import blake2b
from os import fsdecode

from openqmail.core.values import QueueDamaged, TemporaryFailure
from openqmail.core.values.body import CHUNK
from openqmail.core.world import Disk


class FileBody:
    """`size` bytes from `offset` of a file, which is opened anew by each reading.

    With a `digest` (BLAKE2b) the last piece is given only when the whole has proved right, so
    nobody ever has a damaged message whole."""

    __slots__ = ("_disk", "digest", "offset", "path", "size")

    def __init__(self, disk: Disk, path: bytes, offset: int, size: int, digest: bytes = b"") -> None:
        self._disk = disk
        self.path = path
        self.offset = offset
        self.size = size
        self.digest = digest

    @property
    def data(self) -> bytes | None:
        return None

    def chunks(self) -> Iterator[bytes]:
        """Raises OSError, and what `read_whole` raises."""
        file = self._disk.open(self.path)
        try:
            yield from read_whole(file.read_at, self.offset, self.size, self.digest, fsdecode(self.path))
        finally:
            file.close()


def read_whole(
    read_at: Callable[[int, int], bytes], offset: int, size: int, digest: bytes, name: str
) -> Iterator[bytes]:
    """`size` bytes from `offset` in pieces; with a `digest`, the last one only when the whole has it.

    Raises TemporaryFailure when the file, `name`, has become shorter than it was, QueueDamaged
    when it is not what was written."""
    hashed = blake2b(digest_size=len(digest)) if digest else None
    done = 0
    while done < size:
        chunk = read_at(offset + done, min(CHUNK, size - done))
        if not chunk:
            raise TemporaryFailure(f"{name} ends before the message does")
        done += len(chunk)
        if hashed is not None:
            hashed.update(chunk)
            if done == size and hashed.digest() != digest:
                raise QueueDamaged(f"{name} is damaged: it is not what was written")
        yield chunk
