"""A simulated net for W10: one process that is many hosts, a loopback address each, all on one port,
and the name server that knows them (names.py).

Every tenth host is dead, by turns gone, silent and nameless, every tenth is slow.  A healthy one takes
everything at once.  A slow one waits before each reply, each for as long as its place says, from 0.1
to 1 second.  A silent one lets anybody connect and never greets.  One that is gone does not listen.
Of one that is nameless the name server says nothing.  How many messages the healthy and the slow ones
have taken, and how many recipients the healthy ones, stands in a file.
"""

import asyncio
import os
import resource
import socket
import sys
from collections import deque
from functools import partial
from pathlib import Path
from subprocess import Popen
from typing import Literal, cast

import uvloop
from load import wait_until
from names import Names

from homes import free_port

Kind = Literal["healthy", "slow", "silent", "gone", "nameless"]
_NETS: dict[Kind, int] = {"healthy": 2, "slow": 3, "silent": 4, "gone": 5, "nameless": 6}
_DEAD: tuple[Kind, ...] = ("gone", "silent", "nameless")
LEAST, MOST = 0.1, 1.0
"""Seconds that slow hosts wait before a reply."""
_TOLD = 0.01
"""Seconds between two looks of those who count."""


def kind_of(host: int) -> Kind:
    if host % 10 == 3:
        return _DEAD[host // 10 % 3]
    return "slow" if host % 10 == 7 else "healthy"


def address(host: int) -> str:
    return f"127.{_NETS[kind_of(host)]}.{host >> 8}.{host & 255}"


class Net:
    """So many hosts, until it is closed."""

    def __init__(self, folder: Path, name: str, hosts: int) -> None:
        self.port, self.names = free_port(), free_port()
        self._counts = folder / f"{name}.counts"
        self._counts.write_bytes(b"0 0 0 ")
        numbers = map(str, (self.port, self.names, hosts))
        self._process = Popen([sys.executable, __file__, str(self._counts), *numbers])
        try:
            wait_until(self._listens, "the simulated net listens")
        except BaseException:
            self.close()
            raise

    def _listens(self) -> bool:
        with socket.socket() as trial:  # the first comes last
            return trial.connect_ex((address(0), self.port)) == 0

    def taken(self) -> tuple[int, int]:
        """Messages that healthy and slow hosts have taken."""
        healthy, slow, _ = self._counts.read_bytes().split()[:3]
        return int(healthy), int(slow)

    def recipients(self) -> int:
        """Those of the messages that healthy hosts have taken."""
        return int(self._counts.read_bytes().split()[2])

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


# --- the process --------------------------------------------------------------------------


class _Taken:
    """What has been taken, told to the file when it has changed."""

    def __init__(self, file: int) -> None:
        self.healthy = self.slow = self.recipients = 0
        self._file, self._told = file, (0, 0, 0)

    def tell(self) -> None:
        now = self.healthy, self.slow, self.recipients
        if self._told != now:
            self._told = now
            os.pwrite(self._file, b"%d %d %d " % now, 0)
        asyncio.get_running_loop().call_later(_TOLD, self.tell)


class _Session(asyncio.Protocol):
    """`pause`: seconds before each reply; None: it never says anything."""

    def __init__(self, taken: _Taken, pause: float | None) -> None:
        self._taken, self._pause = taken, pause
        self._rest = b""
        self._in_data = False
        self._recipients = 0
        self._replies: deque[bytes] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._pause is not None:
            self._say(b"220 net.example ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\r\n")
        for line in lines:
            self._line(line)

    def _line(self, line: bytes) -> None:
        verb = line[:4].upper()
        if self._in_data:
            if line == b".":
                self._in_data = False
                self._say(b"250 2.0.0 taken\r\n")
        elif verb == b"RCPT":
            self._recipients += 1
            self._say(b"250 2.1.5 ok\r\n")
        elif verb == b"DATA":
            self._in_data = True
            self._say(b"354 go ahead\r\n")
        elif verb == b"EHLO":
            self._say(b"250-net.example\r\n250-PIPELINING\r\n250 8BITMIME\r\n")
        elif verb == b"QUIT":
            self._say(b"221 2.0.0 bye\r\n")
        else:
            self._say(b"250 2.1.0 ok\r\n")

    def _say(self, reply: bytes) -> None:
        if not self._pause:
            self._write(reply)
            return
        self._replies.append(reply)
        if len(self._replies) == 1:
            asyncio.get_running_loop().call_later(self._pause, self._next)

    def _next(self) -> None:
        self._write(self._replies.popleft())
        if self._replies:
            asyncio.get_running_loop().call_later(self._pause or 0, self._next)

    def _write(self, reply: bytes) -> None:
        if self._transport.is_closing():
            return
        self._transport.write(reply)
        if reply[:9] == b"250 2.0.0":
            if self._pause:
                self._taken.slow += 1
            else:
                self._taken.healthy += 1
                self._taken.recipients += self._recipients
            self._recipients = 0
        elif reply[:3] == b"221":
            self._transport.close()


async def _serve(counts: str, port: int, names: int, hosts: int) -> None:
    loop = asyncio.get_running_loop()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    taken = _Taken(os.open(counts, os.O_WRONLY))
    await loop.create_datagram_endpoint(
        lambda: Names(hosts, lambda host: None if kind_of(host) == "nameless" else address(host)),
        local_addr=("127.0.0.1", names),
    )
    for host in reversed(range(hosts)):
        pauses = {"healthy": 0.0, "slow": LEAST + (MOST - LEAST) * host / hosts, "silent": None}
        kind = kind_of(host)
        if kind not in ("gone", "nameless"):
            made = partial(_Session, taken, pauses[kind])
            await loop.create_server(made, address(host), port, backlog=256)
    taken.tell()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1], *map(int, sys.argv[2:])))
