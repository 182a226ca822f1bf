"""How the body of a message crosses to who delivers it.

What is whole in memory travels in the frame.  A large body has a file of its own, whose
descriptor is sent, opened anew for each delivery and for reading only.  A file that holds anything
else, such as a segment of the journal, never leaves as a descriptor: it holds everybody's
mail, so the body is read and travels in the frame.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from threading import Lock

from openqmail.core.queue.body import FileBody, read_whole
from openqmail.core.service.frames.codec import LARGEST, FrameError
from openqmail.core.service.frames.rights import close_all
from openqmail.core.values import Body, BytesBody, TemporaryFailure
from openqmail.core.world.posix_disk import PosixFile

LARGEST_INLINE = LARGEST // 2
"""Bytes of a body that is read into a frame, which has an envelope to carry too."""

Packed = tuple[int, bytes, "bytes | None", tuple[int, ...]]
"""Size, digest (BLAKE2b, may be empty), the whole of it or None, and then one descriptor."""


def pack(body: Body) -> Packed:
    """A body as it goes into a frame; the descriptor is the caller's.  Reads the disk for what is
    neither in memory nor in a file of its own.

    Raises OSError, TemporaryFailure, QueueDamaged."""
    data = body.data
    if data is not None:
        return len(data), b"", data, ()
    if isinstance(body, DescriptorBody):
        return body.size, body.digest, None, (body.duplicate(),)
    if isinstance(body, FileBody):
        descriptor = _open_own(body)
        if descriptor is not None:
            return body.size, body.digest, None, (descriptor,)
    if body.size > LARGEST_INLINE:
        raise TemporaryFailure(f"a body of {body.size} bytes has no file of its own")
    data = b"".join(body.chunks())
    if len(data) != body.size:
        raise TemporaryFailure(f"the stored message has {len(data)} bytes, not {body.size}")
    return len(data), b"", data, ()


def unpack(size: int, digest: bytes, data: "bytes | None", descriptors: Sequence[int]) -> Body:
    """The body of a frame; a descriptor is then its own, to be closed with `release`.

    Raises FrameError when the frame brings not exactly one of the two forms; the descriptors are
    then closed."""
    if data is not None and not descriptors:
        return BytesBody(data)
    if data is None and len(descriptors) == 1 and size >= 0:
        return DescriptorBody(descriptors[0], size, digest)
    close_all(descriptors)
    raise FrameError("a body has to come either in its frame or as one descriptor")


def release(body: Body) -> None:
    """It is not needed any more."""
    if isinstance(body, DescriptorBody):
        body.close()


class DescriptorBody:
    """A body in a file that another process has opened.  As `FileBody`, it gives the last piece only
    when the whole has proved right."""

    __slots__ = ("_descriptor", "_digest", "_lock", "size")

    def __init__(self, descriptor: int, size: int, digest: bytes) -> None:
        self._descriptor = descriptor
        self._digest = digest
        self._lock = Lock()
        self.size = size

    @property
    def data(self) -> bytes | None:
        return None

    def chunks(self) -> Iterator[bytes]:
        """Raises OSError, TemporaryFailure, QueueDamaged."""
        file = self._open()
        try:
            yield from read_whole(file.read_at, 0, self.size, self._digest, "the file of a message")
        finally:
            file.close()

    @property
    def digest(self) -> bytes:
        return self._digest

    def duplicate(self) -> int:
        """A descriptor of the same file, which is the caller's.  Raises TemporaryFailure."""
        with self._lock:
            if self._descriptor < 0:
                raise TemporaryFailure("the file of a message is closed already")
            return os.dup(self._descriptor)

    def close(self) -> None:
        """Whoever reads it in another thread just now may go on."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def _open(self) -> PosixFile:
        return PosixFile(self.duplicate())


def _open_own(body: FileBody) -> int | None:
    """A descriptor of its file; None when there is more, or less, in the file than the body."""
    descriptor = os.open(body.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if body.offset == 0 and stat.S_ISREG(found.st_mode) and found.st_size == body.size:
            descriptor, given = -1, descriptor
            return given
        return None
    finally:
        if descriptor >= 0:
            os.close(descriptor)
