"""An MTA whose time is virtual: five days of retries take a second, and no socket is opened.

What runs is real from SMTP at the door to SMTP at the receiver; clock, disk, loop and threads are
those of `world.simulated`.  Its mailboxes and its queue are in memory, its control files in a
temporary folder.  Time passes only in `advance`, `wait_for`, `stop` and what talks to it.
"""

import asyncio
import os
import smtplib
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from random import Random
from typing import Any, TypeVar

from openqmail.core.control.reader import read_settings
from openqmail.core.ports import MessageSummary
from openqmail.core.testing.errors import TestingError
from openqmail.core.testing.face import Face
from openqmail.core.testing.process import Process, VirtualLoop
from openqmail.core.testing.receiver import Receiver
from openqmail.core.testing.wire import Wire, connected
from openqmail.core.values import OpenqmailError
from openqmail.core.world.simulated import SimulatedClock, SimulatedDisk

T = TypeVar("T")

_STEP = 1.0
"""Virtual seconds between two looks of `wait_for`."""


class VirtualMta(Face):
    """See `Face`.  `seed`: of what is drawn by lot, such as moments and what a power cut takes.

    To be used by one thread, and not inside a running event loop: it has one of its own."""

    disk: SimulatedDisk

    def __init__(
        self,
        users: Sequence[str] = ("alice",),
        domain: str = "a.example",
        receivers: Mapping[str, Receiver] | None = None,
        control: Mapping[str, str] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(users, domain, receivers, control)
        self._random = Random(seed)
        self._loop: VirtualLoop | None = None
        self._process: Process | None = None
        self.disk = SimulatedDisk(self._random, self._clock)
        for folder in (self._home.queue, self._home.alias, self._home.mail):
            self._copy(os.fsencode(folder))

    @property
    def now(self) -> float:
        """Seconds UTC since 1970."""
        return self._clock.now()

    def advance(self, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0) -> None:
        """Let so much time pass, and happen what is due in it."""
        self._run(asyncio.sleep(((days * 24 + hours) * 60 + minutes) * 60 + seconds))

    def smtp(self) -> smtplib.SMTP:
        return _Client(self)

    def queue(self) -> list[MessageSummary]:
        return self._run(self._running().queue())

    def control(self, name: str, text: str | None) -> None:
        before = self._home.write(name, text)
        if self._process is None:
            return
        try:
            self._run(self._process.reconfigure(read_settings(self._home)))
        except OpenqmailError:
            self._home.write(name, before)
            raise

    def flush(self) -> None:
        """Try everything that waits now, as on ALRM."""
        self._run(self._running().flush())

    # --- lives ----------------------------------------------------------------------------------

    def start(self) -> None:
        if self._process is not None:
            raise TestingError("this MTA runs already")
        self._loop = VirtualLoop(self._clock)
        self._loop.network = self._network
        self._process = self._run(self._started())

    def stop(self) -> None:
        self._run(self._running().stop())
        self._end()

    def crash(self, *, power_cut: bool = False) -> None:
        """End as if killed; with `power_cut`, what was not synced may be lost from the disk, too."""
        self._running()
        found = self.disk.after_power_cut(self._random) if power_cut else self.disk.after_kill()
        self._end()
        self.disk = found

    def close(self) -> None:
        self._end()
        self._home.close()

    # --- parts ----------------------------------------------------------------------------------

    def _running(self) -> Process:
        if self._process is None:
            raise TestingError("this MTA does not run; use it in a with statement, or call start()")
        return self._process

    async def _started(self) -> Process:
        process = Process(
            self._home,
            read_settings(self._home),
            self.disk,
            self._clock,
            self._events,
            self._network,
            self._random,
        )
        process.start()
        return process

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """What the work gives, in as much virtual time as it takes; raises what went wrong in the loop."""
        if self._loop is None:
            work.close()
            raise TestingError("this MTA does not run; use it in a with statement, or call start()")
        if asyncio._get_running_loop() is not None:
            work.close()
            raise TestingError(
                "a VirtualMta has a loop of its own and cannot be used inside another; make the test a plain "
                "function, or call it by asyncio.to_thread"
            )
        return self._loop.run_until_complete(work)

    def _end(self) -> None:
        """Nothing of what was under way happens any more: what it still writes is on a disk that is
        given up."""
        loop, self._loop, self._process = self._loop, None, None
        if loop is None:
            return
        loop.over = True
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.close()

    def _copy(self, folder: bytes) -> None:
        """The real folder to the simulated disk."""
        self.disk.make(folder)
        for entry in os.scandir(folder):
            if entry.is_dir(follow_symlinks=False):
                self._copy(entry.path)
            elif entry.is_file(follow_symlinks=False):
                with open(entry.path, "rb") as opened:
                    self.disk.make(entry.path, opened.read(), entry.stat().st_mode & 0o777)

    def _prove(self, client: smtplib.SMTP) -> None:
        """There is nobody who asks."""

    def _make_clock(self) -> SimulatedClock:
        return SimulatedClock()

    def _moments(self, seconds: float) -> Iterator[None]:
        until = self.now + seconds
        while self.now < until:
            yield
            self.advance(seconds=min(_STEP, until - self.now))
        yield


class _Client(smtplib.SMTP):
    """The standard library's client, over a connection in memory."""

    def __init__(self, mta: VirtualMta) -> None:
        self._mta = mta
        super().__init__("127.0.0.1", 25, "client.example")

    def _get_socket(self, host: str, port: int, timeout: float) -> Any:
        return _Socket(self._mta)


class _Socket(asyncio.Protocol):
    """As much of a socket, and of a file of one, as smtplib uses; whoever reads lets time pass."""

    def __init__(self, mta: VirtualMta) -> None:
        self._mta = mta
        self._buffer = b""
        self._ended = False
        self._waiting: asyncio.Future[None] | None = None
        self._life = mta._running()
        self._wire = mta._run(self._connected())

    def sendall(self, data: bytes) -> None:
        if self._ended or self._life is not self._mta._process:
            raise BrokenPipeError("the other end has gone")
        self._wire.write(data)

    def makefile(self, mode: str) -> "_Socket":
        return self

    def readline(self, most: int) -> bytes:
        while b"\n" not in self._buffer and not self._ended and self._life is self._mta._process:
            self._mta._run(self._more())
        line, end, self._buffer = self._buffer.partition(b"\n")
        return line + end

    def close(self) -> None:
        if not self._ended and self._life is self._mta._process:
            self._wire.close()
            self._mta._run(asyncio.sleep(0))

    async def _connected(self) -> Wire:
        session = self._life.smtp.connect()
        client, server = ("127.0.0.1", 49152), ("127.0.0.1", 25)
        return connected(asyncio.get_running_loop(), self, session, client, server)[0]

    async def _more(self) -> None:
        self._waiting = asyncio.get_running_loop().create_future()
        await self._waiting

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._wake()

    def eof_received(self) -> bool:
        self._ended = True
        self._wake()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
