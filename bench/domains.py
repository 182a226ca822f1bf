"""W10: mail to many domains of which some are sick: what the healthy ones have to suffer from it.

Every tenth domain is dead, every tenth is slow (see `net`), and all are found by their MX.  Messages
come in by SMTP, to one domain after the other: first those to sick domains, which then are in the
queue and in the slots; then those to healthy ones, and the time runs from the first of these until
the last has arrived.  A round does that without the sick ones, then with them, each in a new home.
Memory is the most that all processes had (PSS), at any time.  openqmail alone: no peer is measured.
W10g is one message to 10,000 recipients at 100 of the healthy ones: how many messages these get for
it.
"""

import socket
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple

from load import CONNECTIONS, SENDER, SIZE, TIMEOUT, LoadError, cpu_of_one, memory_of
from net import Net, kind_of
from peers import INCOMING, Ground

from progress import say, table
from system_homes import SystemHome

TIMES = 1.3
"""So many times as long may it take beside the sick ones."""
MEMORY = 200.0
TRANSACTIONS = 200
"""So many may one message to many recipients need."""
_RECIPIENTS, _AT = 10_000, 100
"""Of that message, and at so many domains."""
SLOTS = 200
"""control/concurrencyremote: more than all sick domains could use one each."""
_ME = "bench.example"
_LOOKS, _MEMORY_LOOKS = 0.02, 1.0
"""Seconds between two looks at what has arrived, and at the memory."""
_PATIENCE = 600.0


class Figure(NamedTuple):
    """One run: seconds until the healthy ones had their messages, MiB, messages that slow ones had by
    then, and seconds of CPU of each process meanwhile."""

    messages: int
    healthy: int
    seconds: float
    memory: float
    slow: int
    cpu: dict[str, float]


class Group(NamedTuple):
    """One message to many recipients: seconds until all had it, and messages that this took."""

    recipients: int
    domains: int
    seconds: float
    transactions: int

    def show(self) -> str:
        return (
            f"W10g: one message to {self.recipients} recipients at {self.domains} domains: "
            f"{self.seconds:.2f} s, {self.transactions} transactions (at most {TRANSACTIONS})"
        )

    def missed(self) -> list[str]:
        if self.transactions <= TRANSACTIONS:
            return []
        return [f"W10g: {self.transactions} transactions, asked: at most {TRANSACTIONS}"]


class Comparison(NamedTuple):
    """All rounds: without the sick domains, and with them."""

    domains: int
    alone: list[Figure]
    beside: list[Figure]

    @property
    def times(self) -> float:
        """0 when only one of the two was measured."""
        if not self.alone or not self.beside:
            return 0.0
        return statistics.median(b.seconds / a.seconds for a, b in zip(self.alone, self.beside, strict=True))

    @property
    def memory(self) -> float:
        return max(each.memory for each in (*self.alone, *self.beside))

    def show(self) -> str:
        head = ("W10", "messages", "healthy", "seconds", "healthy/s", "MiB", "slow by then", "CPU s")
        rows = []
        for name, figures in (("healthy alone", self.alone), ("beside sick ones", self.beside)):
            if not figures:
                continue
            seconds = statistics.median(each.seconds for each in figures)
            rows.append(
                (
                    name,
                    str(figures[0].messages),
                    str(figures[0].healthy),
                    f"{seconds:.2f}",
                    f"{figures[0].healthy / seconds:.0f}",
                    f"{max(each.memory for each in figures):.0f}",
                    f"{statistics.median(each.slow for each in figures):.0f}",
                    f"{statistics.median(sum(each.cpu.values()) for each in figures):.1f}",
                )
            )
        told = (
            f"\n{self.domains} domains; {self.times:.2f} times as long beside the sick ones (at most {TIMES})"
        )
        return table(head, rows) + told

    def form(self) -> dict[str, object]:
        return {
            "domains": self.domains,
            "alone": [each._asdict() for each in self.alone],
            "beside": [each._asdict() for each in self.beside],
            "times": self.times,
            "memory": self.memory,
            "asked": {"times": TIMES, "memory": MEMORY},
        }

    def missed(self) -> list[str]:
        short = []
        if self.times > TIMES:
            short.append(f"W10: {self.times:.2f} times as long beside sick domains, asked: {TIMES}")
        if self.memory > MEMORY:
            short.append(f"W10: {self.memory:.0f} MiB, asked: at most {MEMORY:.0f}")
        return short


def compare(place: Ground, messages: int, domains: int, rounds: int, parts: Sequence[str]) -> Comparison:
    """`parts`: `alone`, `beside` the sick ones, or both."""
    found = Comparison(domains, [], [])
    for number in range(rounds):
        for part, figures in (("alone", found.alone), ("beside", found.beside)):
            if part not in parts:
                continue
            figure = _run(place, messages, domains, part == "beside")
            figures.append(figure)
            what = "beside sick ones" if part == "beside" else "healthy alone"
            say(
                f"round {number + 1} of {rounds}  W10 {what:<16} "
                f"{figure.seconds:6.2f} s  {figure.memory:4.0f} MiB  CPU s "
                + "  ".join(f"{role} {seconds:.1f}" for role, seconds in figure.cpu.items() if seconds >= 0.1)
            )
    return found


def group(place: Ground, domains: int) -> Group:
    """W10g, in a new home."""
    healthy = [domain for domain in range(domains) if kind_of(domain) == "healthy"][:_AT]
    with _playing(place, domains) as (net, home):
        began = time.monotonic()
        client = _Client(home.port, [healthy * (_RECIPIENTS // len(healthy))])
        client.run()
        if client.problem:
            raise LoadError(client.problem)
        while net.recipients() < _RECIPIENTS // len(healthy) * len(healthy):
            time.sleep(_LOOKS)
            if time.monotonic() - began > _PATIENCE:
                raise LoadError(f"{net.recipients()} recipients have their message: {home.tail(500)}")
        return Group(net.recipients(), len(healthy), time.monotonic() - began, net.taken()[0])


def _run(place: Ground, messages: int, domains: int, sick: bool) -> Figure:
    well = [kind_of(domain) == "healthy" for domain in range(domains)]
    to = [message % domains for message in range(messages)]
    healthy = [domain for domain in to if well[domain]]
    ill = [domain for domain in to if not well[domain]] if sick else []
    with _playing(place, domains) as (net, home):
        return _measure(home, net, ill, healthy)


@contextmanager
def _playing(place: Ground, domains: int) -> Iterator[tuple[Net, SystemHome]]:
    """A net, and a new home whose mail goes there."""
    net = Net(place.path, place.name("net"), domains)
    try:
        home = _home(place, net)
        try:
            yield net, home
        finally:
            home.kill()
    finally:
        net.close()


def _home(place: Ground, net: Net) -> SystemHome:
    name = place.name("domains")
    room = place.room / name
    room.mkdir(mode=0o755)
    home = SystemHome(room, [name], _ME)
    place.homes.append(home)
    home.control("concurrencyremote", str(SLOTS))
    home.control("concurrencyincoming", str(INCOMING))
    home.control("maxrecipients", str(_RECIPIENTS))
    home.control("smtproutes", f"::{net.port}\n")
    home.control("resolvers", f"127.0.0.1:{net.names}\n")
    home.start()
    return home


def _measure(home: SystemHome, net: Net, ill: list[int], healthy: list[int]) -> Figure:
    assert home.process is not None
    service = home.process.pid
    _all_ended(_clients(home.port, ill))
    before, memory = net.taken()[0], memory_of(service)
    pids = home.pids()
    cpu = {role: cpu_of_one(pid) for role, pid in pids.items()}
    began = looked = time.monotonic()
    clients = _clients(home.port, healthy)
    while (taken := net.taken())[0] - before < len(healthy):
        time.sleep(_LOOKS)
        now = time.monotonic()
        if now - looked > _MEMORY_LOOKS:
            memory, looked = max(memory, memory_of(service)), now
        if now - began > _PATIENCE or any(client.problem for client in clients):
            _all_ended(clients)
            raise LoadError(f"healthy domains got {taken[0] - before} of {len(healthy)}: {home.tail(500)}")
    seconds = time.monotonic() - began
    spent = {role: cpu_of_one(pid) - cpu[role] for role, pid in pids.items()}
    _all_ended(clients)
    memory = max(memory, memory_of(service))
    return Figure(len(ill) + len(healthy), len(healthy), seconds, memory, taken[1], spent)


def _clients(port: int, domains: list[int]) -> "list[_Client]":
    each = [[[domain] for domain in domains[number::CONNECTIONS]] for number in range(CONNECTIONS)]
    clients = [_Client(port, messages) for messages in each]
    for client in clients:
        client.start()
    return clients


def _all_ended(clients: "list[_Client]") -> None:
    for client in clients:
        client.join()
        if client.problem:
            raise LoadError(client.problem)


class _Client(threading.Thread):
    """One connection that sends messages, commands ahead of replies; of each message the domains at which
    it has a recipient."""

    def __init__(self, port: int, messages: list[list[int]]) -> None:
        super().__init__(daemon=True)
        self.problem = ""
        self._port, self._messages = port, messages

    def run(self) -> None:
        body = b"Subject: W10\r\n\r\n" + (b"X" * 78 + b"\r\n") * (SIZE // 80) + b".\r\n"
        try:
            with (
                socket.create_connection(("127.0.0.1", self._port), TIMEOUT) as client,
                client.makefile("rb") as replies,
            ):
                _hear(replies.readline(), b"220")
                client.sendall(b"EHLO client.example\r\n")
                while (line := replies.readline())[3:4] == b"-":
                    pass
                _hear(line, b"250")
                for domains in self._messages:
                    client.sendall(b"MAIL FROM:<%s>\r\n" % SENDER.encode())
                    for at in range(0, len(domains), _AT):
                        to = enumerate(domains[at : at + _AT], at)
                        client.sendall(b"".join(b"RCPT TO:<to%d@d%d.example>\r\n" % each for each in to))
                        if at:  # never more than a portion ahead
                            _hear_all(replies, _AT)
                    client.sendall(b"DATA\r\n")
                    _hear_all(replies, 1 + (len(domains) - 1) % _AT + 1)
                    _hear(replies.readline(), b"354")
                    client.sendall(body)
                    _hear(replies.readline(), b"250")
                client.sendall(b"QUIT\r\n")
                _hear(replies.readline(), b"221")
        except (OSError, LoadError) as error:
            self.problem = str(error)


def _hear_all(replies: BinaryIO, count: int) -> None:
    """That many 250."""
    for _ in range(count):
        _hear(replies.readline(), b"250")


def _hear(line: bytes, code: bytes) -> None:
    if line[:3] != code:
        raise LoadError(f"expected {code!r} from openqmail, it said {line[:200]!r}")
