"""A stored body that is read from the disk: a slice of a segment, or a file of its own."""

from collections.abc import Iterator

from openqmail.core.values import TemporaryFailure
from openqmail.core.values.body import CHUNK
from openqmail.core.world import Disk


class FileBody:
    """`size` bytes from `offset` of a file, which is opened anew by each reading."""

    __slots__ = ("_disk", "_offset", "_path", "_size")

    def __init__(self, disk: Disk, path: bytes, offset: int, size: int) -> None:
        self._disk, self._path, self._offset, self._size = disk, path, offset, size

    @property
    def size(self) -> int:
        return self._size

    @property
    def data(self) -> bytes | None:
        return None

    def chunks(self) -> Iterator[bytes]:
        """Raises TemporaryFailure when the file has become shorter than it was."""
        file = self._disk.open(self._path)
        try:
            done = 0
            while done < self._size:
                chunk = file.read_at(self._offset + done, min(CHUNK, self._size - done))
                if not chunk:
                    raise TemporaryFailure(f"{self._path!r} ends before the message does")
                done += len(chunk)
                yield chunk
        finally:
            file.close()
