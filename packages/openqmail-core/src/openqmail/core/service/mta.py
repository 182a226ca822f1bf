"""One MTA in one process: builds the jobs, introduces them to each other, lives and ends.

Every port is a direct call here: for tests, for trials, and to be embedded; `openqmail run` has a
process for each job (see supervisor/).  TERM drains and ends (a second one at once), HUP swaps
the settings whole, ALRM tries everything now.  In a thread that is not the main one, which gets no
signals, the methods of these names do the same (see testing/).
"""

import asyncio
import os
import signal
import threading
import time
from contextlib import suppress

from openqmail.core.__about__ import __version__
from openqmail.core.control.home import Home
from openqmail.core.control.reader import read_settings
from openqmail.core.control.settings import Listener, Settings
from openqmail.core.dns import Resolver
from openqmail.core.gate import Gatehouse
from openqmail.core.hooks import load_chain
from openqmail.core.local import LocalDeliveries
from openqmail.core.log import Alert, Exiting, Log, Notice
from openqmail.core.ports import QueueAdmin, ServiceContext
from openqmail.core.queue import SendMutex
from openqmail.core.remote import Keys, Remote, Timeouts, tcpto
from openqmail.core.service.admin import AdminSocket
from openqmail.core.service.checking import DirectChecks
from openqmail.core.service.frames.supervision import Process, State
from openqmail.core.service.listeners import Listeners
from openqmail.core.service.programs import ProgramRunner
from openqmail.core.service.queueing import Ending, Queueing
from openqmail.core.service.sockets import Bound, addresses, bind, bind_local, unlink_local
from openqmail.core.service.status import Status, resident, serving, status_of
from openqmail.core.service.supervisor.machine import DRAIN
from openqmail.core.service.waiting import until
from openqmail.core.service.watch import CHANGED, Watch
from openqmail.core.smtpd import client_resolver
from openqmail.core.tls import ServerTls
from openqmail.core.values import OpenqmailError
from openqmail.core.world import Clock, Disk


class Mta:
    """The service of one home, whose lock the caller holds.  `serve` returns the exit code when all
    has ended.  `resolver`: who knows where mail goes, by default the name servers of the settings."""

    def __init__(
        self,
        home: Home,
        settings: Settings,
        disk: Disk,
        clock: Clock,
        log: Log,
        salvage: bool,
        resolver: Resolver | None = None,
    ) -> None:
        self._home = home
        self._settings = settings
        self._clock = clock
        self._log = log
        self._since = int(clock.now())
        self._state = "starting"
        self._code = 0
        self._loop = asyncio.get_running_loop()
        self.serving = asyncio.Event()
        self._draining = asyncio.Event()
        self._hurried = asyncio.Event()
        self._reloading = asyncio.Event()
        self._one_reload = asyncio.Lock()
        self._bound: Bound = {}
        self._programs = ProgramRunner(home.path)
        self._hooks = load_chain(settings, log, clock, "smtpd", self._programs)
        self._outbound = load_chain(settings, log, clock, "remote")
        self._tls = ServerTls.load(home.control, settings.me, settings.tlsserverciphers)
        self._watch = Watch(home.control, time.monotonic())
        self._checks = DirectChecks(home, settings)
        self._gatehouse = Gatehouse(home, settings, self._checks, clock, log)
        self._local = LocalDeliveries(home, settings, disk, clock)
        self._remote = Remote(
            settings,
            log,
            resolver=resolver,
            timeouts=Timeouts(tcpto.open_file(home.queue)),
            keys=Keys.load(home.control, settings),
            hooks=self._outbound,
        )
        self._queueing = Queueing(
            home, settings, disk, clock, log, self._local, self._remote, self._fatal, salvage
        )
        self._listeners = Listeners(self._context)
        self._admin = AdminSocket(
            self._queueing.admin, self._tell_status, lambda text: log(Alert(text)), self._gatehouse.gate
        )

    async def serve(self) -> int:
        """Recover, listen, say so; until a signal ends it.

        Raises QueueDamaged, HomeError, ControlError before it serves."""
        mutex = SendMutex(os.fsencode(self._home.queue))
        try:
            found = self._queueing.start()
            await self._gatehouse.start()
            self._bound = bind(self._settings.listen, {})
            await self._admin.serve(bind_local(self._home, "admin", 0o600))
            await self._listeners.serve(self._bound, bind_local(self._home, "submit", 0o600))
            if threading.current_thread() is threading.main_thread():
                self._handle_signals()
            self._state = "serving"
            if self._settings.metrics:
                self._log(Notice("control/metrics has no effect where one process does everything"))
            self._log(Notice(serving(self._home, addresses(self._bound), os.getpid(), found)))
            self.serving.set()
            reloads = self._loop.create_task(self._reload_when_told())
            await self._draining.wait()
            reloads.cancel()  # a service that is told to end opens nothing any more
            await asyncio.wait((reloads,))
            await self._leave()
        finally:
            mutex.close()
        return self._code

    def status(self) -> Status:
        local, remote = self._queueing.sender.running
        work = self._listeners.active + local + remote
        process = Process("openqmail", os.getpid(), os.getuid(), 1, resident(os.getpid()), work)
        listen = tuple(addresses(self._bound))
        state = State(self._state, os.getpid(), self._since, listen, (process,))
        return status_of(self._queueing, __version__, state)

    @property
    def queue(self) -> QueueAdmin:
        return self._queueing.admin

    async def _tell_status(self) -> Status:
        return self.status()

    # --- signals ----------------------------------------------------------------------

    def _handle_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self.terminate)
        self._loop.add_signal_handler(signal.SIGHUP, self._reloading.set)
        self._loop.add_signal_handler(signal.SIGALRM, self.flush)

    def terminate(self) -> None:
        """The first time: finish what is under way; again: end at once."""
        if self._draining.is_set():
            self._hurried.set()
        self._draining.set()

    def flush(self) -> None:
        """Make every deferred message due now."""
        self._queueing.sender.flush()

    async def reload(self) -> None:
        """All of the new settings, or none of them.  Raises OpenqmailError."""
        async with self._one_reload:
            await self._take_settings()

    async def _reload_when_told(self) -> None:
        """One reload after the other; what is told meanwhile is one more."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._reloading.wait(), self._watch.wait(time.monotonic()))
            if self._watch.changed(time.monotonic()):
                self._log(Notice(CHANGED))
                self._reloading.set()
            if not self._reloading.is_set():
                continue
            self._reloading.clear()
            try:
                await self.reload()
            except OpenqmailError as error:
                self._log(Alert(f"the settings stay as they were: {error}"))

    async def _take_settings(self) -> None:
        before, hooks, tls = self._settings, self._hooks, self._tls
        try:
            self._settings = read_settings(self._home)
            self._hooks = load_chain(self._settings, self._log, self._clock, "smtpd", self._programs)
            outbound = load_chain(self._settings, self._log, self._clock, "remote")
            load_chain(self._settings, self._log, self._clock, "send")
            self._tls = ServerTls.load(self._home.control, self._settings.me, self._settings.tlsserverciphers)
            keys = Keys.load(self._home.control, self._settings)
            bound = bind(self._settings.listen, self._bound)
            await self._listeners.serve(bound)
        except OpenqmailError:
            self._settings, self._hooks, self._tls = before, hooks, tls
            raise
        self._bound = bound
        self._checks.reconfigure(self._settings)
        self._gatehouse.reconfigure(self._settings)
        self._local.reconfigure(self._settings)
        self._outbound = outbound
        self._remote.reconfigure(self._settings, outbound, keys)
        self._queueing.reconfigure(self._settings)
        self._log(Notice("took the new settings"))

    def _fatal(self, error: BaseException) -> None:
        self._code = 111
        self._draining.set()
        self._hurried.set()

    # --- the end ----------------------------------------------------------------------

    async def _leave(self) -> None:
        """What is under way may end, and what stays goes to qmail's layout, for `DRAIN` seconds in
        all or until told to end at once."""
        ending = Ending(DRAIN, self._hurried)
        self._state = "draining"
        self._listeners.drain()
        if not await ending.wait(self._drained()):
            self._queueing.sender.stop(abandon=True)
            self._log(Notice("ending with work under way: it will be tried again after the next start"))
        self._listeners.abort()
        await ending.wait(self._hooks_have_heard())
        await self._gatehouse.close()
        await self._programs.close()
        await self._remote.close()
        await self._local.close()
        if not await self._queueing.close(ending, settle=True):
            self._code = self._code or 111
        self._admin.close()
        unlink_local(self._home, "admin", "submit")
        self._log(Exiting())

    async def _drained(self) -> bool:
        await until(lambda: not self._listeners.active)
        return await self._queueing.drained()

    async def _hooks_have_heard(self) -> None:
        """Of each session's end, and of what became of the mail."""
        await until(lambda: not (self._hooks.busy or self._outbound.busy))

    # --- parts ------------------------------------------------------------------------

    def _context(self, listener: Listener) -> ServiceContext:
        return ServiceContext(
            listener=listener,
            settings=self._settings,
            submission=self._queueing.sender,
            gate=self._gatehouse.gate,
            hooks=self._hooks,
            log=self._log,
            clock=self._clock,
            recipients=self._local if self._settings.checkrcpt else None,
            resolver=client_resolver(self._settings),
            tls=self._tls,
        )
