"""The two that are measured, each behind the same face: openqmail and Debian's Postfix.

Each runs twice: one delivers, one holds what it has accepted.  Both keep their defaults of
durability, log to a file, deliver at most 20 at once, and write to Maildirs that are new in every
round.  Postfix has its own configuration, queue and data under the folder of the run; the
system's instance is neither used nor touched.
"""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol

from load import CONNECTIONS

import postfix
import system_users
from homes import Place, free_port
from system_homes import SystemHome

DOMAIN = "bench.example"
SINK = "sink.example"
INCOMING = 1200
"""Clients at once that both serve."""
RECIPIENTS = 10_000
"""Of a message: both are told to take more than they do by default."""


def addresses(rounds: int) -> list[str]:
    """A loopback address a round, and one for the warm-up."""
    return [f"127.0.1.{number + 1}" for number in range(rounds + 1)]


class Ground(Place):
    """A place for Postfix and owners' homes, and a room that is root's for homes of root's, both on the
    file system of the folder `under`."""

    def __init__(self, keep: bool, under: str) -> None:
        super().__init__(keep, under)
        self._room = system_users.room((under,))

    def __enter__(self) -> "Ground":
        self.room = self._room.__enter__()
        self._names = 0
        return self

    def name(self, kind: str) -> str:
        """One that nobody has had yet."""
        self._names += 1
        return f"{kind}{self._names}"

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            super().__exit__(kind, value, trace)
        finally:
            self._room.__exit__(kind, value, trace)


class Peer(Protocol):
    """What a round asks of either."""

    name: str
    port: int
    pid: int
    log: Path
    ended: bytes
    """What the log says once for each message that has left the queue."""
    delivered: bytes
    """And once for each recipient that was delivered to."""

    def maildir(self, user: str) -> Path: ...

    def queued(self) -> int: ...

    def processes(self) -> dict[str, list[int]]:
        """Whose CPU is told singly: the pids of each role."""
        ...

    def stop(self) -> None: ...


class Openqmail:
    """A home of root's with a user for each process, made and run as administrators do; all that get
    mail are one user of this host, as those of Postfix's virtual(8) are."""

    name = "openqmail"
    ended, delivered = b" end msg ", b": success: "

    def __init__(
        self, place: Ground, hold: bool, users: Sequence[str], hosts: Sequence[str], sink: int
    ) -> None:
        self.port = free_port()
        listen = [f"smtp {host}:{self.port}" for host in hosts]
        name = place.name("hold" if hold else "deliver")
        room = place.room / name
        room.mkdir(mode=0o755)
        self._home = SystemHome(room, [name], DOMAIN, listen)
        place.homes.append(self._home)
        self._home.mailboxes(name, users)
        limit = "0" if hold else str(CONNECTIONS)
        for name in ("concurrencylocal", "concurrencyremote", "concurrencydestination"):
            self._home.control(name, str(CONNECTIONS) if name == "concurrencydestination" else limit)
        self._home.control("maxrecipients", str(RECIPIENTS))
        self._home.control("concurrencyincoming", str(INCOMING))
        self._home.control("smtproutes", f"{SINK}:[127.0.0.1]:{sink}")
        self.log = self._home.log
        self._home.start()
        assert self._home.process is not None
        self.pid = self._home.process.pid

    def maildir(self, user: str) -> Path:
        return self._home.mailbox(user)

    def queued(self) -> int:
        return int(self._home.status()["queue"]["messages"])

    def processes(self) -> dict[str, list[int]]:
        """The pids of each role."""
        found: dict[str, list[int]] = {}
        for one in self._home.status()["processes"]:
            found.setdefault(one["name"], []).append(one["pid"])
        return found

    def stop(self) -> None:
        self._home.kill()

    @property
    def queue(self) -> Path:
        return self._home.path / "queue"


class Postfix(postfix.Postfix):
    """An instance of its own under the folder of the run."""

    name = "postfix"
    ended, delivered = b": removed\n", b" status=sent "

    def __init__(
        self, place: Ground, hold: bool, users: Sequence[str], hosts: Sequence[str], sink: int
    ) -> None:
        settings: dict[str, object] = {
            "default_destination_concurrency_limit": CONNECTIONS,
            "smtpd_recipient_limit": RECIPIENTS,
            "default_process_limit": INCOMING,
            "smtpd_client_connection_count_limit": 0,
            "message_size_limit": 32 << 20,
        }
        if hold:
            settings |= {
                "defer_transports": "smtp, virtual",
                "queue_run_delay": "1h",
                "minimal_backoff_time": "1h",
            }
        folder = place.path / place.name("postfix")
        super().__init__(folder, DOMAIN, users, {SINK: sink}, settings, hosts)
        self.start()

    def processes(self) -> dict[str, list[int]]:
        return {}
