"""The jobs of one MTA in virtual time, introduced to each other as service.mta does it.

What is missing are the sockets: listeners, the one of the administrator, the bell of the queue; and
what cannot be simulated: programs of hooks, logins, TLS.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from random import Random
from typing import Any, TypeVar, TypeVarTuple

from openqmail.core.control.extensions import load
from openqmail.core.control.home import Home
from openqmail.core.control.settings import Listener, Settings
from openqmail.core.gate import LocalGate, limits_of
from openqmail.core.hooks import HookChain, load_chain
from openqmail.core.local import LocalDeliveries
from openqmail.core.log import Alert, MemoryLog
from openqmail.core.ports import MessageSummary, ProgramResult, Service, ServiceContext
from openqmail.core.queue import Limits, LocalStore
from openqmail.core.remote import Remote, Timeouts
from openqmail.core.send import Routes, Sender, SendManager, StoredQueue
from openqmail.core.testing.network import Network, NetworkedLoop
from openqmail.core.values import Body, OpenqmailError
from openqmail.core.values.address import Channel
from openqmail.core.world import Clock, Disk
from openqmail.core.world.simulated import SimulatedLoop, SimulatedWorkers

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_LIMITS = Limits(look_every=86_400.0)
"""No qmail-queue of somebody else's puts mail into this queue: looking for it would take most of the time."""
_LISTENER = Listener("smtp", "127.0.0.1", 25)
_NO_PROGRAMS = ProgramResult(None, why="is not run: there are no programs in virtual time")


class _NoPrograms:
    """The port `Programs` where no time passes while a program runs."""

    def run(
        self,
        argv: Sequence[bytes],
        stdin: bytes | Body = b"",
        env: Mapping[bytes, bytes] | None = None,
        timeout: float = 30.0,
    ) -> "asyncio.Future[ProgramResult]":
        answer: asyncio.Future[ProgramResult] = asyncio.get_running_loop().create_future()
        answer.set_result(_NO_PROGRAMS)
        return answer


class Process:
    """One life, in the loop that runs."""

    def __init__(
        self,
        home: Home,
        settings: Settings,
        disk: Disk,
        clock: Clock,
        log: MemoryLog,
        network: Network,
        random: Random,
    ) -> None:
        loop = asyncio.get_running_loop()

        def workers(count: int, name: str) -> SimulatedWorkers:
            return SimulatedWorkers(loop, random, count)

        self._settings, self._clock, self._log = settings, clock, log
        self._routes = Routes(settings)
        self._hooks, outbound, forwarding = _chains(settings, log, clock)
        self._gate = LocalGate(limits_of(settings))
        self._local = LocalDeliveries(home, settings, disk, clock, workers=workers)
        timeouts = Timeouts(now=clock.now)
        self._remote = Remote(settings, log, resolver=network, timeouts=timeouts, hooks=outbound)
        self._store = LocalStore(
            disk,
            clock,
            home.queue.encode(),
            self._lost,
            route=self._place,
            report=lambda sentence: log(Alert(sentence)),
            limits=_LIMITS,
            workers=workers,
            entropy=random.randbytes,
        )
        manager = SendManager(settings, 1, random.randrange(1 << 30))
        self._sender = Sender(
            manager, self._store, self._local, self._remote, settings, clock, log, hooks=forwarding
        )
        self._admin = StoredQueue(self._store, lambda: self._settings, self._sender, clock, log)
        self.smtp: Service = load("openqmail.services", "smtp")(self._context())

    def start(self) -> None:
        self._sender.start()

    async def queue(self) -> list[MessageSummary]:
        return [one for one in self._admin.messages() if isinstance(one, MessageSummary)]

    async def flush(self) -> None:
        self._sender.flush()

    async def reconfigure(self, settings: Settings) -> None:
        """Raises ControlError; all stays as it was then."""
        self._hooks, outbound, forwarding = _chains(settings, self._log, self._clock)
        self._settings, self._routes = settings, Routes(settings)
        self._gate.reconfigure(limits_of(settings))
        self._local.reconfigure(settings)
        self._remote.reconfigure(settings, outbound)
        self._sender.reconfigure(settings, forwarding)
        self.smtp.reconfigure(self._context())

    async def stop(self) -> None:
        """As the service does on TERM."""
        self.smtp.drain()
        await self._sender.drain()
        self.smtp.abort()
        await self._remote.close()
        await self._local.close()
        await self._admin.close()
        await self._store.settle()
        await self._store.close()

    def _context(self) -> ServiceContext:
        return ServiceContext(
            listener=_LISTENER,
            settings=self._settings,
            submission=self._sender,
            gate=self._gate,
            hooks=self._hooks,
            log=self._log,
            clock=self._clock,
            recipients=self._local if self._settings.checkrcpt else None,
        )

    def _place(self, recipient: bytes) -> tuple[Channel, bytes]:
        """By the settings of the moment."""
        return self._routes.place(recipient)

    def _lost(self, error: OpenqmailError) -> None:
        self._log(Alert(f"the queue cannot be written to: {error}; ending"))


def _chains(settings: Settings, log: MemoryLog, clock: Clock) -> tuple[HookChain, HookChain, HookChain]:
    """Of mail that comes in, of mail that goes out, and of forwards.  Raises ControlError."""
    return (
        load_chain(settings, log, clock, "smtpd", _NoPrograms()),
        load_chain(settings, log, clock, "remote"),
        load_chain(settings, log, clock, "send"),
    )


class VirtualLoop(NetworkedLoop, SimulatedLoop):
    """Virtual time, and other hosts in memory; what is handed to a thread is done at once.

    What a callback or a task raises and nobody handles ends the loop: whoever runs it gets it raised.
    Unless it is `over`."""

    over = False
    _error: BaseException | None = None

    async def sock_connect(self, sock: Any, address: Any) -> None:
        if not self.network.has(*address[:2]):
            raise ConnectionRefusedError("there are no sockets in virtual time; name a host, not an address")
        await super().sock_connect(sock, address)

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self.create_future()
        self.call_soon(partial(_do, future, func, *args))
        return future

    def call_exception_handler(self, context: Any) -> None:
        error = context.get("exception")
        if error is None:
            super().call_exception_handler(context)
        elif not self.over:
            self._error = self._error or error
            self.stop()

    def run_forever(self) -> None:
        try:
            super().run_forever()
        finally:
            error, self._error = self._error, None
            if error is not None:
                raise error


def _do(future: "asyncio.Future[Any]", call: Callable[..., Any], *arguments: Any) -> None:
    if future.done():
        return
    try:
        future.set_result(call(*arguments))
    except Exception as error:
        future.set_exception(error)
