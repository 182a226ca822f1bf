"""A connection that carries frames, for a process without a loop: the supervisor, the spawner.

It is read when `poll` says so, and written to at once; a process that does not read what it is
told for `PATIENCE` seconds counts as gone: it is told no more, and nothing more of it comes than
has come already.  Where others would have to wait meanwhile, it is gone as soon as its socket is
full.  Descriptors that were sent stay the caller's.
"""

import select
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec

from openqmail.core.service.frames.codec import LARGEST, PREFACE, Decoder, Encoder, FrameError
from openqmail.core.service.frames.rights import Rights, close_all, with_rights

PATIENCE = 2.0
"""Seconds."""

_READ = 64 * 1024


class BlockingChannel:
    """`messages`: the union of what may come; `descriptors`: whether any may, else they are not even
    taken from the kernel."""

    def __init__(
        self,
        connection: socket.socket,
        messages: Any,
        *,
        descriptors: bool = True,
        greeted: bool | None = None,
        largest: int = LARGEST,
        patient: bool = True,
    ) -> None:
        """`greeted`: another program in this process has begun this connection, and whether it has read
        what the other side begins with; None: nobody has.  `largest`: bytes of a frame that may come.
        `patient`: wait until the other side reads."""
        connection.setblocking(False)
        self.socket = connection
        self._encoder = Encoder()
        self._decoder = Decoder(messages, greeted=bool(greeted), largest=largest)
        self._rights = Rights(connection, allowed=descriptors)
        self._patient = patient
        self._gone = False
        self.stalled = False
        """The other side did not read what it was told, and counts as gone."""
        if greeted is None:
            self._write(PREFACE, ())

    @property
    def greeted(self) -> bool:
        """Whether the preface of the other side was read."""
        return self._decoder.greeted

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, message: msgspec.Struct, descriptors: Sequence[int] = ()) -> bool:
        """False when the other side is gone, or does not read; from then on always."""
        return self._write(self._encoder.frame(message, len(descriptors)), descriptors)

    def receive(self) -> "list[tuple[Any, list[int]]] | None":
        """What has come; None at the end.  Raises FrameError; what came before is lost then."""
        try:
            data = self._rights.read(_READ)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError:
            return None
        if not data:
            return None
        self._decoder.feed(data)
        found: list[tuple[Any, list[int]]] = []
        try:
            while (one := self._decoder.next()) is not None:
                message, count = one
                found.append((message, self._rights.take(count)))
            self._rights.check()
        except FrameError:
            for _, descriptors in found:
                close_all(descriptors)
            raise
        return found

    def close(self) -> None:
        self.socket.close()
        self._rights.close()

    def _write(self, data: bytes, descriptors: Sequence[int]) -> bool:
        if self._gone:
            return False
        rights = with_rights(descriptors)
        until = time.monotonic() + (PATIENCE if self._patient else 0.0)
        try:
            while data:
                try:
                    sent = self.socket.sendmsg([data], rights)
                except (BlockingIOError, InterruptedError):
                    left = max(0.0, until - time.monotonic())
                    if not select.select((), (self.socket,), (), left)[1]:
                        self.stalled = True
                        return self._end()
                    continue
                data, rights = data[sent:], []
        except OSError:
            return self._end()
        return True

    def _end(self) -> bool:
        self._gone = True
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        return False
