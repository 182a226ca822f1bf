"""The two that are measured, each behind the same face: openqmail and Debian's Postfix.

Each runs once for each sort of works: one delivers, others hold what they have accepted.  Both keep
their defaults of durability, log to a file, deliver at most 20 at once, and write to Maildirs that are
new in every round.  Under TLS both have the same certificate (ECDSA, P-256), at a login the same hash.
Postfix has its own configuration, queue and data under the folder of the run, and a Dovecot that does
nothing but SASL; the system's instances are neither used nor touched.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple, Protocol

import argon2
from load import CONNECTIONS
from secured import LOGIN, PASSWORD

import postfix
import system_users
from dovecot_auth import DovecotAuth
from homes import Place, free_port
from openqmail.core.control import enrolment
from openqmail.core.control.hashing import hash_password
from openqmail.core.control.home import Home
from openqmail.core.control.smtpauth import with_secrets
from openqmail.core.tls.selfsign import self_signed
from system_homes import SystemHome

DOMAIN = "bench.example"
SINK = "sink.example"
INCOMING = 1200
"""Clients at once that both serve."""
RECIPIENTS = 10_000
"""Of a message: both are told to take more than they do by default."""


class Sort(NamedTuple):
    """What both peers of a work are set to.  `hold`: they accept, and deliver nothing.  `login`: who sends
    has to log in, and how the password is hashed: as `openqmail user add` does it, or so that it costs
    next to nothing."""

    hold: bool = False
    tls: bool = False
    login: Literal["", "usual", "cheap"] = ""


DELIVERING, HOLDING = Sort(), Sort(hold=True)


def hashed(how: str) -> str:
    """PASSWORD as argon2id has it."""
    if how == "usual":
        return hash_password(PASSWORD.encode()).written()
    return argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(PASSWORD)


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
        self.certificate = self.room / "certificate.pem"
        self.certificate.touch(mode=0o600)
        self.certificate.write_bytes(self_signed(DOMAIN, time.time()))
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
    pids: tuple[int, ...]
    """Those whose descendants are all its processes."""
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
    mail are one user of this host, as those of Postfix's virtual(8) are.  `control`: files that are
    others than the bench's; None: one that is not there."""

    name = "openqmail"
    ended, delivered = b" end msg ", b": success: "

    def __init__(
        self,
        place: Ground,
        sort: Sort,
        users: Sequence[str],
        hosts: Sequence[str],
        sink: int,
        control: Mapping[str, str | None] | None = None,
    ) -> None:
        self.port = free_port()
        listen = [f"smtp {host}:{self.port}" for host in hosts]
        name = place.name("hold" if sort.hold else "deliver")
        room = place.room / name
        room.mkdir(mode=0o755)
        self._home = SystemHome(room, [name], DOMAIN, listen)
        place.homes.append(self._home)
        self._home.mailboxes(name, users)
        limit = "0" if sort.hold else str(CONNECTIONS)
        files: dict[str, str | None] = {
            "concurrencylocal": limit,
            "concurrencyremote": limit,
            "concurrencydestination": str(CONNECTIONS),
            "maxrecipients": str(RECIPIENTS),
            "concurrencyincoming": str(INCOMING),
            "smtproutes": f"{SINK}:[127.0.0.1]:{sink}",
        }
        for name, text in (files | dict(control or {})).items():
            self._home.control(name, text)
        if sort.tls:
            (self._home.path / "control/servercert.pem").write_bytes(place.certificate.read_bytes())
        if sort.login:
            line = hashed(sort.login)
            home = Home(str(self._home.path))
            enrolment.change(home, lambda content: with_secrets(content, LOGIN.encode(), line))
        self.log = self._home.log
        self._home.start()
        assert self._home.process is not None
        self.pids: tuple[int, ...] = (self._home.process.pid,)

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
    """An instance of its own under the folder of the run; who may log in, Dovecot knows, which keeps no
    verdict (`auth_cache_size` is 0 by default)."""

    name = "postfix"
    ended, delivered = b": removed\n", b" status=sent "

    def __init__(
        self, place: Ground, sort: Sort, users: Sequence[str], hosts: Sequence[str], sink: int
    ) -> None:
        settings: dict[str, object] = {
            "default_destination_concurrency_limit": CONNECTIONS,
            "smtpd_recipient_limit": RECIPIENTS,
            "default_process_limit": INCOMING,
            "smtpd_client_connection_count_limit": 0,
            "message_size_limit": 32 << 20,
        }
        if sort.hold:
            settings |= {
                "defer_transports": "smtp, virtual",
                "queue_run_delay": "1h",
                "minimal_backoff_time": "1h",
            }
        if sort.tls:
            settings |= {
                "smtpd_tls_security_level": "may",
                "smtpd_tls_chain_files": place.certificate,
                "smtpd_tls_auth_only": "yes",
            }
        self._beside = ExitStack()
        dovecots: tuple[int, ...] = ()
        if sort.login:
            known = {LOGIN: "{ARGON2ID}" + hashed(sort.login)}
            dovecot = self._beside.enter_context(
                DovecotAuth(place.path / place.name("dovecot"), known, "plain")
            )
            settings |= dovecot.settings
            dovecots = (dovecot.pid,)
        folder = place.path / place.name("postfix")
        super().__init__(folder, DOMAIN, users, {SINK: sink}, settings, hosts)
        self.start()
        self.pids: tuple[int, ...] = (self.pid, *dovecots)

    def stop(self) -> None:
        super().stop()
        self._beside.close()

    def processes(self) -> dict[str, list[int]]:
        return {}
