"""The whole MTA but its sockets, on a simulated disk, clock, loop and workers.

A `Machine` is what outlives a process: disk and clock, the hosts and users around it, and a
ledger of what they were promised and what they got.  A `Process` is one life of the service
on it.  Everything that is drawn is drawn from one seed.
"""

import asyncio
import os
from collections import Counter
from random import Random
from types import SimpleNamespace

from openqmail.core.control.assign import User
from openqmail.core.control.rules import Rules
from openqmail.core.control.settings import Settings
from openqmail.core.local import LocalDeliveries
from openqmail.core.log import MemoryLog
from openqmail.core.queue import Limits, LocalStore
from openqmail.core.send import Routes, Sender, SendManager, StoredQueue
from openqmail.core.values import Outcome, Result
from openqmail.core.world.simulated import (
    SimulatedClock,
    SimulatedDisk,
    SimulatedLoop,
    SimulatedWorkers,
)

QUEUE = b"/home/queue"
USERS = (b"alice", b"bob", b"back", b"postmaster", b"teller")
SMALL = Limits(segment=20_000, reserve=3_000, journal=100_000, memory=5_000, look_every=20.0)

SETTINGS = Settings(
    me=b"here.test",
    listen=(),
    rules=Rules({}),
    rcpthosts=frozenset({b"here.test"}),
    smtpgreeting=b"here.test",
    databytes=0,
    maxrecipients=100,
    concurrencyincoming=20,
    timeoutsmtpd=1200,
    hooks=(),
    envnoathost=b"here.test",
    percenthack=frozenset(),
    locals=frozenset({b"here.test"}),
    virtualdomains={b"virtual.test": b"alice-v"},
    concurrencylocal=4,
    concurrencyremote=4,
    concurrencydestination=4,
    queuelifetime=100_000,
    bouncefrom=b"MAILER-DAEMON",
    bouncehost=b"here.test",
    doublebounceto=b"postmaster",
    doublebouncehost=b"here.test",
    defaultdelivery=b"./Maildir/\n",
    helohost=b"here.test",
    smtproutes={},
    resolvers=(),
    timeoutconnect=60,
    timeoutremote=1200,
)


class Loop(SimulatedLoop):
    """What is handed to a thread is done at once; a promise that is broken in a callback ends the history."""

    def call_exception_handler(self, context):
        error = context.get("exception")
        if isinstance(error, AssertionError):
            self.cut(error)
        else:
            super().call_exception_handler(context)

    def run_in_executor(self, executor, func, *arguments):
        future = self.create_future()
        try:
            future.set_result(func(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future


class Users:
    """Who is here: a user's name, or the name and a dash and anything."""

    def find(self, local):
        name, dash, ext = local.lower().partition(b"-")
        if name not in USERS:
            return None
        return User(name, 1000, 1000, b"/home/" + name, dash, ext)


class Ledger:
    """What the world outside was told, and what it got.

    `accepted`: promised messages by id; `arrived`: (id, address) as often as a host took it;
    `closed`: ids whose end is on the disk; `events`: what happened, for a story that failed."""

    def __init__(self):
        self.accepted = {}
        self.asked = {}
        self.arrived = Counter()
        self.closed = set()
        self.deleted = set()
        self.held = set()
        self.crashes = 0
        self.events = []

    def note(self, *words):
        self.events.append(" ".join(str(word) for word in words))


class Sent:
    """A message: `recipients` are addresses, `text` its body."""

    def __init__(self, name, sender, recipients, text):
        self.name, self.sender, self.recipients, self.text = name, sender, recipients, text


class Hosts:
    """The rest of the world: each address says what becomes of mail to it."""

    def __init__(self, machine, loop):
        self._machine, self._loop = machine, loop

    def deliver(self, job):
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
                results.append(Result(Outcome.DEFERRAL, b"Later.\n"))
            else:
                machine.took(name, address, data)
                results.append(Result(Outcome.SUCCESS, b"Accepted.\n"))
        future.set_result(tuple(results))

    async def close(self):
        pass


class WatchedStore(LocalStore):
    """Notes when a message's end is on the disk: nothing of it may be tried after that."""

    machine = None

    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        self._names = {}

    def _named(self, number):
        if number not in self._names:
            data = b"".join(self.body(number).chunks())
            self._names[number] = name_of(data)
        return self._names[number]

    def _ending(self, number, future):
        name = self._named(number)

        def done(future):
            if not future.cancelled() and future.exception() is None:
                self.machine.ledger.closed.add(name)
                self._names.pop(number, None)

        future.add_done_callback(done)
        return future

    def record(self, number, changes, due, ended, routed=False):
        named = self._named(number) if ended else None
        future = super().record(number, changes, due, ended, routed)
        return self._ending(number, future) if named is not None else future

    def submit(self, envelope, body, closes=None):
        if closes is not None and closes.ended:
            self._named(closes.number)
        future = super().submit(envelope, body, closes)
        return self._ending(closes.number, future) if closes is not None and closes.ended else future


class Machine:
    """`kind`: nothing is deferred any more, so that everything comes to its end."""

    def __init__(self, seed):
        self.chance = Random(seed)
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

    def took(self, name, address, data):
        sent = self.ledger.asked[name.rpartition(" ")[2]]
        assert data.endswith(sent.text), f"message {name} was changed on its way to {address!r}"
        assert name not in self.ledger.closed, f"message {name} came back after its end was on the disk"
        self.ledger.arrived[name, address] += 1


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

    def __init__(self, machine, loop, limits=SMALL):
        self.machine, self.loop = machine, loop
        disk, clock, chance = machine.disk, machine.clock, machine.chance

        def workers(count, name):
            return SimulatedWorkers(loop, chance, count, loop.cut)

        self.fatal = []
        self.lost = asyncio.Event()
        self.log = MemoryLog()
        self.reports = []
        self.store = WatchedStore(
            disk,
            clock,
            QUEUE,
            self._give_up,
            route=Routes(SETTINGS).place,
            report=self.reports.append,
            limits=limits,
            loop=loop,
            workers=workers,
            entropy=chance.randbytes,
        )
        self.store.machine = machine
        home = SimpleNamespace(users="/home/users", alias="/home/alias")
        self.local = LocalDeliveries(home, SETTINGS, disk, clock, Users(), workers)
        self.remote = Hosts(machine, loop)
        manager = SendManager(SETTINGS, 1, chance.randrange(1 << 30))
        self.sender = Sender(manager, self.store, self.local, self.remote, SETTINGS, clock, self.log)
        self.admin = StoredQueue(self.store, lambda: SETTINGS, self.sender, clock, self.log)

    def _give_up(self, error):
        self.fatal.append(error)
        self.lost.set()

    def start(self):
        self.sender.start()

    async def stop(self):
        """As the service does on TERM; how many messages stay in the journal."""
        await self.sender.drain()
        await self.local.close()
        await self.admin.close()
        left = await self.store.settle()
        await self.store.close()
        return left


def name_of(data):
    """Which message this is: the name of what somebody sent, and before it what was made of it."""
    at = data.rfind(b"\nX-Name: ")
    assert at >= 0, f"a message without a name: {data[:200]!r}"
    own = data[at + 9 :].partition(b"\n")[0].decode()
    bounces = data[:at].count(b"This is the qmail-send program")
    forwarded = b"Delivered-To: teller@here.test\n" in data[:at]
    return "bounce of " * bounces + "forward of " * forwarded + own
