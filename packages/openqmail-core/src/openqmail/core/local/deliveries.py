"""Serves the port `LocalDelivery`: users/cdb, then `alias`, then their `.qmail` files.

A small message is delivered at once, on the loop, so its future is done when it is handed
out; a large one, and a repeated one, in a thread.  `sync` has a thread of its own.  Everything
runs as the owner of the home, whatever uid users/cdb names.  Texts of reports are
qmail-local's.  A delivery that cannot be made is a deferral, never an exception.
"""

import asyncio
import os
from asyncio import AbstractEventLoop, Future
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Protocol

from openqmail.core.control.assign import User, Users
from openqmail.core.control.home import Home
from openqmail.core.control.settings import Settings
from openqmail.core.dotqmail import Plan, interpret
from openqmail.core.local.durability import Device, Durability, device_of
from openqmail.core.local.home import check_home, look
from openqmail.core.local.maildir import Maildirs, host_part, stem
from openqmail.core.message import delivered_to, has_line, qmail_date, return_path
from openqmail.core.ports import Forward, LocalJob, LocalReport, Written
from openqmail.core.values import Body, OpenqmailError, Outcome, Result
from openqmail.core.world import Clock, Disk

THREADS = 4
"""For large messages and repeated deliveries."""

HEADER = 1 << 20
"""Bytes of a large message in which its header is looked for."""

LOOPING = Result(Outcome.FAILURE, b"This message is looping: it already has my Delivered-To line. (#5.4.6)\n")
NO_MAILDIR = Result(Outcome.DEFERRAL, b"Unable to chdir to maildir. (#4.2.1)\n")
NOT_WRITTEN = Result(Outcome.DEFERRAL, b"Temporary error on maildir delivery. (#4.3.0)\n")
UNREADABLE = Result(Outcome.DEFERRAL, b"Unable to read message. (#4.3.0)\n")


class Directory(Protocol):
    """Who has a local part; `control.Users` is one."""

    def find(self, local: bytes) -> User | None: ...


class LocalDeliveries:
    """Deliveries to the users of one home."""

    def __init__(
        self,
        home: Home,
        settings: Settings,
        disk: Disk,
        clock: Clock,
        users: Directory | None = None,
        device: Device = device_of,
    ) -> None:
        self._alias = os.fsencode(home.alias)
        self._users: Directory = users or Users(os.path.join(home.users, "cdb"))
        self._disk = disk
        self._clock = clock
        self._durability = Durability(disk, clock, device)
        self._maildirs = Maildirs(disk, clock, self._durability)
        self._pool = ThreadPoolExecutor(THREADS, "local")
        self._syncer = ThreadPoolExecutor(1, "sync")
        self._loop: AbstractEventLoop = asyncio.get_running_loop()
        self._uid, self._pid = os.getuid(), os.getpid()
        self.reconfigure(settings)

    def reconfigure(self, settings: Settings) -> None:
        """From the next delivery on."""
        self._default = settings.defaultdelivery
        self._host = host_part(settings.me)

    # --- the port ---------------------------------------------------------------------

    def deliver(self, job: LocalJob) -> "Future[LocalReport]":
        """One attempt for one recipient."""
        plan, home = self._plan(job.recipient)
        if plan.refusal is not None:
            report = LocalReport(plan.refusal)
        elif job.again or job.body.data is None:
            return self._loop.run_in_executor(self._pool, self._carry_out, job, plan, home)
        else:
            report = self._carry_out(job, plan, home)
        future: Future[LocalReport] = self._loop.create_future()
        future.set_result(report)
        return future

    def sync(self, written: Sequence[Written]) -> "Future[tuple[bool, ...]]":
        """Make files durable, with their names."""
        return self._loop.run_in_executor(self._syncer, self._durability.sync, tuple(written))

    async def close(self) -> None:
        """Returns when what runs in a thread has ended."""
        for pool in (self._pool, self._syncer):
            await asyncio.to_thread(pool.shutdown)
        self._durability.close()

    # --- deciding ---------------------------------------------------------------------

    def _plan(self, recipient: bytes) -> tuple[Plan, bytes]:
        """What to do for an address, and in whose home."""
        local = recipient.rpartition(b"@")[0] if b"@" in recipient else recipient
        try:
            user = self._users.find(local)
        except (OSError, OpenqmailError):
            return _deferred(b"Trouble reading users/cdb. (#4.3.0)\n"), b""
        if user is None:
            home, dash, ext = self._alias, b"-", local
        else:
            home, dash, ext = user.home, user.dash, user.ext
        problem = check_home(home)
        if problem:
            return _deferred(problem), home
        return interpret(partial(look, home), dash, ext, self._default), home

    # --- carrying out -----------------------------------------------------------------

    def _carry_out(self, job: LocalJob, plan: Plan, home: bytes) -> LocalReport:
        """Deliveries in order, then the forward; the first that cannot be made ends it.

        Files of an attempt that ends so stay, and are recognised by the next."""
        line = delivered_to(job.recipient)
        try:
            if has_line(_header(job.body), line):
                return LocalReport(LOOPING)
        except (OSError, OpenqmailError, KeyError):
            return LocalReport(UNREADABLE)
        written: list[Written] = []
        if plan.deliveries:
            head = return_path(job.sender) + line
            for ordinal, delivery in enumerate(plan.deliveries):
                path = _absolute(home, delivery.path)
                failed = self._to_maildir(job, path, stem(job, delivery.path, ordinal), head, written)
                if failed is not None:
                    return LocalReport(failed)
        text = b"did %d+%d+0\n" % (len(plan.deliveries), len(plan.forwards))
        if not plan.forwards:
            return LocalReport(Result(Outcome.SUCCESS, text), tuple(written))
        result = Result(Outcome.SUCCESS, b"%sqp %d\n" % (text, self._pid))
        return LocalReport(result, tuple(written), Forward(job.sender, plan.forwards, self._hop() + line))

    def _to_maildir(
        self, job: LocalJob, path: bytes, name: bytes, head: bytes, written: list[Written]
    ) -> Result | None:
        """Why it could not be written; None when it was."""
        put = self._maildirs.write_once if job.again else self._maildirs.write
        try:
            file = put(path, name, self._host, head, job)
        except (OSError, OpenqmailError, KeyError):
            self._durability.forget(path)
            return NOT_WRITTEN if self._is_there(path) else NO_MAILDIR
        if file is not None:
            written.append(file)
        return None

    def _is_there(self, folder: bytes) -> bool:
        try:
            self._disk.names(folder)
        except OSError:
            return False
        return True

    def _hop(self) -> bytes:
        """The trace field of a message that is queued by this process."""
        date = qmail_date(self._clock.now())
        return b"Received: (qmail %d invoked by uid %d); %s\n" % (self._pid, self._uid, date)


def _deferred(text: bytes) -> Plan:
    return Plan(refusal=Result(Outcome.DEFERRAL, text))


def _absolute(home: bytes, path: bytes) -> bytes:
    return path if path.startswith(b"/") else home + b"/" + path.removeprefix(b"./")


def _header(body: Body) -> bytes:
    """The beginning of the message, with all of its header."""
    if body.data is not None:
        return body.data
    head = b""
    for chunk in body.chunks():
        head += chunk
        if b"\n\n" in head or len(head) > HEADER:
            break
    return head
