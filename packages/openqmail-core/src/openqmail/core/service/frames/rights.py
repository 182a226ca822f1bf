"""The descriptors that come with bytes over a Unix socket (unix(7), SCM_RIGHTS).

They are kept until the frame that they belong to is whole.  No more are kept than one frame may
have; where none may come, none is even taken from the kernel.
"""

import os
import socket
from array import array
from collections import deque
from collections.abc import Iterable
from contextlib import suppress

from openqmail.core.service.frames.codec import DESCRIPTORS, FrameError

_SPACE = socket.CMSG_SPACE(4 * DESCRIPTORS * 4)
_FLAGS = getattr(socket, "MSG_CMSG_CLOEXEC", 0)

Ancillary = tuple[int, int, "array[int]"]


def with_rights(descriptors: Iterable[int]) -> list[Ancillary]:
    """What `sendmsg` is to send with the bytes; the descriptors stay the caller's."""
    given = array("i", descriptors)
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, given)] if given else []


def close_all(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        with suppress(OSError):
            os.close(descriptor)


class Rights:
    """`allowed`: whether any may come."""

    def __init__(self, connection: socket.socket, *, allowed: bool) -> None:
        self._socket = connection
        self._allowed = allowed
        self._kept: deque[int] = deque()

    def __len__(self) -> int:
        return len(self._kept)

    def read(self, most: int) -> bytes:
        """Bytes that have come, as `recv` does, whose descriptors are kept.  Raises OSError, FrameError."""
        if not self._allowed:
            return self._socket.recv(most)
        data, rights, flags, _ = self._socket.recvmsg(most, _SPACE, _FLAGS)
        for level, kind, content in rights:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                given = array("i")
                given.frombytes(content[: len(content) - len(content) % given.itemsize])
                self._kept.extend(given)
        if flags & socket.MSG_CTRUNC:
            raise FrameError("more descriptors than a frame may have")
        return data

    def take(self, count: int) -> list[int]:
        """Those of the next frame; they are the caller's then.  Raises FrameError."""
        if count > len(self._kept):
            raise FrameError("descriptors of a frame are missing")
        return [self._kept.popleft() for _ in range(count)]

    def check(self) -> None:
        """There is no whole frame just now.  Raises FrameError when there is more than the next may have."""
        if len(self._kept) > DESCRIPTORS:
            raise FrameError("descriptors that belong to no frame")

    def close(self) -> None:
        close_all(self._kept)
        self._kept.clear()
