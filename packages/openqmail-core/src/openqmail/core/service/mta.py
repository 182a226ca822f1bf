"""One MTA in one process: builds the jobs, introduces them to each other, lives and ends.

Every port is a direct call here.  TERM drains and ends (a second one at once), HUP swaps the
settings whole, ALRM tries everything now.
"""

import asyncio
import os
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

import msgspec

from openqmail.core.__about__ import __version__
from openqmail.core.control import extensions
from openqmail.core.control.home import Home
from openqmail.core.control.reader import read_settings
from openqmail.core.control.settings import Listener, Settings
from openqmail.core.gate import LocalGate
from openqmail.core.hooks import HookChain, HookContext
from openqmail.core.local import LocalDeliveries
from openqmail.core.log import Alert, Exiting, Log, Notice
from openqmail.core.ports import QueueTotals, ServiceContext
from openqmail.core.queue import LocalStore, Trigger
from openqmail.core.queue.store import Channel
from openqmail.core.remote import Remote
from openqmail.core.send import Routes, Sender, SendManager, StoredQueue
from openqmail.core.service.admin import AdminSocket
from openqmail.core.service.listeners import Listeners
from openqmail.core.smtpd.session import CONNECTIONS
from openqmail.core.values import HomeError, OpenqmailError
from openqmail.core.world import Clock, Disk

DRAIN = 20.0
"""Seconds that a TERM gives to what is under way."""

_LOOK_AGAIN = 0.05

T = TypeVar("T")


class Process(msgspec.Struct, frozen=True):
    """One line of `status`; `rss` in bytes, `work`: connections and deliveries in hand."""

    name: str
    pid: int
    uid: int
    generation: int
    rss: int
    work: int


class Status(msgspec.Struct, frozen=True):
    """The form of `openqmail status --json`."""

    v: int
    state: str
    pid: int
    version: str
    since: int
    listen: list[dict[str, str]]
    queue: QueueTotals
    running: dict[str, int]
    processes: list[Process]


class Mta:
    """The service of one home.  `serve` returns the exit code when all has ended."""

    def __init__(
        self, home: Home, settings: Settings, disk: Disk, clock: Clock, log: Log, salvage: bool
    ) -> None:
        self._home = home
        self._settings = settings
        self._clock = clock
        self._log = log
        self._since = int(clock.now())
        self._state = "starting"
        self._code = 0
        self._loop = asyncio.get_running_loop()
        self._draining = asyncio.Event()
        self._hurried = asyncio.Event()
        self._reloading = asyncio.Event()
        self._hooks = self._load_hooks(settings)
        self._gate = LocalGate({CONNECTIONS: settings.concurrencyincoming})
        self._routes = Routes(settings)
        self._store = LocalStore(
            disk,
            clock,
            os.fsencode(home.queue),
            self._fatal,
            route=self._place,
            salvage=salvage,
            report=self._report,
        )
        self._local = LocalDeliveries(home, settings, disk, clock)
        self._remote = Remote(settings, log)
        manager = SendManager(settings, os.getpid(), int.from_bytes(os.urandom(8)))
        self._sender = Sender(manager, self._store, self._local, self._remote, settings, clock, log)
        self._queue = StoredQueue(self._store, lambda: self._settings, self._sender, clock, log)
        self._listeners = Listeners(self._context)
        self._admin = AdminSocket(home, self._queue, self.status)

    async def serve(self) -> int:
        """Recover, listen, say so; until a signal ends it.

        Raises QueueDamaged, HomeError, ControlError before it serves."""
        count = self._sender.start()
        trigger = Trigger(os.fsencode(self._home.queue), self._loop, self._store.look)
        await self._listeners.apply(self._settings.listen)
        try:
            await self._admin.open()
        except OSError as error:
            why = f"cannot listen there for commands: {error.strerror or error}"
            raise HomeError(f"{self._home.run}: {why}; mend its mode") from None
        self._handle_signals()
        self._state = "serving"
        where = ", ".join(f"{service} {address}" for service, address in self._listeners.addresses())
        where = where or "no listeners, control/listen names none"
        held = self._store.totals().held
        count += held
        found = f"; {count} message{'s' * (count != 1)} in the queue" if count else ""
        found += f", {held} of them held" if held else ""
        self._log(
            Notice(f"openqmail {__version__} serving {self._home.path}: {where}, pid {os.getpid()}{found}")
        )
        reloads = self._loop.create_task(self._reload_when_told())
        await self._draining.wait()
        reloads.cancel()  # a service that is told to end opens nothing any more
        await asyncio.wait((reloads,))
        trigger.close()
        await self._leave()
        return self._code

    def status(self) -> Status:
        local, remote = self._sender.running
        work = self._listeners.active + local + remote
        process = Process("openqmail", os.getpid(), os.getuid(), 1, _resident(), work)
        return Status(
            v=1,
            state=self._state,
            pid=os.getpid(),
            version=__version__,
            since=self._since,
            listen=[{"service": name, "address": where} for name, where in self._listeners.addresses()],
            queue=self._queue.totals(),
            running={"local": local, "remote": remote},
            processes=[process],
        )

    # --- signals ----------------------------------------------------------------------

    def _handle_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._terminate)
        self._loop.add_signal_handler(signal.SIGHUP, self._reloading.set)
        self._loop.add_signal_handler(signal.SIGALRM, self._sender.flush)

    def _terminate(self) -> None:
        """The first time: finish what is under way; again: end at once."""
        if self._draining.is_set():
            self._hurried.set()
        self._draining.set()

    async def _reload_when_told(self) -> None:
        """One reload after the other; what is told meanwhile is one more."""
        while True:
            await self._reloading.wait()
            self._reloading.clear()
            await self._take_settings()

    async def _take_settings(self) -> None:
        """All of the new settings, or none of them."""
        before, hooks = self._settings, self._hooks
        try:
            self._settings = read_settings(self._home)
            self._hooks = self._load_hooks(self._settings)
            await self._listeners.apply(self._settings.listen)
        except OpenqmailError as error:
            self._settings, self._hooks = before, hooks
            self._log(Alert(f"the settings stay as they were: {error}"))
            return
        self._routes = Routes(self._settings)
        self._gate.reconfigure({CONNECTIONS: self._settings.concurrencyincoming})
        self._local.reconfigure(self._settings)
        self._remote.reconfigure(self._settings)
        self._sender.reconfigure(self._settings)
        self._log(Notice("took the new settings"))

    def _place(self, recipient: bytes) -> tuple[Channel, bytes]:
        """For the queue, by the settings of the moment."""
        return self._routes.place(recipient)

    def _report(self, sentence: str) -> None:
        self._log(Alert(sentence))

    def _fatal(self, error: BaseException) -> None:
        self._log(Alert(f"the queue cannot be written to: {error}; ending"))
        self._code = 111
        self._draining.set()
        self._hurried.set()

    # --- the end ----------------------------------------------------------------------

    async def _leave(self) -> None:
        """What is under way may end, and what stays goes to qmail's layout, for `DRAIN` seconds in
        all or until told to end at once."""
        until = self._loop.time() + DRAIN
        self._state = "draining"
        self._listeners.drain()
        if not await self._in_time(self._drained(), until):
            self._log(Notice("ending with work under way: it will be tried again after the next start"))
        self._listeners.abort()
        self._sender.stop()
        await self._remote.close()
        await self._local.close()
        await self._in_time(self._queue.close(), until)
        await self._settle(until)
        await self._store.close()
        self._admin.close()
        self._log(Exiting())

    async def _in_time(self, work: Coroutine[Any, Any, T], until: float) -> T | None:
        """What the work gives; None when it was broken off, at `until` or when told to end at once."""
        task = self._loop.create_task(work)
        hurried = self._loop.create_task(self._hurried.wait())
        left = max(until - self._loop.time(), 0.0)
        await asyncio.wait((task, hurried), timeout=left, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if task.done():
            return task.result()
        task.cancel()
        return None

    async def _settle(self, until: float) -> None:
        """Everything that can be moved to qmail's layout is; the rest stays where it is as safe."""
        if not self._hurried.is_set():
            await self._in_time(self._store.settle(), until)
        left = self._store.unsettled()
        if not left:
            return
        self._log(Notice(f"{left} messages stay in the journal; 'openqmail queue settle' moves them"))
        self._code = self._code or 111

    async def _drained(self) -> bool:
        while self._listeners.active:
            await asyncio.sleep(_LOOK_AGAIN)
        await self._sender.drain()
        return True

    # --- parts ------------------------------------------------------------------------

    def _context(self, listener: Listener) -> ServiceContext:
        return ServiceContext(
            listener=listener,
            settings=self._settings,
            submission=self._sender,
            gate=self._gate,
            hooks=self._hooks,
            log=self._log,
            clock=self._clock,
        )

    def _load_hooks(self, settings: Settings) -> HookChain:
        context = HookContext(settings, self._log, self._clock)
        named = [(name, extensions.load("openqmail.hooks", name)(context)) for name in settings.hooks]
        return HookChain(named, self._log)


def _resident() -> int:
    """Bytes of memory that this process holds, 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as table:
            return int(table.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
