"""The long run: W1 and W2 at once for some minutes, openqmail alone; what changes from minute to minute.

Half the load goes to Maildirs by a new connection a message, half is relayed over connections that
stay.  A minute's rate is what has arrived in it, in Maildirs and at the receiver.  Portions go to
addresses and users in turn, so that neither ports in TIME_WAIT nor a huge Maildir is measured.
"""

import itertools
import os
import threading
import time
from pathlib import Path
from typing import NamedTuple

from load import Load, LoadError, Sink, descriptors_of, memory_of, send, wait_until
from peers import DELIVERING, DOMAIN, SINK, Ground, Openqmail

from homes import free_port
from progress import say, table

MINUTE = 60.0
PORTION = 2000
"""Messages of one run of smtp-source."""
HOSTS = [f"127.0.2.{number}" for number in range(1, 41)]
CONNECTIONS = 10
RATE = 0.8
"""The last minute's rate, at least so much of the first's."""
MEMORY, DESCRIPTORS, JOURNAL = 16.0, 20, 256.0
"""How much more MiB, descriptors, MiB there may be than at the most in the first half."""


class Minute(NamedTuple):
    """`rate`: messages a second.  MiB (PSS) of memory and of journal, descriptors, messages queued."""

    rate: float
    memory: float
    descriptors: int
    journal: float
    queued: int


class _Load:
    """Two clients that send portion after portion until `end`."""

    def __init__(self, peer: Openqmail, sink: Sink, users: list[str]) -> None:
        self._peer, self._sink, self._users = peer, sink, users
        self._sunk = sink.received()
        self._end = threading.Event()
        self._hosts = itertools.cycle(HOSTS)
        self._lock = threading.Lock()
        self._full: set[str] = set()
        self.user = users[0]
        self.sent = 0
        self.error: LoadError | None = None
        self._threads = [
            threading.Thread(target=self._send, args=(Load(connections=CONNECTIONS), None)),
            threading.Thread(
                target=self._send, args=(Load(kept=True, connections=CONNECTIONS), f"far@{SINK}")
            ),
        ]
        for thread in self._threads:
            thread.start()

    def _send(self, load: Load, to: str | None) -> None:
        while not self._end.is_set():
            with self._lock:
                host = next(self._hosts)
            try:
                send(host, self._peer.port, to or f"{self.user}@{DOMAIN}", PORTION, load)
            except (LoadError, OSError) as error:
                self.error = LoadError(str(error))
                return
            with self._lock:
                self.sent += PORTION

    def arrived(self) -> int:
        here = sum(len(os.listdir(self._peer.maildir(user) / "new")) for user in self._users)
        return here + self._sink.received() - self._sunk

    def end(self) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()


def measure(place: Ground, minutes: float) -> list[Minute]:
    """A row a minute; a run of less than one minute, to try it, has shorter ones."""
    count = max(2, round(minutes))
    length = MINUTE * minutes / count
    users = [f"long-{number}" for number in range(count)]
    sink = Sink(port := free_port(), place.path / "sink.counts")
    peer = Openqmail(place, DELIVERING, users, HOSTS, port)
    load = _Load(peer, sink, users)
    found: list[Minute] = []
    try:
        before, at = 0, time.monotonic()
        for number in range(count):
            load.user = users[number]
            wait = threading.Event()
            wait.wait(max(0.0, at + length - time.monotonic()))
            if load.error:
                raise load.error
            arrived, now = load.arrived(), time.monotonic()
            journal = _size(peer.queue / "journal")
            row = Minute(
                (arrived - before) / (now - at),
                memory_of(*peer.pids),
                descriptors_of(*peer.pids),
                journal,
                peer.queued(),
            )
            before, at = arrived, now
            found.append(row)
            say(f"minute {number + 1} of {count}: {_line(row)}")
        load.end()
        wait_until(lambda: load.arrived() >= load.sent, "all has arrived")
        if load.arrived() != load.sent:
            raise LoadError(f"{load.arrived()} messages arrived of {load.sent}")
    finally:
        load.end()
        peer.stop()
        sink.close()
    return found


def _size(folder: Path) -> float:
    total = 0
    for file in folder.iterdir():
        try:
            total += file.stat().st_size
        except FileNotFoundError:
            continue  # dropped just now
    return total / (1 << 20)


def _line(row: Minute) -> str:
    return (
        f"{row.rate:.0f}/s, {row.memory:.1f} MiB, {row.descriptors} descriptors, "
        f"journal {row.journal:.0f} MiB, {row.queued} queued"
    )


def show(minutes: list[Minute]) -> str:
    rows = [
        (number, f"{row.rate:.0f}", f"{row.memory:.1f}", row.descriptors, f"{row.journal:.0f}", row.queued)
        for number, row in enumerate(minutes, 1)
    ]
    return table(("minute", "messages/s", "memory MiB", "descriptors", "journal MiB", "queued"), rows)


def missed(minutes: list[Minute]) -> list[str]:
    """A sentence for each thing that did not stay as it was."""
    first, last = minutes[0], minutes[-1]
    half = minutes[: (len(minutes) + 1) // 2]
    short = []
    if last.rate < RATE * first.rate:
        short.append(
            f"the last minute's rate is {last.rate / first.rate:.2f} of the first's, asked is {RATE}"
        )
    for name, more in (("memory", MEMORY), ("descriptors", DESCRIPTORS), ("journal", JOURNAL)):
        before = max(getattr(row, name) for row in half)
        if (now := getattr(last, name)) > before + more:
            short.append(f"{name}: {now:.0f} in the last minute, at most {before:.0f} in the first half")
    return short
