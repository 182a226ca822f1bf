"""W5: the memory (PSS) of all processes of a service, four times.

`fresh`: it serves, and no message has come yet.  This is the idle service of which is asked at most
IDLE.  `idle`: after one message, so that what is made once is there; Postfix is weighed then, too.
`connected`: with 1,000 clients besides that say nothing, of which is asked at most CONNECTED.
`secured`: what each of 2,000 clients more takes that have said EHLO under TLS and nothing since, in a
service of its own, openqmail's alone: Postfix would have a process for each."""

import contextlib
import resource
import socket
from typing import NamedTuple

from load import Load, LoadError, memory_of, send, wait_until
from peers import DELIVERING, DOMAIN, Ground, Openqmail, Peer, Postfix, Sort
from secured import EHLO, connected, context, hear

from homes import free_port
from progress import say, table

CONNECTIONS = 1000
IDLE, CONNECTED = 45.0, 70.0
"""MiB that openqmail may take at most: before its first message, and with the connections."""
WARM, UNDER_TLS = 50, 2000
"""Clients that make what is made once, and those that are weighed."""
EACH = 100.0
"""KiB that each of them may take at most."""
USER = "idle"
HOST = "127.0.1.1"


class Idle(NamedTuple):
    """MiB; each peer after a message, and then with the connections; `fresh`: openqmail's before any;
    `secured`: KiB of a client of openqmail's under TLS."""

    fresh: float
    openqmail: tuple[float, float]
    postfix: tuple[float, float]
    secured: float

    def show(self) -> str:
        rows = [
            ("started, nothing yet", f"{self.fresh:.1f}", "", f"{IDLE:g}"),
            ("idle after a message", f"{self.openqmail[0]:.1f}", f"{self.postfix[0]:.1f}", ""),
            (
                f"{CONNECTIONS} idle clients",
                f"{self.openqmail[1]:.1f}",
                f"{self.postfix[1]:.1f}",
                f"{CONNECTED:g}",
            ),
            (f"each of {UNDER_TLS} more under TLS, KiB", f"{self.secured:.1f}", "", f"{EACH:g}"),
        ]
        return table(("W5 memory (PSS), MiB", "openqmail", "postfix", "asked at most"), rows)

    def missed(self) -> list[str]:
        short = []
        if self.fresh > IDLE:
            short.append(f"W5: an idle service takes {self.fresh:.1f} MiB, asked are at most {IDLE:g}")
        if self.openqmail[1] > CONNECTED:
            took = f"{self.openqmail[1]:.1f} MiB, asked are at most {CONNECTED:g}"
            short.append(f"W5: with {CONNECTIONS} idle clients it takes {took}")
        if self.secured > EACH:
            took = f"{self.secured:.1f} KiB, asked are at most {EACH:g}"
            short.append(f"W5: each of {UNDER_TLS} idle clients under TLS takes {took}")
        return short


def compare(place: Ground) -> Idle:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    port = free_port()  # nobody listens: nothing goes there
    ours = Openqmail(place, DELIVERING, [USER], [HOST], port)
    fresh = memory_of(*ours.pids)
    try:
        measured = _both(ours)
    finally:
        ours.stop()
    secured = under_tls(place)
    theirs = Postfix(place, DELIVERING, [USER], [HOST], port)
    try:
        return Idle(fresh, measured, _both(theirs), secured)
    finally:
        theirs.stop()


def _both(peer: Peer) -> tuple[float, float]:
    send(HOST, peer.port, f"{USER}@{DOMAIN}", 1, Load(connections=1))
    new = peer.maildir(USER) / "new"
    wait_until(lambda: new.is_dir() and any(new.iterdir()), "the message is there")
    idle = memory_of(*peer.pids)
    with contextlib.ExitStack() as clients:
        for number in range(CONNECTIONS):
            client = clients.enter_context(socket.create_connection((HOST, peer.port), 60))
            if not client.recv(1000).startswith(b"220"):
                raise LoadError(f"{peer.name} does not greet client {number + 1}")
        crowded = memory_of(*peer.pids)
    say(f"{peer.name}: {idle:.1f} MiB, with {CONNECTIONS} idle clients {crowded:.1f}")
    return idle, crowded


def under_tls(place: Ground) -> float:
    """KiB that each client more takes."""
    most = {"concurrencyincoming": str(WARM + UNDER_TLS + 10)}
    peer = Openqmail(place, Sort(tls=True), [USER], [HOST], free_port(), most)
    try:
        with contextlib.ExitStack() as clients:
            by = context()

            def come(count: int) -> float:
                for _ in range(count):
                    client = clients.enter_context(connected(HOST, peer.port, by))
                    client.sendall(EHLO)
                    hear(client.recv, b"250")
                return memory_of(*peer.pids)

            before = come(WARM)
            each = (come(UNDER_TLS) - before) * 1024 / UNDER_TLS
    finally:
        peer.stop()
    say(f"openqmail: each of {UNDER_TLS} idle clients more under TLS takes {each:.1f} KiB")
    return each
