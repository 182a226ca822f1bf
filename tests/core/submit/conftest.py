"""A real Unix socket in front of a queue that is only a list."""

import asyncio
import os
import shutil
import tempfile
from asyncio import Future
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from openqmail.core.control.home import Home
from openqmail.core.control.reader import read_settings
from openqmail.core.control.settings import Listener, Settings
from openqmail.core.hooks import HookChain
from openqmail.core.log import MemoryLog
from openqmail.core.ports import LargeBody, ServiceContext
from openqmail.core.queue.body import FileBody
from openqmail.core.submit.service import SubmitService
from openqmail.core.values import Body, Envelope, MessageId, OpenqmailError
from openqmail.core.world import PosixDisk, SimulatedClock


class Large:
    """A large body that is kept in memory; `hold` leaves its writes unanswered."""

    def __init__(self, queue: "ListQueue") -> None:
        self.queue = queue
        self.data = bytearray()
        self.aborted = False

    def write(self, chunk: bytes) -> "Future[None]":
        self.data += chunk
        future: Future[None] = asyncio.get_running_loop().create_future()
        if self.queue.broken is not None:
            future.set_exception(self.queue.broken)
        elif self.queue.hold:
            self.queue.writes.append(future)
        else:
            future.set_result(None)
        return future

    def so_far(self) -> "Future[Body]":
        with tempfile.NamedTemporaryFile(delete=False, dir=self.queue.folder.name) as file:
            file.write(self.data)
        future: Future[Body] = asyncio.get_running_loop().create_future()
        future.set_result(FileBody(PosixDisk(), os.fsencode(file.name), 0, len(self.data)))
        return future

    def abort(self) -> None:
        self.aborted = True


class ListQueue:
    """Serves the port Submission; `hold` leaves it undecided whether a message is durable."""

    def __init__(self) -> None:
        self.messages: list[tuple[Envelope, bytes]] = []
        self.bodies: list[Large] = []
        self.reasons: list[str] = []
        self.folder = tempfile.TemporaryDirectory()
        self.error: OpenqmailError | None = None
        self.broken: OpenqmailError | None = None
        self.hold = False
        self.writes: list[Future[None]] = []
        self.answers: list[Future[MessageId]] = []
        self.arrived = asyncio.Event()

    def large(self) -> LargeBody:
        self.bodies.append(Large(self))
        return self.bodies[-1]

    def submit(self, envelope: Envelope, body: bytes | LargeBody, hold: str = "") -> "Future[MessageId]":
        future: Future[MessageId] = asyncio.get_running_loop().create_future()
        if self.error is not None:
            future.set_exception(self.error)
            return future
        self.messages.append((envelope, body if isinstance(body, bytes) else bytes(body.data)))  # type: ignore[attr-defined]
        self.reasons.append(hold)
        self.answers.append(future)
        self.arrived.set()
        if not self.hold:
            future.set_result(MessageId(len(self.messages), b"k" * 24))
        return future


class Client:
    """Speaks on the socket in bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def all(self) -> bytes:
        """All that comes until the service hangs up; a reset says that we sent too much."""
        found = b""
        async with asyncio.timeout(10):
            try:
                while data := await self.reader.read(4096):
                    found += data
            except ConnectionResetError:
                pass
        return found

    async def say(self, data: bytes) -> bytes:
        self.writer.write(data)
        return await self.all()


class Server:
    def __init__(self, service: SubmitService, queue: ListQueue, path: str) -> None:
        self.service, self.queue, self.path = service, queue, path
        self._clients: list[Client] = []

    async def client(self) -> Client:
        self._clients.append(Client(*await asyncio.open_unix_connection(self.path)))
        return self._clients[-1]

    async def say(self, data: bytes) -> bytes:
        return await (await self.client()).say(data)

    async def until(self, count: int) -> None:
        """Returns when so many connections are open."""
        async with asyncio.timeout(10):
            while self.service.active != count:
                await asyncio.sleep(0)

    def hang_up(self) -> None:
        for client in self._clients:
            client.writer.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    control = tmp_path / "control"
    control.mkdir()
    for name, value in {"me": "a.example", "rules": ":allow", "listen": "smtp 127.0.0.1:2525"}.items():
        (control / name).write_text(value + "\n")
    return read_settings(Home(str(tmp_path)))


@pytest.fixture
def folder() -> Iterator[Path]:
    """One with a short name, as a Unix socket needs it."""
    made = Path(tempfile.mkdtemp(prefix="oq"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def running(settings: Settings, folder: Path) -> object:
    """`async with running(hooks, **changes of settings) as server`"""

    @asynccontextmanager
    async def run(hooks: Sequence[tuple[str, object]] = (), **changes: object) -> AsyncIterator[Server]:
        queue, log = ListQueue(), MemoryLog()
        context = ServiceContext(
            listener=Listener("submit", "", 0),
            settings=msgspec.structs.replace(settings, **changes),
            submission=queue,
            gate=cast(Any, None),  # connections are counted by the service itself
            hooks=HookChain(hooks, log),
            log=log,
            clock=SimulatedClock(),
        )
        service = SubmitService(context)
        path = str(folder / "submit")
        listening = await asyncio.get_running_loop().create_unix_server(service.connect, path)
        server = Server(service, queue, path)
        try:
            yield server
        finally:
            server.hang_up()
            service.abort()
            listening.close()
            await server.until(0)

    return run
