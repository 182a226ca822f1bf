"""W5: the memory (PSS) of all processes of a service, three times.

`fresh`: it serves, and no message has come yet.  This is the idle service of which is asked at most
IDLE.  `idle`: after one message, so that what is made once is there; Postfix is weighed then, too.
`connected`: with 1,000 clients besides that say nothing, of which is asked at most CONNECTED."""

import contextlib
import resource
import socket
from typing import NamedTuple

from load import Load, LoadError, memory_of, send, wait_until
from peers import DOMAIN, Ground, Openqmail, Peer, Postfix

from homes import free_port
from progress import say, table

CONNECTIONS = 1000
IDLE, CONNECTED = 45.0, 70.0
"""MiB that openqmail may take at most: before its first message, and with the connections."""
USER = "idle"
HOST = "127.0.1.1"


class Idle(NamedTuple):
    """MiB; each peer after a message, and then with the connections; `fresh`: openqmail's before any."""

    fresh: float
    openqmail: tuple[float, float]
    postfix: tuple[float, float]

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
        ]
        return table(("W5 memory (PSS), MiB", "openqmail", "postfix", "asked at most"), rows)

    def missed(self) -> list[str]:
        short = []
        if self.fresh > IDLE:
            short.append(f"W5: an idle service takes {self.fresh:.1f} MiB, asked are at most {IDLE:g}")
        if self.openqmail[1] > CONNECTED:
            took = f"{self.openqmail[1]:.1f} MiB, asked are at most {CONNECTED:g}"
            short.append(f"W5: with {CONNECTIONS} idle clients it takes {took}")
        return short


def compare(place: Ground) -> Idle:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    port = free_port()  # nobody listens: nothing goes there
    ours = Openqmail(place, False, [USER], [HOST], port)
    fresh = memory_of(ours.pid)
    try:
        measured = _both(ours)
    finally:
        ours.stop()
    theirs = Postfix(place, False, [USER], [HOST], port)
    try:
        return Idle(fresh, measured, _both(theirs))
    finally:
        theirs.stop()


def _both(peer: Peer) -> tuple[float, float]:
    send(HOST, peer.port, f"{USER}@{DOMAIN}", 1, Load(connections=1))
    new = peer.maildir(USER) / "new"
    wait_until(lambda: new.is_dir() and any(new.iterdir()), "the message is there")
    idle = memory_of(peer.pid)
    with contextlib.ExitStack() as clients:
        for number in range(CONNECTIONS):
            client = clients.enter_context(socket.create_connection((HOST, peer.port), 60))
            if not client.recv(1000).startswith(b"220"):
                raise LoadError(f"{peer.name} does not greet client {number + 1}")
        connected = memory_of(peer.pid)
    say(f"{peer.name}: {idle:.1f} MiB, with {CONNECTIONS} idle clients {connected:.1f}")
    return idle, connected
