"""A connection that carries frames, for a process without a loop: the supervisor, the spawner.

It is read when `poll` says so, and written to at once; a process that does not read what it is
told for `PATIENCE` seconds counts as gone.  Descriptors that were sent stay the caller's.
"""

import os
import select
import socket
from array import array
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec

from openqmail.core.service.frames.codec import DESCRIPTORS, PREFACE, Decoder, Encoder, FrameError

PATIENCE = 2.0
"""Seconds."""

_READ = 64 * 1024
_SPACE = socket.CMSG_SPACE(4 * DESCRIPTORS * 4)
_FLAGS = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class BlockingChannel:
    """`messages`: the union of what may come."""

    def __init__(self, connection: socket.socket, messages: Any, *, greeted: bool | None = None) -> None:
        """`greeted`: another program in this process has begun this connection, and whether it has read
        what the other side begins with; None: nobody has."""
        connection.setblocking(False)
        self.socket = connection
        self._encoder = Encoder()
        self._decoder = Decoder(messages, greeted=bool(greeted))
        self._descriptors: deque[int] = deque()
        if greeted is None:
            self._write(PREFACE, ())

    @property
    def greeted(self) -> bool:
        """Whether the preface of the other side was read."""
        return self._decoder.greeted

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, message: msgspec.Struct, descriptors: Sequence[int] = ()) -> bool:
        """False when the other side is gone, or does not read."""
        return self._write(self._encoder.frame(message, len(descriptors)), descriptors)

    def receive(self) -> "list[tuple[Any, list[int]]] | None":
        """What has come; None at the end.  Raises FrameError."""
        try:
            data, rights, _, _ = self.socket.recvmsg(_READ, _SPACE, _FLAGS)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError:
            return None
        for level, kind, content in rights:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                given = array("i")
                given.frombytes(content[: len(content) - len(content) % given.itemsize])
                self._descriptors.extend(given)
        if not data:
            return None
        self._decoder.feed(data)
        found: list[tuple[Any, list[int]]] = []
        while (one := self._decoder.next()) is not None:
            message, count = one
            if count > len(self._descriptors):
                raise FrameError("descriptors of a frame are missing")
            found.append((message, [self._descriptors.popleft() for _ in range(count)]))
        return found

    def close(self) -> None:
        self.socket.close()
        while self._descriptors:
            with suppress(OSError):
                os.close(self._descriptors.popleft())

    def _write(self, data: bytes, descriptors: Sequence[int]) -> bool:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))] if descriptors else []
        try:
            while data:
                try:
                    sent = self.socket.sendmsg([data], rights)
                except (BlockingIOError, InterruptedError):
                    if not select.select((), (self.socket,), (), PATIENCE)[1]:
                        return False
                    continue
                data, rights = data[sent:], []
        except OSError:
            return False
        return True
