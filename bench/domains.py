"""W10: mail to many domains of which some are sick: what the healthy ones have to suffer from it.

Every tenth domain is dead, every tenth is slow (see `net`).  Messages come in by SMTP, to one domain
after the other: first those to sick domains, which then are in the queue and in the slots; then those
to healthy ones, and the time runs from the first of these until the last has arrived.  A round does
that without the sick ones, then with them, each in a new home.  Memory is the most that all processes
had (PSS), at any time.  openqmail alone: no peer is measured.
"""

import socket
import statistics
import threading
import time
from typing import NamedTuple

from load import CONNECTIONS, SENDER, SIZE, TIMEOUT, LoadError, memory_of
from net import Net, address, kind_of
from peers import INCOMING, Ground

from progress import say, table
from system_homes import SystemHome

TIMES = 1.3
"""So many times as long may it take beside the sick ones."""
MEMORY = 200.0
SLOTS = 200
"""control/concurrencyremote: more than all sick domains could use one each."""
_ME = "bench.example"
_LOOKS, _MEMORY_LOOKS = 0.02, 1.0
"""Seconds between two looks at what has arrived, and at the memory."""
_PATIENCE = 600.0


class Figure(NamedTuple):
    """One run: seconds until the healthy ones had their messages, MiB, and messages that slow ones had
    by then."""

    messages: int
    healthy: int
    seconds: float
    memory: float
    slow: int


class Comparison(NamedTuple):
    """All rounds: without the sick domains, and with them."""

    domains: int
    alone: list[Figure]
    beside: list[Figure]

    @property
    def times(self) -> float:
        return statistics.median(b.seconds / a.seconds for a, b in zip(self.alone, self.beside, strict=True))

    @property
    def memory(self) -> float:
        return max(each.memory for each in (*self.alone, *self.beside))

    def show(self) -> str:
        head = ("W10", "messages", "healthy", "seconds", "healthy/s", "MiB", "slow by then")
        rows = []
        for name, figures in (("healthy alone", self.alone), ("beside sick ones", self.beside)):
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


def compare(place: Ground, messages: int, domains: int, rounds: int) -> Comparison:
    found = Comparison(domains, [], [])
    for number in range(rounds):
        for sick, figures in ((False, found.alone), (True, found.beside)):
            figures.append(_run(place, messages, domains, sick))
            figure = figures[-1]
            say(
                f"round {number + 1} of {rounds}  W10 {'beside sick ones' if sick else 'healthy alone':<16} "
                f"{figure.seconds:6.2f} s  {figure.memory:4.0f} MiB"
            )
    return found


def _run(place: Ground, messages: int, domains: int, sick: bool) -> Figure:
    well = [kind_of(domain) == "healthy" for domain in range(domains)]
    to = [message % domains for message in range(messages)]
    healthy = [domain for domain in to if well[domain]]
    ill = [domain for domain in to if not well[domain]] if sick else []
    net = Net(place.path, place.name("net"), domains)
    try:
        home = _home(place, net.port, domains)
        try:
            return _measure(home, net, ill, healthy)
        finally:
            home.kill()
    finally:
        net.close()


def _home(place: Ground, port: int, domains: int) -> SystemHome:
    name = place.name("domains")
    room = place.room / name
    room.mkdir(mode=0o755)
    home = SystemHome(room, [name], _ME)
    place.homes.append(home)
    home.control("concurrencyremote", str(SLOTS))
    home.control("concurrencyincoming", str(INCOMING))
    routes = [f"d{domain}.example:[{address(domain)}]:{port}" for domain in range(domains)]
    home.control("smtproutes", "\n".join(routes))
    home.start()
    return home


def _measure(home: SystemHome, net: Net, ill: list[int], healthy: list[int]) -> Figure:
    assert home.process is not None
    service = home.process.pid
    _all_ended(_clients(home.port, ill))
    before, memory = net.taken()[0], memory_of(service)
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
    _all_ended(clients)
    return Figure(len(ill) + len(healthy), len(healthy), seconds, max(memory, memory_of(service)), taken[1])


def _clients(port: int, domains: list[int]) -> "list[_Client]":
    clients = [_Client(port, domains[number::CONNECTIONS]) for number in range(CONNECTIONS)]
    for client in clients:
        client.start()
    return clients


def _all_ended(clients: "list[_Client]") -> None:
    for client in clients:
        client.join()
        if client.problem:
            raise LoadError(client.problem)


class _Client(threading.Thread):
    """One connection that sends a message to each of these domains, commands ahead of replies."""

    def __init__(self, port: int, domains: list[int]) -> None:
        super().__init__(daemon=True)
        self.problem = ""
        self._port, self._domains = port, domains

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
                for domain in self._domains:
                    client.sendall(
                        b"MAIL FROM:<%s>\r\nRCPT TO:<to@d%d.example>\r\nDATA\r\n" % (SENDER.encode(), domain)
                    )
                    for code in (b"250", b"250", b"354"):
                        _hear(replies.readline(), code)
                    client.sendall(body)
                    _hear(replies.readline(), b"250")
                client.sendall(b"QUIT\r\n")
                _hear(replies.readline(), b"221")
        except (OSError, LoadError) as error:
            self.problem = str(error)


def _hear(line: bytes, code: bytes) -> None:
    if line[:3] != code:
        raise LoadError(f"expected {code!r} from openqmail, it said {line[:200]!r}")
