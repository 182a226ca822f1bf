"""The process of the queue: takes messages in, decides what is next, serves the administrator."""

import asyncio
import os
import time
from contextlib import suppress

from openqmail.core.__about__ import __version__
from openqmail.core.control.reader import read_settings
from openqmail.core.log import Exiting, Notice
from openqmail.core.queue import Locked, SendMutex
from openqmail.core.service.admin import AdminSocket
from openqmail.core.service.frames.lockouts import LockoutsClient
from openqmail.core.service.frames.remote import RemoteClient
from openqmail.core.service.frames.submission import SubmissionServer
from openqmail.core.service.frames.supervision import State
from openqmail.core.service.processes.process import Process, local_client
from openqmail.core.service.queueing import Ending, QueueFigures, Queueing
from openqmail.core.service.status import Status, status_of
from openqmail.core.service.waiting import LOOK_AGAIN
from openqmail.core.values import OpenqmailError
from openqmail.core.world import PosixDisk, UnwaitedThreads

HANDED_OVER = 5.0
"""Seconds that deliveries under way have when another process waits for the queue."""

GONE = 0.5
"""Seconds after which whoever has the lock is no process of ours that was killed."""

LOCKED = 10.0
"""Seconds that the lock of a process which was killed just now may need to come free."""


async def serve(process: Process) -> int:
    """Recover, work, and end as it is told; 111 when something stays in the journal."""
    process.loop.set_default_executor(UnwaitedThreads())  # hooks may use it
    mutex = await _mutex(process)
    try:
        return await _Send(process).serve()
    finally:
        mutex.close()


async def _mutex(process: Process) -> SendMutex:
    """qmail-send's lock.  A process of ours that has just been killed may not be quite gone; for any other
    it is said that we wait, and `status` is answered meanwhile."""
    begun, waiting = process.loop.time(), None
    try:
        while True:
            try:
                return SendMutex(os.fsencode(process.home.queue))
            except Locked as error:
                waited = process.loop.time() - begun
                if waited > LOCKED or process.leaving.is_set():
                    raise
                if waited > GONE and waiting is None:
                    process.log(Notice(f"{error}; waiting for its end, {LOCKED:.0f} seconds at most"))
                    waiting = await _answering(process)
            await asyncio.sleep(LOOK_AGAIN)
    finally:
        if waiting is not None:
            waiting.close()


async def _answering(process: Process) -> AdminSocket:
    """Tells how it goes, and nothing of the queue, on a copy of the socket."""

    async def status() -> Status:
        return status_of(None, __version__, await _state(process))

    waiting = AdminSocket(None, status, process.alert)
    if process.inherited.admin is not None:
        await waiting.serve(process.inherited.admin.dup())
    return waiting


async def _state(process: Process) -> State | None:
    """What the supervisor knows, if it answers."""
    with suppress(TimeoutError):
        async with asyncio.timeout(2.0):
            return await process.ask_state()
    return None


class _Send:
    def __init__(self, process: Process) -> None:
        self._process = process
        home, settings = process.home, process.settings
        self._local = local_client(process.inherited)
        self._remote = RemoteClient()
        self._code = 0
        self._read = process.inherited.read
        """When the settings in force were read."""
        self._queueing = Queueing(
            home,
            settings,
            PosixDisk(),
            process.clock,
            process.log,
            self._local,
            self._remote,
            self._fatal,
            process.inherited.salvage,
        )
        self._submissions = SubmissionServer(self._queueing.sender)
        self._lockouts = LockoutsClient()
        self._admin = AdminSocket(self._queueing.admin, self._status, process.alert, self._lockouts)

    async def serve(self) -> int:
        process = self._process
        note = self._queueing.start()
        process.peers |= {
            "submission": self._submissions.serve,
            "local": self._local.attach,
            "remote": self._remote.attach,
            "lockouts": self._lockouts.attach,
        }
        process.reload = self._reload
        process.flush = self._queueing.sender.flush
        process.work = lambda: sum(self._queueing.sender.running)
        process.figures = QueueFigures(self._queueing).numbers
        if process.inherited.admin is not None:
            await self._admin.serve(process.inherited.admin)
        process.ready(note)
        await process.leave()
        await self._end()
        return self._code

    async def _end(self) -> None:
        """Deliveries under way may end; what follows takes over, or all goes to the layout."""
        process, queueing = self._process, self._queueing
        ending = Ending(HANDED_OVER if process.handover else process.seconds, process.hurried)
        if not await ending.wait(queueing.drained()):
            queueing.sender.stop(abandon=True)
            if queueing.admin.totals().messages and not process.handover:
                process.log(Notice("ending with work under way: it will be tried again after the next start"))
        await self._submissions.leave(HANDED_OVER)
        await self._remote.close()
        await self._local.close()
        if not await queueing.close(ending, settle=not process.handover) and not self._code:
            self._code = 111
        self._admin.close()
        self._lockouts.close()
        if not process.handover:
            process.log(Exiting())

    def _reload(self) -> None:
        read = int(time.time())
        try:
            settings = read_settings(self._process.home)
            self._queueing.reconfigure(settings)
        except OpenqmailError as error:
            self._process.alert(f"the settings stay as they were: {error}")
            return
        self._process.settings = settings
        self._read = read
        self._process.log.form = settings.logformat

    def _fatal(self, error: BaseException) -> None:
        self._code = 111
        self._process.hurried.set()
        self._process.leaving.set()

    async def _status(self) -> Status:
        return status_of(self._queueing, __version__, await _state(self._process), self._read)
