"""What a test may ask of any MTA here, whether its time is real or virtual."""

import os
import smtplib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self

from openqmail.core.log import Event, MemoryLog
from openqmail.core.ports import MessageSummary
from openqmail.core.testing.errors import NotArrived, TestingError, with_log
from openqmail.core.testing.home import TemporaryHome
from openqmail.core.testing.mail import Mail, Message, from_maildir, wire_of
from openqmail.core.testing.network import Network
from openqmail.core.testing.receiver import Receiver
from openqmail.core.world import Clock, Disk


class Face(ABC):
    """An MTA for `users` (they have mailboxes) at `domain`.

    `receivers`: other hosts, by domain (`*`: any other); one that is not named accepts everything.
    `control`: control files, by name; `logins`: who may log in, with passwords.  Runs inside `with`, or from
    `start` to `close`.
    """

    disk: Disk
    """Its mailboxes and its queue lie here."""

    def __init__(
        self,
        users: Sequence[str] = ("alice",),
        domain: str = "a.example",
        receivers: Mapping[str, Receiver] | None = None,
        control: Mapping[str, str] | None = None,
        logins: Mapping[str, str] | None = None,
    ) -> None:
        if isinstance(users, str):
            raise TestingError(f"users={users!r} is one str; give a list: users=[{users!r}]")
        self.users = tuple(users)
        self.domain = domain.lower()
        self._receivers = dict(receivers or {})
        self._clock = self._make_clock()
        self._network = Network(self._receivers, self._clock.now)
        self._events = MemoryLog()
        self._logins = dict(logins or {})
        self._home = TemporaryHome(self.users, self.domain, control or {}, self._logins)

    # --- mail -------------------------------------------------------------------------------

    @abstractmethod
    def smtp(self) -> smtplib.SMTP:
        """A client that is connected to it; to be closed (`with mta.smtp() as client`)."""

    def submit(self, sender: str, recipients: str | Sequence[str], message: Message) -> None:
        """Hand a message in by SMTP, as a program does.  Raises smtplib's errors."""
        to = [recipients] if isinstance(recipients, str) else list(recipients)
        beyond_ascii = not "".join((sender, *to)).isascii()
        with self.smtp() as client:
            self._prove(client)
            client.sendmail(
                sender, to, wire_of(message), ["SMTPUTF8", "BODY=8BITMIME"] if beyond_ascii else []
            )

    def mails(self, whom: str) -> list[Mail]:
        """What has arrived for a user, or what has been sent to an address elsewhere; oldest first."""
        local, _, domain = whom.partition("@")
        if domain and domain.lower() != self.domain:
            return [mail for mail in self.sent(domain) if whom.lower() in map(str.lower, mail.recipients)]
        user = local.lower()
        if user not in self.users:
            there = ", ".join(self.users)
            raise TestingError(f"there is no user {local!r} at {self.domain}; there are: {there}")
        return [from_maildir(content) for content in self._maildir(user)]

    def wait_for(self, whom: str, count: int = 1, seconds: float = 5.0) -> list[Mail]:
        """`mails`, as soon as there are so many.  Raises NotArrived after `seconds`."""
        for _ in self._moments(seconds):
            if len(found := self.mails(whom)) >= count:
                return found
        missing = f"{len(found)} of {count} mails" if found else "no mail"
        raise NotArrived(with_log(f"{missing} for {whom} within {seconds:g} s", self.log))

    def sent(self, domain: str | None = None) -> list[Mail]:
        """What other hosts have taken, or those of one domain."""
        return [mail for where, mail in list(self._network.sent) if domain is None or where == domain.lower()]

    def receiver(self, domain: str) -> Receiver:
        """Who takes the mail of a domain elsewhere: its `attempts`."""
        return self._network.receiver(domain)

    # --- what else there is to see and to do ----------------------------------------------------

    @property
    def home(self) -> str:
        """The folder of its home, which has `control/` and `users/`."""
        return self._home.path

    @property
    def log(self) -> list[str]:
        """The lines of its log, without the time."""
        return [line.decode("utf-8", "replace") for line in self._events.lines()]

    @property
    def events(self) -> list[Event]:
        """The same as values."""
        return list(self._events.events)

    @abstractmethod
    def queue(self) -> list[MessageSummary]:
        """What is queued, oldest first."""

    @abstractmethod
    def control(self, name: str, text: str | None) -> None:
        """Write a control file, or remove it, and have the settings read.

        Raises ControlError where they would not do: all stays as it was then."""

    @abstractmethod
    def start(self) -> None:
        """It serves when this returns.  Raises OpenqmailError."""

    @abstractmethod
    def stop(self) -> None:
        """End in order; what is queued stays queued, and `start` goes on with it."""

    @abstractmethod
    def crash(self) -> None:
        """End as if killed."""

    @abstractmethod
    def close(self) -> None:
        """End at once, and remove everything.  May be called again."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- for those two -----------------------------------------------------------------------

    @abstractmethod
    def _prove(self, client: smtplib.SMTP) -> None:
        """Log in, where a message is taken from nobody else."""

    @abstractmethod
    def _make_clock(self) -> Clock: ...

    @abstractmethod
    def _moments(self, seconds: float) -> Iterator[None]:
        """Looks, from now until so many seconds have passed, the last one then."""

    def _maildir(self, user: str) -> list[bytes]:
        folder = os.fsencode(os.path.join(self._home.mail, user, "Maildir"))
        found = []
        for below in (b"new", b"cur"):
            names = self.disk.names(os.path.join(folder, below))
            found += [self.disk.contents(os.path.join(folder, below, name)) for name in sorted(names)]
        return [content for content, _ in sorted(found, key=lambda one: one[1])]
