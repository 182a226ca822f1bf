"""The whole MTA but its sockets, on a simulated disk, clock, loop and workers.

A `Machine` is what outlives a process: disk and clock, the hosts and users around it, and a
ledger of what they were promised and what they got.  A `Process` is one life of the service
on it.  Everything that is drawn is drawn from one seed.
"""

import asyncio
import os
from functools import partial
from random import Random
from types import SimpleNamespace
from unittest.mock import patch

from ledger import Ledger, name_of
from msgspec import structs
from watched import WatchedLocal, WatchedStore

from openqmail.core.control.assign import User
from openqmail.core.control.reader import defaults
from openqmail.core.log import MemoryLog
from openqmail.core.queue import Limits
from openqmail.core.send import Routes, Sender, SendManager, StoredQueue
from openqmail.core.values import Outcome, Result
from openqmail.core.world.simulated import (
    PowerCut,
    SimulatedClock,
    SimulatedDisk,
    SimulatedLoop,
    SimulatedWorkers,
)

QUEUE = b"/home/queue"
USERS = (b"alice", b"bob", b"back", b"postmaster", b"teller")
SMALL = Limits(segment=20_000, reserve=3_000, journal=100_000, memory=5_000, look_every=20.0)
FEW = structs.replace(SMALL, numbers=4)
"""Each number comes again soon."""

SETTINGS = defaults(
    b"here.test",
    virtualdomains={b"virtual.test": b"alice-v"},
    concurrencylocal=4,
    concurrencyremote=4,
    concurrencydestination=4,
    queuelifetime=100_000,
)

DSN = structs.replace(SETTINGS, bounceformat="dsn")
"""The same, with reports of the form of RFC 3464."""


class Loop(SimulatedLoop):
    """What is handed to a thread is done at once.

    What a callback or a task raises and nobody handles ends the loop: who runs it gets it raised,
    where asyncio would log it and go on.  Unless `over`, or after a cut, when nothing counts."""

    def __init__(self, clock):
        super().__init__(clock)
        self.over = False
        self._error = None

    def run_in_executor(self, executor, func, *arguments):
        future = self.create_future()
        try:
            future.set_result(func(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future

    def fail(self, error):
        self._error = self._error or error
        self.stop()

    def call_exception_handler(self, context):
        error = context.get("exception")
        if error is None or isinstance(error, PowerCut):
            super().call_exception_handler(context)
        elif not isinstance(error, Exception) or not (self.over or self.is_cut):
            self.fail(error)

    def run_forever(self):
        try:
            super().run_forever()
        finally:
            error, self._error = self._error, None
            if error is not None:
                raise error


class Users:
    """Who is here: a user's name, or the name and a dash and anything."""

    def find(self, local):
        name, dash, ext = local.lower().partition(b"-")
        if name not in USERS:
            return None
        return User(name, 1000, 1000, b"/home/" + name, dash, ext)


class Hosts:
    """The rest of the world: each address says what becomes of mail to it."""

    def __init__(self, machine, loop):
        self._machine, self._loop = machine, loop

    def deliver(self, job):
        name = name_of(b"".join(job.body.chunks()))
        for address in job.recipients:
            self._machine.ledger.tried(name, address)
        future = self._loop.create_future()
        chance = self._machine.chance
        seconds = chance.random() * (3 if chance.random() < 0.8 else 300)
        self._loop.call_later(seconds, self._answer, job, future)
        return future

    def _answer(self, job, future):
        machine = self._machine
        if future.done() or self._loop.is_cut:
            return
        results = []
        data = b"".join(job.body.chunks())
        name = name_of(data)
        for address in job.recipients:
            word = address.split(b"-")[0]
            if word == b"fail":
                results.append(Result(Outcome.FAILURE, b"No such user here.\n"))
            elif word == b"defer" and not machine.kind and machine.chance.random() < 0.7:
                whole = address.endswith(b"@else.test")  # this host fails as one, the others by recipient
                results.append(Result(Outcome.DEFERRAL, b"Later.\n", host=whole))
            else:
                machine.ledger.took(name, address, data)
                results.append(Result(Outcome.SUCCESS, b"Accepted.\n"))
        future.set_result(tuple(results))

    async def close(self):
        pass


class BusyWorkers(SimulatedWorkers):
    """They answer late: other large bodies are synced meanwhile."""

    def __init__(self, loop, random, *how):
        super().__init__(loop, random, *how)
        self._late, self._chance = loop.call_later, random

    def do(self, then, call, *arguments):
        super().do(partial(self._late, self._chance.random() * 2, then), call, *arguments)


class Machine:
    """`limits`: of its queue; `is_busy`: its threads for large bodies are; `is_small`: its disk is, in
    all lives but the last; `kind`: nothing is deferred any more, so that everything comes to its end."""

    def __init__(self, seed):
        self.settings = DSN if seed % 2 else SETTINGS
        self.chance = Random(seed)
        self.limits = FEW if self.chance.random() < 0.3 else SMALL
        self.is_small = self.chance.random() < 0.2
        self.is_busy = self.chance.random() < 0.4
        self.clock = SimulatedClock()
        self.ledger = Ledger()
        self.kind = False
        ordered, whole = self.chance.random() < 0.6, self.chance.random() < 0.7
        self.disk = SimulatedDisk(self.chance, self.clock, ordered=ordered, whole=whole)
        for folder in (b"/home", QUEUE, b"/home/alias", b"/home/users"):
            self.disk.make(folder)
        for user in USERS:
            for below in (b"", b"/Maildir", b"/Maildir/tmp", b"/Maildir/new", b"/Maildir/cur"):
                self.disk.make(b"/home/" + user + below)
        self.disk.make(b"/home/teller/.qmail", b"&ok-forwarded@there.test\n&alice@here.test\n", 0o644)


def copied(disk, random, clock):
    """The same files on another disk: names that were inodes are inodes no more."""
    other = SimulatedDisk(random, clock, ordered=disk._ordered, whole=disk._whole)
    for number in range(random.randrange(60)):  # so that inodes are other ones
        other.make(b"/other/%d" % number, b"")

    def copy(folder):
        for name, is_folder in disk.scan(folder):
            path = os.path.join(folder, name)
            facts = disk.stat(path)
            if is_folder:
                other.make(path)
                copy(path)
            else:
                other.make(path, disk.contents(path)[0], facts.mode & 0o7777)
                other.touch(path, facts.mtime)
                other.sync_file(path)

    other.make(b"/home")
    copy(b"/home")
    return other


class Process:
    """One life of the service."""

    def __init__(self, machine, loop):
        self.machine, self.loop = machine, loop
        disk, clock, chance = machine.disk, machine.clock, machine.chance
        settings = machine.settings

        def workers(count, name):
            if name == "large" and machine.is_busy:
                return BusyWorkers(loop, chance, count, loop.cut)
            return SimulatedWorkers(loop, chance, count, loop.cut)

        self.fatal = []
        self.lost = asyncio.Event()
        self.log = MemoryLog()
        self.reports = []
        place = Routes(SETTINGS).place
        self.store = WatchedStore(
            disk,
            clock,
            QUEUE,
            self._give_up,
            route=place,
            report=self._report,
            limits=machine.limits,
            loop=loop,
            workers=workers,
            entropy=chance.randbytes,
        )
        self.store.watch(machine.ledger, place)
        home = SimpleNamespace(users="/home/users", alias="/home/alias")
        self.remote = Hosts(machine, loop)
        manager = SendManager(settings, 1, chance.randrange(1 << 30))
        pid = chance.randrange(2, 100_000)  # as it stands in texts, it is part of the history
        with patch("os.getpid", lambda: pid), patch("os.getuid", lambda: 1000):
            self.local = WatchedLocal(home, machine.settings, disk, clock, Users(), workers)
            self.sender = Sender(
                manager, self.store, self.local, self.remote, machine.settings, clock, self.log
            )
        self.local.watch(machine.ledger, self.store)
        self.admin = StoredQueue(self.store, lambda: settings, self.sender, clock, self.log)

    def _give_up(self, error):
        self.fatal.append(error)
        self.lost.set()

    def _report(self, sentence):
        self.reports.append(sentence)
        if "is at fault" in sentence:
            self.loop.fail(AssertionError(sentence))

    def start(self):
        self.sender.start()

    async def stop(self):
        """As the service does on TERM; how many messages stay in the journal."""
        await self.sender.drain()
        await self.local.close()
        await self.admin.close()
        left = await self.store.settle()
        await self.store.close()
        broken = [line for line in self.log.lines() if b" broke: " in line]
        assert not broken, broken
        return left
