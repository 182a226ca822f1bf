"""A server that takes everything and does nothing: how long the generator needs by itself.

A bare protocol that answers 220, 354, 221 and else 250 (RFC 5321), line by line, in a process of
its own.  What smtp-source takes with it, it takes with any server; no server is measured by less.
"""

import asyncio
import sys
import time
from pathlib import Path
from subprocess import Popen
from typing import cast

import uvloop
from load import Load, send, wait_until

from homes import free_port


class NullServer:
    """One that runs until it is closed."""

    def __init__(self) -> None:
        self._port = free_port()
        self._process = Popen([sys.executable, __file__, str(self._port)])
        listening = f"0100007F:{self._port:04X} 00000000:0000 0A"
        try:
            wait_until(lambda: listening in Path("/proc/net/tcp").read_text(), "the null server listens")
        except BaseException:
            self.close()
            raise

    def seconds(self, recipients: int) -> float:
        """One message to so many by smtp-source.  Raises LoadError."""
        began = time.perf_counter()
        send("127.0.0.1", self._port, "x@null.example", 1, Load(recipients=recipients, connections=1))
        return time.perf_counter() - began

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


class _Session(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._rest = b""
        self._in_data = False
        self._transport.write(b"220 null.example\r\n")

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\r\n")
        for line in lines:
            self._line(line)

    def _line(self, line: bytes) -> None:
        if self._in_data:
            if line == b".":
                self._in_data = False
                self._transport.write(b"250 ok\r\n")
        elif line[:4].upper() == b"DATA":
            self._in_data = True
            self._transport.write(b"354 go ahead\r\n")
        elif line[:4].upper() == b"QUIT":
            self._transport.write(b"221 bye\r\n")
            self._transport.close()
        else:
            self._transport.write(b"250 ok\r\n")


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Session, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
