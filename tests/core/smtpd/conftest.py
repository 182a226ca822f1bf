"""A real SMTP service on loopback in front of a queue that is only a list, a gate, and mailboxes.

Every story is told twice: with direct calls, and with frames over a socket in between.
"""

import asyncio
import os
import socket
import ssl
import struct
import tempfile
from asyncio import Future
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from handshakes import OURS
from logins import CHECKS, SMTPAUTH
from openqmail.core.control.assign import Users
from openqmail.core.control.home import Home
from openqmail.core.control.logins import Logins
from openqmail.core.control.reader import read_settings
from openqmail.core.control.settings import Listener, Settings
from openqmail.core.dns import Answer, NoSuchName, behalf
from openqmail.core.gate import Authentication, BackEnds, Guard, LocalGate, limits_of
from openqmail.core.hooks import HookChain
from openqmail.core.log import MemoryLog
from openqmail.core.ports import CONNECTIONS, LargeBody, ServiceContext, Told
from openqmail.core.queue.body import FileBody
from openqmail.core.sasl import MECHANISMS
from openqmail.core.service.frames.gate import GateClient, GateServer
from openqmail.core.service.frames.local_client import LocalClient
from openqmail.core.service.frames.submission import SubmissionClient, SubmissionServer
from openqmail.core.service.loops import new_loop
from openqmail.core.smtpd import SmtpService
from openqmail.core.tls import ServerTls
from openqmail.core.values import Body, Envelope, MessageId, OpenqmailError, Outcome, Result
from openqmail.core.world import PosixDisk, SimulatedClock
from spawned import Spawner


class Large:
    """A large body that is kept in memory; `hold` leaves its writes unanswered."""

    def __init__(self, queue: "ListQueue") -> None:
        self.queue = queue
        self.data = bytearray()
        self.aborted = False

    def write(self, chunk: bytes) -> "Future[None]":
        self.data += chunk
        future: Future[None] = asyncio.get_running_loop().create_future()
        if self.queue.hold:
            self.queue.held.append(future)
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
        self.hold = False
        self.held: list[Future[None]] = []
        self.answers: list[Future[MessageId]] = []

    def large(self) -> LargeBody:
        self.bodies.append(Large(self))
        return self.bodies[-1]

    def submit(self, envelope: Envelope, body: bytes | LargeBody, hold: str = "") -> "Future[MessageId]":
        future: Future[MessageId] = asyncio.get_running_loop().create_future()
        if self.error is not None:
            future.set_exception(self.error)
            return future
        self.messages.append((envelope, body if isinstance(body, bytes) else body.data))  # type: ignore[attr-defined]
        self.reasons.append(hold)
        self.answers.append(future)
        if not self.hold:
            future.set_result(MessageId(len(self.messages), b"k" * 24))
        return future


class Mailboxes:
    """Serves the port RecipientCheck: who begins with `no` has none, who begins with `later` none just
    now; `hold` leaves it open.  Of others that come along it tells so many."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.along: list[list[bytes]] = []
        self.answers: list[Future[Told]] = []
        self.hold = False
        self.tells = 1000

    def check(self, recipients: Sequence[bytes]) -> "Future[Told]":
        self.asked.append(recipients[0])
        self.along.append(list(recipients[1:]))
        self.answers.append(asyncio.get_running_loop().create_future())
        if not self.hold:
            self.answer(len(self.asked) - 1)
        return self.answers[-1]

    def answer(self, at: int) -> None:
        told = (self.asked[at], *self.along[at][: self.tells])
        self.answers[at].set_result({name: self._result(name) for name in told})

    def _result(self, name: bytes) -> Result | None:
        if name.startswith(b"no"):
            return Result(Outcome.FAILURE, b"Sorry, no mailbox here by that name. (#5.1.1)\n")
        if name.startswith(b"later"):
            return Result(Outcome.DEFERRAL, b"Unable to switch to /home/later: access denied. (#4.3.0)\n")
        return None


class Names:
    """What the DNS knows of clients: `records[name]`, an error to raise or what is there; `hold` lets
    every question wait, so many are `waiting`; `asked` has them all, and `owners` on whose behalf."""

    def __init__(self, records: dict[bytes, Any]) -> None:
        self.records = records
        self.asked: list[bytes] = []
        self.owners: list[bytes] = []
        self.hold: asyncio.Event | None = None
        self.waiting = 0

    async def _look_up(self, name: bytes) -> Answer[Any]:
        self.asked.append(name)
        self.owners.append(behalf.get())
        if self.hold is not None:
            self.waiting += 1
            try:
                await self.hold.wait()
            finally:
                self.waiting -= 1
        found = self.records.get(name)
        if found is None:
            raise NoSuchName(name.decode())
        if isinstance(found, Exception):
            raise found
        return Answer(tuple(found), 60)

    async def texts(self, name: bytes) -> Answer[bytes]:
        return await self._look_up(b"text of " + name)

    ipv4 = addresses = pointers = _look_up


class LateLoop:
    """A loop whose timers a test ends: `timers` has (seconds, what is called)."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.timers: list[tuple[float, Any]] = []

    def call_later(self, delay: float, call: Any, *args: Any) -> asyncio.TimerHandle:
        self.timers.append((delay, partial(call, *args)))
        return self._loop.call_later(3600, call, *args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    async def timer(self, least: float) -> float:
        """End the next one of so many seconds at least, and tell how long it would have been."""
        while not (found := [one for one in self.timers if one[0] >= least]):
            await asyncio.sleep(0)
        self.timers.remove(found[0])
        found[0][1]()
        return found[0][0]


class Client:
    """Speaks SMTP in bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def reply(self) -> bytes:
        """The next reply, all its lines."""
        lines = []
        while True:
            line = await asyncio.wait_for(self.reader.readline(), 10)
            lines.append(line)
            if line[3:4] != b"-":
                return b"".join(lines)

    async def say(self, line: bytes) -> bytes:
        self.writer.write(line + b"\r\n")
        return await self.reply()

    async def start_tls(self, context: ssl.SSLContext, server_name: str = "a.example") -> None:
        """After the answer to STARTTLS."""
        await self.writer.start_tls(context, server_hostname=server_name)

    def vanish(self) -> None:
        """End at once, by a reset: a FIN only says that no more is sent."""
        wire = self.writer.get_extra_info("socket")
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def rest(self) -> bytes:
        """All that comes until the server hangs up."""
        return await asyncio.wait_for(self.reader.read(), 10)

    async def hello(self) -> "Client":
        await self.reply()
        await self.say(b"EHLO client.example")
        return self

    async def data(self, *recipients: bytes, sender: bytes = b"s@client.example") -> bytes:
        """All before the message; the reply to DATA."""
        assert (await self.say(b"MAIL FROM:<%s>" % sender))[:3] == b"250"
        for recipient in recipients or (b"alice@a.example",):
            assert (await self.say(b"RCPT TO:<%s>" % recipient))[:3] == b"250"
        return await self.say(b"DATA")


class Server:
    def __init__(self, service: SmtpService, queue: ListQueue, gate: LocalGate, port: int) -> None:
        self.service, self.queue, self.gate, self.port = service, queue, gate, port
        self.clock: Any = service.context.clock
        self.log: Any = service.context.log
        self._clients: list[asyncio.StreamWriter] = []

    async def client(
        self, context: ssl.SSLContext | None = None, server_name: str = "a.example", source: str = ""
    ) -> Client:
        """With a context: TLS from the first byte on.  `source`: from which address."""
        more: dict[str, Any] = {"ssl": context, "server_hostname": server_name} if context else {}
        if source:
            more["local_addr"] = (source, 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, **more)
        self._clients.append(writer)
        return Client(reader, writer)

    def late(self) -> LateLoop:
        """From now on sessions wait for the test."""
        loop = LateLoop(asyncio.get_running_loop())
        self.service._loop = loop  # type: ignore[assignment]
        return loop

    async def quiet(self) -> None:
        """Returns when no session is left."""
        async with asyncio.timeout(10):
            while self.service.active or self.gate.taken(CONNECTIONS):
                await asyncio.sleep(0)

    async def ended(self) -> None:
        """Returns when hooks have heard of the end of each session, but for such as never have."""
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                while self.service.active or self.service.context.hooks.busy:  # type: ignore[attr-defined]
                    await asyncio.sleep(0)

    def hang_up(self) -> None:
        for writer in self._clients:
            writer.close()


@pytest.fixture
def mailboxes() -> Mailboxes:
    return Mailboxes()


@pytest.fixture
def names() -> type[Names]:
    """`names({name: records})` is a resolver."""
    return Names


RATES = ("connectionsperhour", "messagesperhour", "recipientsperhour")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Those of a home for a.example that relays for 127.0.0.1 only when told so and counts no networks."""
    control = tmp_path / "control"
    control.mkdir()
    for name, value in {
        "me": "a.example",
        "locals": "a.example",
        "rcpthosts": "a.example\n.sub.example",
        "listen": "smtp 127.0.0.1:2525",
        "rules": ":allow",
        **dict.fromkeys(("concurrencynetwork", *RATES), "0"),
    }.items():
        (control / name).write_text(value + "\n")
    return read_settings(Home(str(tmp_path)))


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    """Runs a story, on both loops."""
    factory = asyncio.new_event_loop if request.param == "asyncio" else new_loop

    def work(story: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(story)

    return work


@pytest.fixture
def control(tmp_path: Path, settings: Settings) -> Path:
    """The home's folder, with a certificate."""
    folder = tmp_path / "control"
    (folder / "servercert.pem").write_bytes(OURS.pem)
    return folder


@pytest.fixture
def users(tmp_path: Path) -> Path:
    """A users/smtpauth."""
    (tmp_path / "smtpauth").write_bytes(SMTPAUTH)
    return tmp_path / "smtpauth"


def _connected(client: Any, server: Any) -> Any:
    ours, theirs = socket.socketpair()
    client.attach(ours)
    server.serve(theirs)
    return client


async def _authentication(users: Path, settings: Settings, clock: Any, log: Any) -> Authentication:
    """`users`: a users/smtpauth."""
    back_ends = BackEnds(Logins(str(users), b"k" * 32), CHECKS, lambda _: None)
    back_ends.reconfigure(settings)
    made = Authentication(back_ends, Guard(settings.authfailures), clock, log)
    await made.start()
    return made


@asynccontextmanager
async def _running(
    frames: bool,
    settings: Settings,
    hooks: Sequence[tuple[str, object]] = (),
    mailboxes: Mailboxes | None = None,
    resolver: Any = None,
    tls: ServerTls | None = None,
    kind: type[SmtpService] = SmtpService,
    users: Path | None = None,
    **changes: object,
) -> AsyncIterator[Server]:
    settings = msgspec.structs.replace(settings, **{"authmechanisms": frozenset(MECHANISMS)} | changes)
    queue, log, clock = ListQueue(), MemoryLog(), SimulatedClock()
    authentication = None if users is None else await _authentication(users, settings, clock, log)
    gate = LocalGate(limits_of(settings), clock, authentication)
    submission: Any = queue
    gate_port: Any = gate
    if frames:
        submission = _connected(SubmissionClient(), SubmissionServer(queue))
        gate_port = _connected(GateClient(batches={}), GateServer(gate))
        while gate.mechanisms != gate_port.mechanisms:
            await asyncio.sleep(0)
    recipients: Any = mailboxes
    if frames and mailboxes is not None:
        spawner = Spawner(lambda uid, gid: mailboxes, lambda local: (7, 7))
        recipients = LocalClient(Users(""), (7, 7), (7, 7))
        recipients.attach(spawner.connection)
    context = ServiceContext(
        listener=Listener("smtp", "127.0.0.1", 0),
        settings=settings,
        submission=submission,
        gate=gate_port,
        hooks=HookChain(hooks, log),
        log=log,
        clock=clock,
        recipients=recipients,
        resolver=resolver,
        tls=tls,
    )
    service = kind(context)
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(service.connect, "127.0.0.1", 0)
    server = Server(service, queue, gate, listening.sockets[0].getsockname()[1])
    try:
        yield server
    finally:
        server.hang_up()
        service.abort()
        listening.close()
        await server.ended()
        if authentication is not None:
            await authentication.close()
        if frames:
            submission.close()
            gate_port.close()
            if mailboxes is not None:
                await recipients.close()
                spawner.close()


@pytest.fixture(params=["direct", "frames"])
def running(request: pytest.FixtureRequest) -> object:
    """`async with running(settings, hooks, mailboxes, **changes of settings) as server`."""
    return partial(_running, request.param == "frames")
