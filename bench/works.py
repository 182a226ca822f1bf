"""The works that end in a rate, one round each: what is sent, where the clock stops, what must be there."""

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

from load import (
    SETTLING,
    Disk,
    Load,
    LoadError,
    LogCounts,
    Sink,
    cpu_of,
    cpu_of_one,
    send,
    send_ahead,
    settled_cpu,
    settled_disk,
    wait_until,
)
from peers import DELIVERING, DOMAIN, HOLDING, SINK, Peer, Sort
from secured import Clients

LARGE = Load(size=10 << 20, connections=4)
MANY = 2000
MANY_FAR = 5000
TRANSACTIONS = 50
"""At most so many for the recipients of W9r, in one of ours."""


class Figure(NamedTuple):
    """One round of one peer: units a second, microseconds of CPU a unit, the disk before it;
    `transactions` to the receiver, where the work counts them; `load`: microseconds of CPU a unit that our
    own load took, 0 where it was another's."""

    rate: float
    cpu: float
    disk: Disk
    transactions: int
    parts: dict[str, float]
    """Of the CPU, what each process took: its role, microseconds a unit."""
    load: float = 0.0

    def line(self) -> str:
        unsettled = "" if self.disk.settled else f"; THE DISK DID NOT SETTLE in {SETTLING:.0f} s"
        sent = f"; {self.transactions} transactions" if self.transactions else ""
        load = f", the load {self.load:.0f}" if self.load else ""
        return (
            f"{self.rate:7.5g}/s {self.cpu:6.0f} µs CPU each{load}{sent}  "
            f"(a new file costs {self.disk.cost * 1e6:.0f} µs{unsettled})"
        )


class Round(NamedTuple):
    """`user`: whose Maildir is this round's own.  `host`: where the peer listens for it.  `apart`: W3 sends
    each message to an address of its own, `numbered(user, messages)`."""

    peer: Peer
    user: str
    host: str
    messages: int
    sink: Sink
    apart: bool = False


class Course(Protocol):
    """One round of a work.  Making it notes what is there already."""

    def run(self) -> None:
        """The load, until the work's clock stops."""
        ...

    def check(self) -> None:
        """Raises LoadError unless everything is where the work ends."""
        ...


class Work(NamedTuple):
    """`asked`: the ratio to reach now.  `messages`: of a round, when it is always the same.
    `each`: units a message, where a unit is a recipient.  `sort`: of the peers."""

    text: str
    course: Callable[[Round], Course]
    asked: float | None = None
    messages: int | None = None
    each: int = 1
    sort: Sort = DELIVERING


SendMany = Callable[[str, int, str, int], None]
"""Sends one message to many: host, port, the first recipient, how many."""


def one_by_one(host: str, port: int, to: str, recipients: int) -> None:
    """By smtp-source, which waits for the reply to each RCPT."""
    send(host, port, to, 1, Load(recipients=recipients, connections=1))


# --- courses ------------------------------------------------------------------------------


class Local:
    """To one user, until the last file is in new/ under its final name."""

    def __init__(self, at: Round, load: Load) -> None:
        self._at, self._load = at, load
        self._new = at.peer.maildir(at.user) / "new"

    def run(self) -> None:
        at = self._at
        send(at.host, at.peer.port, f"{at.user}@{DOMAIN}", at.messages, self._load)
        wait_until(
            lambda: self._new.is_dir() and len(os.listdir(self._new)) >= at.messages, f"{self._new} is full"
        )

    def check(self) -> None:
        if (count := len(os.listdir(self._new))) != self._at.messages:
            raise LoadError(f"{self._at.peer.name} delivered {count} files for {self._at.messages} messages")


class Relay:
    """To another host, until it has them all."""

    def __init__(self, at: Round, load: Load) -> None:
        self._at, self._load = at, load
        self._before = at.sink.received()

    def run(self) -> None:
        at = self._at
        send(at.host, at.peer.port, f"{at.user}@{SINK}", at.messages, self._load)
        wait_until(lambda: at.sink.received() - self._before >= at.messages, "the receiver has them all")

    def check(self) -> None:
        if (count := self._at.sink.received() - self._before) != self._at.messages:
            raise LoadError(f"{self._at.peer.name} sent {count} messages for {self._at.messages}")


class Accept:
    """Until the last 250; nothing is delivered."""

    def __init__(self, at: Round) -> None:
        self._at, self._before = at, at.peer.queued()

    def run(self) -> None:
        at = self._at
        send(at.host, at.peer.port, f"{at.user}@{DOMAIN}", at.messages, Load(apart=at.apart))

    def check(self) -> None:
        if (count := self._at.peer.queued() - self._before) != self._at.messages:
            raise LoadError(f"{self._at.peer.name} holds {count} of {self._at.messages} messages")


class Secured(Accept):
    """The same under TLS, with a login where the peers ask for one; the clients are there before the clock
    starts.  `load`: seconds of CPU that they have taken."""

    load = 0.0

    def __init__(self, at: Round, login: bool = False) -> None:
        super().__init__(at)
        self._clients = Clients(at.host, at.peer.port, f"{at.user}@{DOMAIN}", login)

    def run(self) -> None:
        self.load = self._clients.send(self._at.messages)


class ManyLocal:
    """To many users, until each has it; their Maildirs are the same ones in all rounds."""

    def __init__(self, at: Round, send: SendMany) -> None:
        self._at, self._send = at, send
        self._folders = [str(at.peer.maildir(user) / "new") for user in many()]
        self._before = [self._count(number) for number in range(len(self._folders))]
        self._changed = [self._change(number) for number in range(len(self._folders))]

    def run(self) -> None:
        at = self._at
        self._send(at.host, at.peer.port, f"{MANY_NAME}@{DOMAIN}", MANY)
        for number, folder in enumerate(self._folders):
            wait_until(partial(self._has, number), f"{folder} has it")

    def check(self) -> None:
        wrong = [n for n in range(len(self._folders)) if self._new(n) != self._at.messages]
        if wrong:
            raise LoadError(f"{self._at.peer.name}: {len(wrong)} users have not exactly what was sent")

    def _has(self, number: int) -> bool:
        """By the folder's time, which costs the peers less of their processors than listing it."""
        before = self._changed[number]
        return self._new(number) > 0 if before is None else self._change(number) != before

    def _new(self, number: int) -> int:
        return self._count(number) - self._before[number]

    def _count(self, number: int) -> int:
        try:
            return len(os.listdir(self._folders[number]))
        except FileNotFoundError:  # Postfix makes a Maildir when there is mail for it
            return 0

    def _change(self, number: int) -> int | None:
        try:
            return os.stat(self._folders[number]).st_mtime_ns
        except FileNotFoundError:
            return None


class ManyRemote:
    """To many at one other host, until the log says that the message has left the queue."""

    def __init__(self, at: Round, send: SendMany) -> None:
        self._at, self._send = at, send
        self._log = LogCounts(at.peer.log, at.peer.ended, at.peer.delivered)
        self._before = at.sink.received()

    @property
    def transactions(self) -> int:
        return self._at.sink.received() - self._before

    def run(self) -> None:
        at = self._at
        self._send(at.host, at.peer.port, f"{at.user}@{SINK}", MANY_FAR)
        wait_until(lambda: self._log.count(at.peer.ended) >= at.messages, "the message has left the queue")

    def check(self) -> None:
        wanted = self._at.messages * MANY_FAR
        if (count := self._log.count(self._at.peer.delivered)) != wanted:
            raise LoadError(f"{self._at.peer.name} delivered to {count} of {wanted} recipients")


MANY_NAME = "many"


def many() -> list[str]:
    """The users of W9, as smtp-source names them: only the last has no number."""
    return [MANY_NAME, *numbered(MANY_NAME, MANY)[1:]]


def numbered(name: str, count: int) -> list[str]:
    """As smtp-source names those that it sends to."""
    return [f"{number}{name}" for number in range(1, count + 1)]


# --- works --------------------------------------------------------------------------------

SECURED = Sort(hold=True, tls=True)
LOGGED_IN, CHEAPLY = SECURED._replace(login="usual"), SECURED._replace(login="cheap")

WORKS = {
    "W1": Work("local to Maildir", lambda at: Local(at, Load()), asked=3.0),
    "W1k": Work("the same, kept", lambda at: Local(at, Load(kept=True, each=50)), asked=4.0),
    "W2": Work("relay, kept", lambda at: Relay(at, Load(kept=True)), asked=6.0),
    "W2n": Work("relay, new", lambda at: Relay(at, Load())),
    "W3": Work("accept, hold", Accept, asked=2.3, sort=HOLDING),
    "W4": Work("10 MiB to Maildir", lambda at: Local(at, LARGE), asked=0.9, messages=20),
    "W8": Work("accept by STARTTLS", Secured, asked=1.5, sort=SECURED),
    "W8a": Work("the same, a login", partial(Secured, login=True), 1.0, 400, sort=LOGGED_IN),
    "W8c": Work("the same, a cheap hash", partial(Secured, login=True), 1.0, sort=CHEAPLY),
    "W9": Work("2,000 local recipients", lambda at: ManyLocal(at, send_ahead), 5.0, 1, MANY),
    "W9s": Work("the same, smtp-source", lambda at: ManyLocal(at, one_by_one), None, 1, MANY),
    "W9r": Work("5,000 of one domain", lambda at: ManyRemote(at, send_ahead), 5.0, 1, MANY_FAR),
    "W9rs": Work("the same, smtp-source", lambda at: ManyRemote(at, one_by_one), None, 1, MANY_FAR),
}


def user_of(work: str, number: int) -> str:
    return f"{work.lower()}-{number}"


def measure(
    peer: Peer,
    work: str,
    number: int,
    host: str,
    messages: int,
    sink: Sink,
    folder: Path,
    apart: bool = False,
) -> Figure:
    """One round; raises LoadError unless every message arrived where the work ends.  `apart` as `Round`'s."""
    told = WORKS[work]
    messages = told.messages or messages
    disk = settled_disk(_folders(peer, work, number) or [folder])
    before, each = cpu_of(*peer.pids), _cpu_of_each(peer)
    course = told.course(Round(peer, user_of(work, number), host, messages, sink, apart))
    began = time.perf_counter()
    course.run()
    took = time.perf_counter() - began
    cpu = settled_cpu(*peer.pids) - before
    course.check()
    units = messages * told.each
    transactions = course.transactions if isinstance(course, ManyRemote) else 0
    parts = {role: 1e6 * (now - each.get(role, 0.0)) / units for role, now in _cpu_of_each(peer).items()}
    load = course.load if isinstance(course, Secured) else 0.0
    return Figure(units / took, 1e6 * cpu / units, disk, transactions, parts, 1e6 * load / units)


def _folders(peer: Peer, work: str, number: int) -> list[Path]:
    """Where the files of this round will be made, as far as these are there yet."""
    users = many() if WORKS[work].each == MANY else [user_of(work, number)]
    return [folder for user in users if (folder := peer.maildir(user) / "tmp").is_dir()]


def _cpu_of_each(peer: Peer) -> dict[str, float]:
    """Seconds of CPU of each role.  What a worker that has gone took is in none, but in the whole."""
    return {role: sum(map(cpu_of_one, pids)) for role, pids in peer.processes().items()}
