"""Two ends of a connection that exists in memory: asyncio transports without sockets.

What one end writes comes to the other in a later turn of the loop, in order, whatever the loop's
time is; nothing is ever full.  An end that closes lets what it has written arrive first.
"""

import asyncio
from typing import Any

Address = tuple[str, int]


def connected(
    loop: asyncio.AbstractEventLoop,
    near: asyncio.BaseProtocol,
    far: asyncio.BaseProtocol,
    near_address: Address,
    far_address: Address,
) -> "tuple[Wire, Wire]":
    """The transports of the two protocols, which are told; the far one first, as it accepts."""
    one, other = Wire(loop, near, near_address, far_address), Wire(loop, far, far_address, near_address)
    one.peer, other.peer = other, one
    far.connection_made(other)
    near.connection_made(one)
    return one, other


class Wire(asyncio.Transport):
    """One end."""

    peer: "Wire"

    def __init__(
        self, loop: asyncio.AbstractEventLoop, protocol: asyncio.BaseProtocol, own: Address, other: Address
    ) -> None:
        super().__init__({"sockname": own, "peername": other})
        self._loop = loop
        self._protocol = protocol
        self._closing = False
        self._gone = False
        self._reading = True
        self._unread: list[bytes] = []  # b"" for the end

    # --- what a protocol asks for -------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if data and not self._closing:
            self._loop.call_soon(self.peer._come, bytes(data))

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self.peer._come, b"")
            self._loop.call_soon(self._lose, None)

    def abort(self) -> None:
        """Both ends, at once; the other end learns it as from a reset."""
        self._closing = True
        self._loop.call_soon(self.peer._lose, ConnectionResetError("the other end has gone"))
        self._loop.call_soon(self._lose, None)

    def is_closing(self) -> bool:
        return self._closing

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def is_reading(self) -> bool:
        return self._reading and not self._closing

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self._loop.call_soon(self._hand_over)

    # --- what comes -----------------------------------------------------------------------

    def _come(self, data: bytes) -> None:
        self._unread.append(data)
        self._hand_over()

    def _hand_over(self) -> None:
        while self._unread and self._reading and not self._gone:
            data = self._unread.pop(0)
            if data:
                feed(self._protocol, data)
            elif not self._protocol.eof_received():  # type: ignore[attr-defined]  # all of ours are streams
                self.close()

    def _lose(self, error: Exception | None) -> None:
        if not self._gone:
            self._gone = self._closing = True
            self._protocol.connection_lost(error)


def feed(protocol: Any, data: bytes) -> None:
    """Hand it to a protocol of either kind."""
    if not isinstance(protocol, asyncio.BufferedProtocol):
        protocol.data_received(data)
        return
    while data:
        buffer = memoryview(protocol.get_buffer(len(data)))
        size = min(len(buffer), len(data))
        buffer[:size] = data[:size]
        protocol.buffer_updated(size)
        data = data[size:]
