"""A spawner in the loop of a test: its workers are servers in the same loop, behind real sockets."""

import asyncio
import gc
import importlib.util
import os
import socket
import sys
from pathlib import Path

from openqmail.core.service.frames.channel import Channel
from openqmail.core.service.frames.local import LocalServer
from openqmail.core.service.frames.spawning import Kill, Refused, Started, ToSpawner

CORE = Path(__file__).resolve().parents[1] / "core"


def load(path: str):
    """A module of the tests below `tests/core`, by its path: it is no package."""
    name = "again_" + path.replace("/", "_").removesuffix(".py")
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, CORE / path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


def others_tests(path: str, without: tuple[str, ...] = ()) -> dict:
    """The tests of another module, for a module that gives them other fixtures."""
    found = {name: value for name, value in vars(load(path)).items() if name.startswith("test_")}
    assert set(without) <= found.keys(), "a test that is left out is no more"
    return {name: value for name, value in found.items() if name not in without}


def descriptors() -> int:
    """How many this process has open."""
    return len(os.listdir("/proc/self/fd"))


def left_open(before: int) -> int:
    """How many more than before, without those that only wait for the garbage collection."""
    if descriptors() > before:
        gc.collect()
    return max(0, descriptors() - before)


async def until(true) -> None:
    """Turns of the loop until it is; the test's time-out is the limit."""
    while not true():
        await asyncio.sleep(0)


class Spawner:
    """Starts workers: `make(uid, gid)` gives each its LocalDelivery.

    `who(local)`: uid and gid for a local part, or the text of a refusal.  With `slow`, what is
    asked waits for `answer`."""

    def __init__(self, make, who, slow=False):
        self.make, self.who, self.slow = make, who, slow
        self.asked = []
        self.servers = []
        self.pending = []
        self.ended = False
        self.connection, ours = socket.socketpair()
        self.killed = []
        self.channel = Channel(ours, ToSpawner, self._received, self._lost)

    def _lost(self, error):
        self.ended = True

    def _received(self, message, descriptors):
        if isinstance(message, Kill):
            self.killed.append(message.id)
            return
        self.asked.append(message.local)
        if self.slow:
            self.pending.append(message)
        else:
            self.answer(message)

    def answer(self, message):
        who = self.who(message.local)
        if isinstance(who, bytes):
            self.channel.send(Refused(message.id, who))
            return
        ours, theirs = socket.socketpair()
        server = LocalServer(self.make(*who))
        server.key, server.connection = who, ours
        server.serve(ours)
        self.servers.append(server)
        self.channel.send(Started(message.id, *who), (theirs.detach(),))

    def kill(self, server):
        """End a worker at once."""
        for channel in list(server._channels):
            channel.abort()
        server._channels.clear()

    def close(self):
        self.channel.abort()
        for server in self.servers:
            self.kill(server)


class Cut:
    """Lies between the two ends, and ends both after so many bytes of one direction."""

    def __init__(self, client, server, bytes_out, bytes_in):
        self.loop = asyncio.get_running_loop()
        self.ends = (client, server)
        self.left = {client: bytes_out, server: bytes_in}
        for end, other in (self.ends, self.ends[::-1]):
            end.setblocking(False)
            self.loop.add_reader(end, self._carry, end, other)

    def _carry(self, end, other):
        data = end.recv(1 << 16)[: self.left[end]]
        self.left[end] -= len(data)
        if data:
            other.send(data)
        if not data or not self.left[end]:
            self.end()

    def end(self):
        for end in self.ends:
            if end.fileno() >= 0:
                self.loop.remove_reader(end)
                end.close()
