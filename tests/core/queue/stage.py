"""A queue on a simulated disk, and processes that have it open one after the other: all from one seed."""

import asyncio
import os
import stat
from random import Random

from openqmail.core.queue import Change, Limits, LocalStore
from openqmail.core.queue.layout import paths
from openqmail.core.values import Envelope, Outcome, Recipient, TemporaryFailure
from openqmail.core.world import PosixDisk
from openqmail.core.world.simulated import (
    PowerCut,
    SimulatedClock,
    SimulatedDisk,
    SimulatedLoop,
    SimulatedWorkers,
)

QUEUE = b"/home/queue"
NOW = 1_700_000_000
SMALL = Limits(segment=6000, reserve=1000, memory=2000, numbers=8)  # so that opening is a short history
DONE = (Change(0, Outcome.SUCCESS, b"done\n"),)
LATER = (Change(0, Outcome.DEFERRAL, b"later\n"),)


def to(*addresses, sender=b"s@example"):
    return Envelope(sender, tuple(Recipient(address) for address in addresses))


ONE = to(b"r@remote.example")


def route(address):
    """Local is who is at `here`."""
    return ("local", b"user-" + address) if address.endswith(b"@here") else ("remote", address)


def failed(position, address, text=b"no"):
    """A failure, with its paragraph."""
    return Change(position, Outcome.FAILURE, b"<%s>:\n%s\n\n" % (address, text))


def deferred(position, text=b"later\n"):
    return Change(position, Outcome.DEFERRAL, text)


def succeeded(position, text=b"done\n"):
    return Change(position, Outcome.SUCCESS, text)


def lay_out(disk, split=3):
    """An empty queue, durable."""
    for name in paths.folders(split):
        disk.make(os.path.join(QUEUE, name))
    for name in paths.OURS:
        disk.make(os.path.join(QUEUE, name))
    for name, content, mode in paths.FILES:
        disk.make(os.path.join(QUEUE, name), content, mode)


class Stage:
    """`disk` is what is there now; `reports` and `fatal`: what all stores on it said.

    `real`: a queue's folder on the real disk, where no power can be cut; time is simulated there, too."""

    def __init__(self, seed=0, *, split=3, limits=SMALL, now=NOW, real=None, route=route, **how):
        self.random = Random(seed)
        self.clock = SimulatedClock(now)
        self.limits, self.route = limits, route
        self.queue = real or QUEUE
        if real:
            self.disk = PosixDisk()
        else:
            self.disk = SimulatedDisk(self.random, self.clock, **how)
            lay_out(self.disk, split)
        self.layout = paths.Layout(self.queue, split)
        self.reports, self.fatal = [], []
        self.is_cut = False

    def run(self, story, *, close=True, **more):
        """What `story(store, found)` returns; None when the power was cut."""

        async def main():
            loop = asyncio.get_running_loop()
            if isinstance(self.disk, SimulatedDisk):
                self.disk.faults.on_power_cut = loop.cut
            store = LocalStore(
                self.disk,
                self.clock,
                self.queue,
                self.fatal.append,
                route=self.route,
                report=self.reports.append,
                limits=self.limits,
                workers=lambda count, name: SimulatedWorkers(loop, self.random, count),
                entropy=self.random.randbytes,
                **more,
            )
            result = await story(store, list(store.open()))
            if close:
                await store.close()
            return result

        self.is_cut = False
        try:
            with asyncio.Runner(loop_factory=lambda: SimulatedLoop(self.clock)) as runner:
                return runner.run(main())
        except PowerCut:
            self.is_cut = True
            return None

    def cut_at(self, call):
        """The power goes in the `call`th call from now on (from 1)."""
        self.disk.faults.stop_at = self.disk.faults.calls + call

    def crash(self, seed=None):
        """Go on with what a killed process left, or, with a seed, what a power cut did."""
        self.disk = self.disk.after_kill() if seed is None else self.disk.after_power_cut(Random(seed))

    def look(self, **more):
        """All messages as a process finds them that is killed right after: by number."""

        async def story(store, found):
            due = dict(found)
            seen = {}
            for number in store.numbers():
                try:
                    stored = store.load(number)
                except TemporaryFailure:
                    assert number not in due, "only what waits may be unreadable"
                    continue
                assert (number in due) == (stored.held is None)
                seen[number] = stored, content(store, number)
            return seen

        return self.run(story, **more)

    def files(self, folder=None, but=(b"journal", b"pool")):
        """Path below the queue -> (content, mtime) of every file that is no FIFO."""
        found, folder = {}, folder or self.queue
        for name, is_folder in self.disk.scan(folder):
            path = os.path.join(folder, name)
            if is_folder:
                if folder != self.queue or name not in but:
                    found |= self.files(path)
            elif stat.S_ISREG(self.disk.stat(path).mode):
                found[path.removeprefix(self.queue + b"/")] = self.disk.contents(path)
        return found

    def segments(self):
        """How many the journal has."""
        return sum(name.endswith(b".seg") for name in self.disk.names(self.queue + b"/journal"))

    def put(self, path, data, mtime=None):
        """A durable file of another program's."""
        self.disk.make(path, data)
        self.disk.touch(path, NOW if mtime is None else mtime)
        self.disk.sync_file(path)


def content(store, number):
    return b"".join(store.body(number).chunks())


async def until_moved(store, *numbers):
    """What was deferred has left the journal (simulated seconds pass)."""
    for _ in range(600):
        await asyncio.sleep(0.1)
        if all(store.load(number).channels for number in numbers or store.numbers()):
            return
    raise AssertionError("it never moved")


async def until_moving(store, number):
    """Just now files of it are being written to the layout."""
    while not store._entries[number].moving:
        await asyncio.sleep(0.0001)


async def within(seconds, awaitable):
    """It happens within so many simulated seconds."""
    return await asyncio.wait_for(awaitable, seconds)
