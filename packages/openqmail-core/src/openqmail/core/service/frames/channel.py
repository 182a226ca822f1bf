"""A connection that carries frames, for a process with a loop.

What a turn of the loop has to say is one write.  `paused` stops reading, so that what the other
side sends waits in its own memory; `full` says that the other side does not read.  Descriptors
go with the frame that they belong to, and are ours to close once they were handed to
`received`.  Whatever breaks the form ends the connection: `lost` is told why, once, after all
that the other side had said.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from openqmail.core.service.frames.codec import LARGEST, PREFACE, Decoder, Encoder, FrameError
from openqmail.core.service.frames.rights import Rights, close_all, with_rights

_READ = 64 * 1024
_AT_ONCE = 128 * 1024
"""Bytes that are put together for one write."""
_MOST_READS = 8
"""Reads in one turn, after which others have theirs."""
FULL = 1 << 20
"""Bytes that are not yet sent, above which the other side counts as slow."""

Received = Callable[[Any, "list[int]"], None]
Lost = Callable[["Exception | None"], None]


class Channel:
    """`messages`: the union of what may come.  `received(message, descriptors)` is called in order, and
    may raise FrameError for what makes no sense;
    `lost(error)` once at the end, None when the other side has closed at the end of a frame.
    `largest`: bytes of a frame that may come; `descriptors`: whether any may, else they are not even
    taken from the kernel."""

    def __init__(
        self,
        connection: socket.socket,
        messages: Any,
        received: Received,
        lost: Lost,
        *,
        largest: int = LARGEST,
        descriptors: bool = True,
    ) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._loop = asyncio.get_running_loop()
        self._received = received
        self._lost = lost
        self._encoder = Encoder()
        self._decoder = Decoder(messages, largest=largest)
        self._rights = Rights(connection, allowed=descriptors)
        self._sending: deque[tuple[bytes, Sequence[int]]] = deque([(PREFACE, ())])
        self._waiting = 0
        self._scheduled = False
        self._blocked = False
        self._paused = False
        self.closed = False
        self._closing = False
        self._broken: OSError | None = None
        self._loop.add_reader(connection.fileno(), self._readable)
        self._soon()

    # --- saying -----------------------------------------------------------------------

    def send(self, message: msgspec.Struct, descriptors: Sequence[int] = ()) -> None:
        """Say it at the end of this turn.  The descriptors are closed, whatever becomes of it.

        What is said on a closed channel is lost, as `lost` has told or will tell.  Raises FrameError
        for what is too large."""
        if self.closed or self._closing or self._broken is not None:
            close_all(descriptors)
            return
        try:
            frame = self._encoder.frame(message, len(descriptors))
        except FrameError:
            close_all(descriptors)
            raise
        self._waiting += len(frame)
        self._sending.append((frame, descriptors))
        self._soon()

    def say_now(self, frames: int) -> None:
        """Do not wait for the end of the turn when so many frames wait: who gets them has work to do
        meanwhile, and this turn is a long one."""
        if len(self._sending) >= frames and not (self._blocked or self.closed):
            self._flush()

    @property
    def full(self) -> bool:
        """Whether the other side reads too slowly."""
        return self._waiting > FULL

    def close(self) -> None:
        """Say what is to be said still, and end; `lost` is not told."""
        if self.closed:
            return
        self._closing = True
        self._flush()

    def abort(self) -> None:
        """End now; `lost` is not told."""
        if not self.closed:
            self._end()

    def _soon(self) -> None:
        if not self._scheduled and not self._blocked:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _next(self) -> tuple[bytes, Sequence[int]]:
        """What is written next: what comes together, but large bodies are not copied into one."""
        sending = self._sending
        data, descriptors = sending.popleft()
        size = len(data)
        if descriptors or not sending or size + len(sending[0][0]) > _AT_ONCE:
            return data, descriptors
        parts = [data]
        while sending and not sending[0][1] and size + len(sending[0][0]) <= _AT_ONCE:
            parts.append(sending.popleft()[0])
            size += len(parts[-1])
        return b"".join(parts), ()

    def _flush(self) -> None:
        self._scheduled = False
        if self.closed or self._blocked:
            return
        sending = self._sending
        while sending:
            data, descriptors = self._next()
            try:
                sent = self._write(data, descriptors)
            except (BlockingIOError, InterruptedError):
                sending.appendleft((data, descriptors))
                self._block()
                return
            except OSError as error:
                close_all(descriptors)
                self._break(error)
                return
            close_all(descriptors)
            self._waiting -= sent
            if sent < len(data):
                sending.appendleft((data[sent:], ()))
                self._block()
                return
        self._waiting = 0
        if self._closing:
            self._end()

    def _write(self, data: bytes, descriptors: Sequence[int]) -> int:
        if not descriptors:
            return self._socket.send(data)
        return self._socket.sendmsg([data], with_rights(descriptors))

    def _break(self, error: OSError) -> None:
        """The other side hears no more; what it had said before may lie here unread."""
        self._broken = error
        for _, descriptors in self._sending:
            close_all(descriptors)
        self._sending.clear()
        self._waiting = 0
        if self._closing:
            self._end()

    def _block(self) -> None:
        self._blocked = True
        self._loop.add_writer(self._socket.fileno(), self._writable)

    def _writable(self) -> None:
        self._blocked = False
        self._loop.remove_writer(self._socket.fileno())
        self._flush()

    # --- hearing ----------------------------------------------------------------------

    def pause(self) -> None:
        """Read no more until `resume`."""
        if not self._paused and not self.closed:
            self._paused = True
            self._loop.remove_reader(self._socket.fileno())

    def resume(self) -> None:
        if self._paused and not self.closed:
            self._paused = False
            self._loop.add_reader(self._socket.fileno(), self._readable)

    def _readable(self) -> None:
        """To the end of what there is: of a connection that the other side has broken off with something
        unread, uvloop tells only once."""
        for _ in range(_MOST_READS):
            try:
                data = self._rights.read(_READ)
            except (BlockingIOError, InterruptedError):
                return
            except (OSError, FrameError) as error:
                self._fail(error)
                return
            if not data:
                torn = self._decoder.pending or self._rights
                self._fail(FrameError("ended in the midst of a frame") if torn else self._broken)
                return
            if self._closing:  # nobody listens any more
                continue
            self._decoder.feed(data)
            self._hand_on()
            if self.closed or self._paused:
                return
        self._loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        if not (self.closed or self._paused):
            self._readable()

    def _hand_on(self) -> None:
        decoder = self._decoder
        while not (self.closed or self._closing):
            try:
                found = decoder.next()
                if found is None:
                    self._rights.check()
                    return
                message, count = found
                self._received(message, self._rights.take(count))
            except FrameError as error:
                self._fail(error)
                return
            except Exception as fault:  # ours: the loop tells of it, the other side is no more understood
                self._fail(fault)
                raise

    # --- the end ----------------------------------------------------------------------

    def _fail(self, error: Exception | None) -> None:
        if self.closed:
            return
        told = not self._closing
        self._end()
        if told:
            self._lost(error)

    def _end(self) -> None:
        if self.closed:
            return
        self.closed = True
        number = self._socket.fileno()
        self._loop.remove_reader(number)
        self._loop.remove_writer(number)
        self._socket.close()
        for _, descriptors in self._sending:
            close_all(descriptors)
        self._sending.clear()
        self._rights.close()
