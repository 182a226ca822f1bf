"""W6: what a queue full of deferred mail costs: until 220 after a restart, to list, in memory.

openqmail's messages are made as files of qmail's layout (mess, info, remote, split 23, named by the
inode of the mess file), as they lie after a clean stop; Postfix's are sent to it and deferred.
The restart is held against `find queue -type f | xargs stat` of the same round, the list against
`postqueue -j` on as many.  Everything is in the page cache.  No message is due while this runs.
"""

import os
import pwd
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from load import Load, LoadError, memory_of, send, wait_until
from peers import DOMAIN, SINK

import postfix
from homes import OWNER, Place, command
from progress import Progress, table

SPLIT = 23
DAY = 86_400
TIMES = 5.0
"""A restart may take so many times what find and stat take."""
MEMORY = 120.0
MEMORY_OF_MILLION = 600.0
_BODY = b"To: somebody\nSubject: deferred\n\n" + b"It waits for its host.\n" * 20


class Figure(NamedTuple):
    """One round of one peer: seconds, and MiB (PSS) after the restart and the list."""

    restart: float
    find: float
    list: float
    memory: float


class Comparison(NamedTuple):
    """All rounds; `postfix` is empty when openqmail was alone."""

    messages: int
    openqmail: list[Figure]
    postfix: list[Figure]
    memory_asked: float

    @property
    def times(self) -> float:
        """The restart in units of find and stat."""
        return statistics.median(each.restart / each.find for each in self.openqmail)

    @property
    def listing(self) -> float:
        """Above 1: the list takes less than Postfix's."""
        both = zip(self.openqmail, self.postfix, strict=True)
        return statistics.median(theirs.list / ours.list for ours, theirs in both)

    @property
    def memory(self) -> float:
        return max(each.memory for each in self.openqmail)

    def show(self) -> str:
        rows = []
        for name, asked in (
            ("restart", f"{TIMES:g} times find: {self.times:.2f}"),
            ("find", ""),
            ("list", f"1 times Postfix: {1 / self.listing:.2f}" if self.postfix else ""),
            ("memory", f"{self.memory_asked:g} MiB"),
        ):
            cells = [
                f"{statistics.median(getattr(each, name) for each in figures):.2f}" if figures else ""
                for figures in (self.openqmail, self.postfix)
            ]
            rows.append((_TEXTS[name], *cells, asked))
        return table((f"W6 {self.messages} deferred", "openqmail", "postfix", "asked at most"), rows)

    def missed(self) -> list[str]:
        short = []
        if self.postfix and self.times > TIMES:
            short.append(f"W6 restart: {self.times:.2f} times find and stat, asked is at most {TIMES:g}")
        if self.postfix and self.listing < 1:
            short.append(f"W6 list: {1 / self.listing:.2f} times Postfix's, asked is at most 1")
        if self.memory >= self.memory_asked:
            short.append(f"W6 memory: {self.memory:.0f} MiB, asked is less than {self.memory_asked:g}")
        return short

    def form(self) -> dict[str, object]:
        return {
            "messages": self.messages,
            "restart_in_finds": self.times,
            "listing_ratio": self.listing,
            "memory_mib": self.memory,
            "openqmail": [each._asdict() for each in self.openqmail],
            "postfix": [each._asdict() for each in self.postfix],
        }


_TEXTS = {
    "restart": "220 after a restart, s",
    "find": "find queue, stat, s",
    "list": "list as JSON, s",
    "memory": "memory (PSS), MiB",
}


def compare(place: Place, count: int, rounds: int) -> Comparison:
    ours, theirs = Ours(place, count), Theirs(place, count)
    try:
        found: dict[str, list[Figure]] = {ours.name: [], theirs.name: []}
        for number in range(rounds):
            for peer in (ours, theirs) if number % 2 else (theirs, ours):
                found[peer.name].append(peer.measure())
        return Comparison(count, found["openqmail"], found["postfix"], MEMORY)
    finally:
        theirs.close()
        ours.close()


def alone(place: Place, count: int) -> Comparison:
    ours = Ours(place, count)
    try:
        return Comparison(count, [ours.measure()], [], MEMORY_OF_MILLION)
    finally:
        ours.close()


# --- the peers ----------------------------------------------------------------------------


class Ours:
    """A home whose queue holds so many messages that are deferred for a day."""

    name = "openqmail"

    def __init__(self, place: Place, count: int) -> None:
        self._count = count
        self._home = place.home(f"deferred.{DOMAIN}", "alice")
        self._home.start()
        if code := self._home.stop():
            raise LoadError(f"openqmail ended with {code}: {self._home.tail()}")
        with _as_owner():
            fill(self._home.path / "queue", count)
        subprocess.run(["sync", "-f", str(self._home.path)], check=True)

    def measure(self) -> Figure:
        home = self._home
        found = _time(lambda: _find(home.path / "queue"))
        restart = _time(self._start)
        listing = [*command(), "--home", str(home.path), "queue", "list", "--json"]
        listed = _time(lambda: _list(listing, self._count))
        assert home.process is not None
        memory = memory_of(home.process.pid)
        if code := home.stop():
            raise LoadError(f"openqmail ended with {code}: {home.tail()}")
        return Figure(restart, found, listed, memory)

    def _start(self) -> None:
        self._home.spawn()
        _wait_220(self._home.port)

    def close(self) -> None:
        self._home.kill()


class Theirs(postfix.Postfix):
    """A Postfix that defers all that it sends on, for a day."""

    name = "postfix"

    def __init__(self, place: Place, count: int) -> None:
        self._count = count
        settings = {
            "defer_transports": "smtp",
            "queue_run_delay": f"{DAY}s",
            "minimal_backoff_time": f"{DAY}s",
            "maximal_backoff_time": f"{DAY}s",
        }
        super().__init__(place.path / "postfix-deferred", DOMAIN, (), {SINK: 9}, settings)
        self.start()
        bar = Progress("deferred in Postfix", count)
        for done in range(0, count, 5000):
            bar.to(done)
            send("127.0.0.1", self.port, f"to@{SINK}", min(5000, count - done), Load(size=500, kept=True))
        bar.done(count)
        wait_until(lambda: _files(self.folder / "queue" / "deferred") >= count, "Postfix has deferred all")
        self.stop()

    def measure(self) -> Figure:
        queue = self.folder / "queue"
        found = _time(lambda: _find(queue / "deferred"))
        restart = _time(self._start)
        listing = ["/usr/sbin/postqueue", "-c", str(self.folder / "etc"), "-j"]
        listed = _time(lambda: _list(listing, self._count))
        memory = memory_of(self.pid)
        self.stop()
        return Figure(restart, found, listed, memory)

    def _start(self) -> None:
        self.start()
        _wait_220(self.port)

    def close(self) -> None:
        if not self._control("status", check=False):
            self.stop()


def fill(queue: Path, count: int) -> None:
    """So many messages as qmail lays them down, each deferred for a day; nothing is synced."""
    now = int(time.time())
    for kind, mode in (("mess", 0o750), ("info", 0o700), ("local", 0o700), ("remote", 0o700), ("pid", 0o700)):
        (queue / kind).mkdir(mode, exist_ok=True)
        for split in range(SPLIT if kind != "pid" else 0):
            (queue / kind / str(split)).mkdir(mode, exist_ok=True)
    head = b"Received: (qmail 4711 invoked by uid %d); 24 Nov 2026 12:00:00 -0000\n" % os.geteuid()
    bar = Progress("deferred in the layout", count)
    base = os.fsencode(queue)
    for number in range(count):
        passing = base + b"/pid/%d" % number
        inode = _write(passing, head + _BODY, 0o644)
        name = b"%d/%d" % (inode % SPLIT, inode)
        os.rename(passing, base + b"/mess/" + name)
        info, remote = base + b"/info/" + name, base + b"/remote/" + name
        _write(info, b"Fsender@client.example\0", 0o600)
        _write(remote, b"Tto-%d@%s\0" % (number, SINK.encode()), 0o600)
        os.utime(info, (now, now))
        os.utime(remote, (now + DAY, now + DAY))
        if not number % 1000:
            bar.to(number)
    bar.done(count)


def _write(path: bytes, content: bytes, mode: int) -> int:
    """A new file; its inode."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        os.write(file, content)
        os.fchmod(file, mode)
        return os.fstat(file).st_ino
    finally:
        os.close(file)


# --- what is timed ------------------------------------------------------------------------


def _time(what: Callable[[], None]) -> float:
    began = time.perf_counter()
    what()
    return time.perf_counter() - began


def _find(queue: Path) -> None:
    told = 'find "$1" -type f | xargs stat >/dev/null'
    subprocess.run(["/bin/sh", "-c", told, "sh", str(queue)], check=True)


def _list(told: list[str], count: int) -> None:
    with subprocess.Popen(told, stdout=subprocess.PIPE) as listing:
        assert listing.stdout is not None
        lines = 0
        while chunk := listing.stdout.read(1 << 16):
            lines += chunk.count(b"\n")
    if listing.returncode or lines != count:
        raise LoadError(f"{told[0]} listed {lines} of {count} messages, exit {listing.returncode}")


def _wait_220(port: int) -> None:
    def greeted() -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), 60) as peer:
                return peer.recv(4) == b"220 "
        except OSError:
            return False

    wait_until(greeted, f"port {port} answers 220")


def _files(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))


@contextmanager
def _as_owner() -> Iterator[None]:
    """Files that are made are those of the homes' owner."""
    entry = pwd.getpwnam(OWNER)
    os.setegid(entry.pw_gid)
    os.seteuid(entry.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
