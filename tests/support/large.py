"""Large messages that are made up while they are sent, and what a process holds in memory meanwhile.

Neither side of the client ever has a whole message: a block of random lines is repeated, and each
message differs by its first line, so that a digest tells it from the others.
"""

import asyncio
import contextlib
import hashlib
import os
import re
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import NamedTuple

BLOCK = 64 * 1024
_LINE = 63
_LINES = b"".join(
    hashlib.shake_128(b"%d" % number).hexdigest(31).encode() + b"\n" for number in range(BLOCK // (_LINE + 1))
)
_WIRE = _LINES.replace(b"\n", b"\r\n")


class Large(NamedTuple):
    """`size`: bytes of the text with LF, to the nearest block."""

    number: int
    size: int

    def head(self) -> bytes:
        return b"Subject: large\nX-Number: %d\n\n%d\n" % (self.number, self.number)

    @property
    def blocks(self) -> int:
        return self.size // len(_LINES)

    def digest(self) -> str:
        """Of the text as it must be found, without what was put in front."""
        found = hashlib.sha256(self.head())
        for _ in range(self.blocks):
            found.update(_LINES)
        return found.hexdigest()


def found(path: Path) -> tuple[int, str]:
    """Number and digest of a message in a file, which need not fit into memory."""
    with path.open("rb") as file:
        start = file.read(4096)
        at = start.index(b"Subject: large\n")
        number = re.search(rb"^X-Number: (\d+)$", start, re.MULTILINE)
        assert number
        file.seek(at)
        return int(number[1]), hashlib.file_digest(file, "sha256").hexdigest()


class Client:
    """One connection; `send` returns when the message was answered, and raises what was not 2xx."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def connect(cls, port: int) -> "Client":
        made = cls(*await asyncio.open_connection("127.0.0.1", port))
        made._writer.transport.set_write_buffer_limits(BLOCK)
        await made._expect(b"220")
        await made._say(b"EHLO client.example", b"250")
        return made

    async def begin(self, recipient: str) -> None:
        """Up to the 354."""
        await self._say(b"MAIL FROM:<>", b"250")
        await self._say(b"RCPT TO:<%s>" % recipient.encode(), b"250")
        await self._say(b"DATA", b"354")

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def end(self) -> None:
        await self._say(b".", b"250")

    async def send(self, recipient: str, message: Large, half: Callable[[], Awaitable[None]]) -> None:
        """`half` is awaited when the first half of it has been written."""
        await self.begin(recipient)
        await self.write(message.head().replace(b"\n", b"\r\n"))
        for block in range(message.blocks):
            if block == message.blocks // 2:
                await half()
            await self.write(_WIRE)
        await self.end()

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def _say(self, line: bytes, code: bytes) -> None:
        await self.write(line + b"\r\n")
        await self._expect(code)

    async def _expect(self, code: bytes) -> None:
        while (line := await self._reader.readline())[3:4] == b"-":
            pass
        if not line.startswith(code):
            raise AssertionError(f"{code.decode()} was expected, and {line!r} came")


class Memory(NamedTuple):
    """Bytes of processes: all that is resident, what of it is their own share, and what is theirs alone."""

    rss: int
    pss: int
    private: int

    @classmethod
    def of(cls, pids: Iterable[int]) -> "Memory":
        kib = dict.fromkeys(("Rss", "Pss", "Private_Clean", "Private_Dirty"), 0)
        for pid in pids:
            with contextlib.suppress(OSError):  # it has ended
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    name, _, value = line.partition(":")
                    if name in kib:
                        kib[name] += int(value.split()[0])
        own = kib["Private_Clean"] + kib["Private_Dirty"]
        return cls(kib["Rss"] * 1024, kib["Pss"] * 1024, own * 1024)

    def __str__(self) -> str:
        return ", ".join(f"{name} {size / 2**20:.1f} MiB" for name, size in self._asdict().items())


def free(path: Path) -> int:
    """Bytes that may still be written below a folder until a queue there takes no more mail."""
    facts = os.statvfs(path)
    return facts.f_bavail * facts.f_frsize - facts.f_blocks * facts.f_frsize // 10
