"""Clients that send until they see the 250, and the account of what became of it.

A message says its number and which attempt of its client it is.  What was answered with 250 must be
found at each of its recipients, whole.  Copies of one attempt beyond the first are repeats of the
service; an attempt without an answer may have arrived as well, and is counted apart.  A client tries
one message for a minute and takes a 5xx at once: either is a failure.
"""

import contextlib
import hashlib
import random
import re
import smtplib
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from homes import Home

PATIENCE = 60.0
"""Seconds that a client tries one message; then the service is taken for gone, and all clients end."""
_AGAIN = 0.01
_IDS = re.compile(rb"^X-Id: (\d+)/(\d+)\n", re.MULTILINE)

Recipients = Callable[[int], tuple[str, ...]]
"""Who gets a message, by its number alone."""


def permanent(error: Exception) -> bool:
    """Whether sending again would end no better: a 5xx, or an extension that is not offered."""
    match error:
        case smtplib.SMTPRecipientsRefused():
            return any(code >= 500 for code, _ in error.recipients.values())
        case smtplib.SMTPResponseException():
            return error.smtp_code >= 500
        case OSError():  # SMTPException is one, too
            return isinstance(error, smtplib.SMTPNotSupportedError)
    return True  # nothing that a network does


def text(number: int, attempt: int) -> bytes:
    """A message of its own, some small, some of a few KiB, now and then a large one."""
    size = 200_000 if number % 997 == 5 else 100 + number * 7919 % 5000
    body = hashlib.shake_128(str(number).encode()).hexdigest(size // 2).encode()
    lines = b"\n".join(body[at : at + 76] for at in range(0, len(body), 76))
    return b"Subject: sent\nX-Id: %d/%d\n\n%s\n" % (number, attempt, lines)


class Clients:
    """Clients that each send their share, and again until the 250 is seen.

    They end when so many `messages` are accepted, or, without a number, at `stop`; `pause`: seconds
    that each waits between two."""

    def __init__(
        self,
        home: Home,
        recipients: Recipients,
        clients: int,
        messages: int | None = None,
        pause: float = 0.0,
    ) -> None:
        self._home, self._recipients = home, recipients
        self._lock = threading.Lock()
        self._next = 0
        self._messages, self._pause = messages, pause
        self.accepted: dict[int, int] = {}  # number -> the attempt that was answered
        self.attempts = 0
        self.failed: list[str] = []
        self.turned_away: Counter[str] = Counter()
        """Connections that were not answered with 220, by what came instead."""
        self._gone = False
        self._connections: list[smtplib.SMTP] = []
        self._working = threading.Event()
        self._working.set()
        self._began, self._worked = time.monotonic(), 0.0
        self._threads = [threading.Thread(target=self._client, daemon=True) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    @property
    def busy(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def die(self, dice: random.Random) -> None:
        """One of the clients is gone, whatever it was about to say; another comes in its place."""
        with self._lock:
            self._connections = [one for one in self._connections if one.sock is not None]
            chosen = dice.choice(self._connections) if self._connections else None
        with contextlib.suppress(OSError, AttributeError):  # it has gone meanwhile
            if chosen is not None:
                chosen.sock.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]

    def rest(self) -> None:
        """Each ends its message and its connection, and waits for `work`."""
        if self._working.is_set():
            self._worked += time.monotonic() - self._began
        self._working.clear()

    def work(self) -> None:
        if not self._working.is_set():
            self._began = time.monotonic()
        self._working.set()

    @property
    def worked(self) -> float:
        """Seconds that they have been sending."""
        return self._worked + (time.monotonic() - self._began if self._working.is_set() else 0.0)

    def stop(self) -> None:
        """Each ends its message."""
        self._messages = 0
        self.work()
        for thread in self._threads:
            thread.join()
        self.rest()

    def one_more(self) -> tuple[float, float]:
        """A message of its own on a new connection; seconds until its 220, and until its 250."""
        with self._lock:
            self._next += 1
            number = self._next
        began = time.monotonic()
        connection = None
        while connection is None and time.monotonic() < began + PATIENCE:
            try:
                connection = self._connect()
            except OSError:
                time.sleep(_AGAIN)
        greeted = time.monotonic()
        if connection := self._send(number, connection):
            connection.close()
        return greeted - began, time.monotonic() - began

    def _connect(self) -> smtplib.SMTP:
        try:
            made = smtplib.SMTP("127.0.0.1", self._home.port, "client.example", 30)
        except OSError as error:
            self.turned_away[f"{type(error).__name__}: {error}"] += 1
            raise
        with self._lock:
            self._connections.append(made)
        return made

    def _take(self) -> int | None:
        with self._lock:
            if self._gone or (self._messages is not None and self._next >= self._messages):
                return None
            self._next += 1
            return self._next

    def _client(self) -> None:
        connection: smtplib.SMTP | None = None
        while (number := self._take()) is not None:
            connection = self._send(number, connection)
            if self._pause:
                time.sleep(self._pause)
            if not self._working.is_set():
                connection = _ended(connection)
                self._working.wait()
        _ended(connection)

    def _send(self, number: int, connection: smtplib.SMTP | None) -> smtplib.SMTP | None:
        """Sends until the 250, a permanent error, or the end of patience; the connection if it stands."""
        end = time.monotonic() + PATIENCE
        recipients = self._recipients(number)
        attempt = 0
        while True:
            try:
                connection = connection or self._connect()
                attempt += 1
                self.attempts += 1
                wire = text(number, attempt).replace(b"\n", b"\r\n")
                if refused := connection.sendmail("sender@a.example", recipients, wire):
                    raise smtplib.SMTPRecipientsRefused(refused)
                self.accepted[number] = attempt
                return connection
            except Exception as error:  # whatever it is, it must be seen
                if connection:
                    connection.close()
                connection = None
                late = time.monotonic() > end
                if late or self._gone or permanent(error):
                    self._gone |= late
                    why = f"in vain for {PATIENCE:.0f} s, at last " if late else ""
                    self.failed.append(f"{number}: {why}{type(error).__name__}: {error}")
                    return None
                time.sleep(_AGAIN)  # nobody is there just now


def _ended(connection: smtplib.SMTP | None) -> None:
    if connection:
        with contextlib.suppress(OSError):
            connection.quit()


class Account(NamedTuple):
    """`lost` and `damaged` must be empty.  `repeats`: by the host of the recipient."""

    recipients: int
    lost: list[str]
    damaged: list[str]
    repeats: Counter[str]
    unanswered: int


def account(clients: Clients, recipients: Recipients, mails: Iterable[tuple[str, bytes]]) -> Account:
    """Holds what was accepted against what has arrived: address and mail, with LF."""
    damaged: list[str] = []
    copies: Counter[tuple[int, int, str]] = Counter()
    for address, mail in mails:
        ids = _IDS.search(mail)
        if ids is None:
            damaged.append(f"{address} has {mail[:200]!r}")
            continue
        number, attempt = int(ids[1]), int(ids[2])
        if not mail.endswith(text(number, attempt)) or address not in recipients(number):
            damaged.append(f"{address}: {number}/{attempt} is not what was sent")
        else:
            copies[number, attempt, address] += 1
    wanted = {(n, a, address) for n, a in clients.accepted.items() for address in recipients(n)}
    lost = [f"{number}/{attempt} to {address}" for number, attempt, address in sorted(wanted - copies.keys())]
    repeats: Counter[str] = Counter()
    for (_, _, address), count in copies.items():
        repeats[address.rpartition("@")[2]] += count - 1
    return Account(len(wanted), lost, damaged, repeats, len(copies.keys() - wanted))


def in_maildirs(home: Home, users: Mapping[str, str]) -> Iterable[tuple[str, bytes]]:
    """Every mail of these users of a home: address -> user."""
    for address, user in users.items():
        for mail in home.mails(user):
            yield address, mail
