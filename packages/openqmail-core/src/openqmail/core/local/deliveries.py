"""Serves the ports `LocalDelivery` and `RecipientCheck`: users/cdb, then `alias`, then their `.qmail` files.

A small message is delivered to Maildirs at once, on the loop, so its future is done when it is
handed out; a large one, a repeated one, one whose files are synced and one for an mbox, by
workers.  `sync` has a worker of its own.  Everything runs as the user of this process, whatever uid
users/cdb names.  Texts of reports are qmail-local's.  A delivery that cannot be made is a deferral,
never an exception.
"""

import asyncio
import os
from asyncio import Future
from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import msgspec

from openqmail.core.control.assign import Directory, Users
from openqmail.core.control.home import Home
from openqmail.core.control.settings import Settings
from openqmail.core.local.durability import Durability
from openqmail.core.local.home import word_of
from openqmail.core.local.maildir import Maildirs, host_part, stem
from openqmail.core.local.mbox import Mboxes
from openqmail.core.local.plans import Plans, Task
from openqmail.core.log.escaping import readable
from openqmail.core.message.header import beginning, has_line
from openqmail.core.message.trace import delivered_to, qmail_hop, return_path
from openqmail.core.ports import Forward, LocalJob, LocalReport, Told, Written
from openqmail.core.values import OpenqmailError, Outcome, Result
from openqmail.core.world import Clock, Disk, ThreadWorkers, Workers

THREADS = 4
"""For large messages, repeated deliveries and files that are synced singly."""

HEADER = 1 << 20
"""Bytes of a large message in which its header is looked for."""

ALONG = 0.05
"""Seconds that one who is checked waits for others that are checked along."""

LOOPING = Result(Outcome.FAILURE, b"This message is looping: it already has my Delivered-To line. (#5.4.6)\n")
NO_MAILDIR = Result(Outcome.DEFERRAL, b"Unable to chdir to maildir. (#4.2.1)\n")
NOT_WRITTEN = Result(Outcome.DEFERRAL, b"Temporary error on maildir delivery. (#4.3.0)\n")
UNREADABLE = Result(Outcome.DEFERRAL, b"Unable to read message. (#4.3.0)\n")

# Senders and recipients come again.
_return_path = lru_cache(1024)(return_path)
_delivered_to = lru_cache(4096)(delivered_to)


class LocalDeliveries:
    """Deliveries to the users of one home."""

    def __init__(
        self,
        home: Home,
        settings: Settings,
        disk: Disk,
        clock: Clock,
        users: Directory | None = None,
        workers: Callable[[int, str], Workers] | None = None,
    ) -> None:
        """`users`: who is here, by default as users/cdb says; `workers`: makes workers, so many
        of that name, by default threads."""
        self._loop = asyncio.get_running_loop()
        workers = workers or partial(ThreadWorkers, self._loop)
        users = users or Users(os.path.join(home.users, "cdb"))
        self._plans = Plans(users, os.fsencode(home.alias), disk, clock)
        self._disk = disk
        self._clock = clock
        self._durability = Durability(disk, clock)
        self._maildirs = Maildirs(disk, clock, self._durability)
        self._mboxes = Mboxes(disk, clock)
        self._pool = workers(THREADS, "local")
        self._syncer = workers(1, "sync")
        self._uid, self._pid = os.getuid(), os.getpid()
        self.reconfigure(settings)

    def reconfigure(self, settings: Settings) -> None:
        """From the next delivery on."""
        self._plans.reconfigure(settings.defaultdelivery)
        self._host = host_part(settings.me)

    # --- the ports --------------------------------------------------------------------

    def deliver(self, job: LocalJob) -> "Future[LocalReport]":
        """One attempt for one recipient."""
        task = self._plans.task(job.recipient)
        if task.refused:
            report = LocalReport(task.result)
        elif job.synced or job.again or task.waits or job.body.data is None:
            return self._pool.run(self._carry_out, job, task)
        else:
            report = self._carry_out(job, task)
        future: Future[LocalReport] = self._loop.create_future()
        future.set_result(report)
        return future

    def sync(self, written: Sequence[Written]) -> "Future[tuple[bool, ...]]":
        """Make files durable, with their names."""
        return self._syncer.run(self._durability.sync, tuple(written))

    def check(self, recipients: Sequence[bytes]) -> "Future[Told]":
        """What the plan of a delivery would be, at once."""
        told: dict[bytes, Result | None] = {}
        until = self._clock.monotonic() + ALONG
        for recipient in recipients:
            task = self._plans.task(recipient)
            told[recipient] = task.result if task.refused else None
            if self._clock.monotonic() > until:  # the first waits for the others
                break
        future: Future[Told] = self._loop.create_future()
        future.set_result(told)
        return future

    async def close(self) -> None:
        """Returns when what runs in a thread has ended."""
        await self._pool.close()
        await self._syncer.close()
        self._durability.close()

    # --- carrying out -----------------------------------------------------------------

    def _carry_out(self, job: LocalJob, task: Task) -> LocalReport:
        """Deliveries in order, then the forward; the first that cannot be made ends it.

        Files of an attempt that ends so stay, and are recognised by the next; an mbox gets the
        message again, as from qmail-local."""
        line = _delivered_to(job.recipient)
        try:
            if has_line(beginning(job.body, HEADER), line):
                return LocalReport(LOOPING)
        except (OSError, OpenqmailError, KeyError):
            return LocalReport(UNREADABLE)
        head = _return_path(job.sender) + line
        put = self._writing(job)
        written: tuple[Written, ...] = ()
        for ordinal, box in enumerate(task.boxes):
            path = box.path
            if box.mbox:
                refused = self._mboxes.append(path, box.shown, job.sender, head, job.body)
                if refused is not None:
                    return LocalReport(refused)
                continue
            try:
                file = put(path, stem(job, box.shown, ordinal), self._host, head, job.body, job.delivery)
            except (OSError, OpenqmailError, KeyError) as error:
                self._durability.forget(path)
                return LocalReport(_not_written(path, error) if self._is_there(path) else NO_MAILDIR)
            if file is not None:
                written += (file,)
        if not task.forwards:
            return LocalReport(task.result, written)
        result = Result(Outcome.SUCCESS, b"%sqp %d\n" % (task.result.text, self._pid))
        return LocalReport(result, written, Forward(job.sender, task.forwards, self._hop() + line))

    def _writing(self, job: LocalJob) -> "Callable[..., Written | None]":
        """How its files are written."""
        if job.again:
            return partial(self._maildirs.write_once, synced=job.synced)
        return self._maildirs.write_durably if job.synced else self._maildirs.write

    def _is_there(self, folder: bytes) -> bool:
        try:
            self._disk.names(folder)
        except OSError:
            return False
        return True

    def _hop(self) -> bytes:
        """The trace field of a message that is queued by this process."""
        return qmail_hop(self._pid, b"by uid %d" % self._uid, self._clock.now())


def _not_written(path: bytes, error: Exception) -> Result:
    """The sender reads what qmail-local says, the administrator's log why."""
    why = (
        word_of(error).decode()
        if isinstance(error, OSError)
        else str(error).encode(errors="replace").decode()
    )
    return msgspec.structs.replace(NOT_WRITTEN, why=f"{readable(path)} cannot be written to: {why}")
