"""What every process with a loop has: its supervisor's word, its log, its settings, its end.

A process is told by frames over the socket `control`; when that closes, the supervisor is gone
and the process ends at once.  Signals are the supervisor's: a child ignores them.
"""

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from openqmail.core.control.accounts import Accounts
from openqmail.core.control.assign import Users
from openqmail.core.control.home import Home
from openqmail.core.control.settings import Listener, Settings
from openqmail.core.log import Alert, LogWriter
from openqmail.core.remote import Keys
from openqmail.core.service.figures import Counts
from openqmail.core.service.frames import supervision as said
from openqmail.core.service.frames.channel import Channel
from openqmail.core.service.frames.codec import FrameError
from openqmail.core.service.frames.local_client import MOST, LocalClient
from openqmail.core.service.processes.forking import give_back_files
from openqmail.core.tls import ServerTls
from openqmail.core.values import OpenqmailError
from openqmail.core.world import SystemClock

LOG_DELAY = 0.005
"""Seconds in which lines of the log come together for one write."""

A = TypeVar("A")

BEAT = 1.0
"""Seconds between two words about the work in hand."""


class Inherited:
    """What a child has from the fork: the newest settings, and sockets that listen."""

    def __init__(
        self,
        home: Home,
        settings: Settings,
        accounts: Accounts,
        generation: int,
        listening: dict[Listener, list[socket.socket]],
        admin: socket.socket | None,
        submit: socket.socket | None,
        salvage: bool,
        read: int = 0,
    ) -> None:
        """`read`: when the supervisor read these settings, seconds UTC; it may be long ago."""
        self.home = home
        self.settings = settings
        self.accounts = accounts
        self.generation = generation
        self.listening = listening
        self.admin = admin
        self.submit = submit
        self.salvage = salvage
        self.read = read
        self.tls: ServerTls | None = None
        self.keys: Keys | None = None
        self.tcpto: int | None = None
        """queue/lock/tcpto, open, in `remote` alone, who may not reach the queue."""

    def load_tls(self) -> None:
        """Certificates and keys, for a process that may not read them later.  Raises ControlError."""
        settings = self.settings
        self.tls = ServerTls.load(self.home.control, settings.me, settings.tlsserverciphers)

    def load_keys(self) -> None:
        """What only `remote` may know: our key, and our logins elsewhere.  Raises ControlError."""
        self.keys = Keys.load(self.home.control, self.settings)

    def services(self) -> dict[Listener, list[socket.socket]]:
        """What smtpd serves."""
        return {one: some for one, some in self.listening.items() if one.kind == "service"}

    def metrics(self) -> list[socket.socket]:
        """Where figures are told."""
        return [each for one, some in self.listening.items() if one.kind == "metrics" for each in some]


def local_client(inherited: Inherited, most: int = MOST) -> LocalClient:
    """A client of `local`, with so many workers at most."""
    home, alias = inherited.home, inherited.accounts.alias
    users = Users(os.path.join(home.users, "cdb"))
    return LocalClient(users, (alias.uid, alias.gid), home.owner if home.uid else None, most=most)


class Process:
    """One child, in its loop."""

    def __init__(self, role: str, control: socket.socket, inherited: Inherited) -> None:
        self.role = role
        self.home = inherited.home
        self.settings = inherited.settings
        self.inherited = inherited
        self.clock = SystemClock()
        self.loop = asyncio.get_running_loop()
        soon = partial(self.loop.call_later, LOG_DELAY)
        self.log = LogWriter(sys.stderr.fileno(), self.clock, soon, self.settings.logformat)
        self.leaving = asyncio.Event()
        """Set when it is to end; `seconds` says how long that may take."""
        self.seconds = 0.0
        self._until = 0.0
        self.handover = False
        """It ends for one that follows it at once."""
        self.hurried = asyncio.Event()
        """Set when it is to end at once."""
        self.peers: dict[str, Callable[[socket.socket], None]] = {}
        """Who takes a connection, by its port."""
        self.reload: Callable[[], None] = lambda: None
        self.flush: Callable[[], object] = lambda: None
        self.work: Callable[[], int] = lambda: 0
        self.figures: Callable[[], Mapping[str, Sequence[int]]] | None = None
        """What it has counted, by service/figures.py, if somebody wants to know that."""
        self._ready = False
        self._early: list[tuple[str, socket.socket]] = []
        self._states: list[asyncio.Future[said.State]] = []
        self._figures_asked: list[asyncio.Future[said.Figures]] = []
        self._counts: Counts | None = None
        self._told = 0
        self._channel = Channel(control, said.ToChild, self._received, self._lost)

    def ready(self, note: str = "") -> None:
        """It does its work now."""
        self._ready = True
        early, self._early = self._early, []
        for port, connection in early:
            self._introduce(port, connection)
        self._channel.send(said.Ready(note))
        self._beat()
        give_back_files()

    def failed(self, error: OpenqmailError) -> None:
        """It cannot do its work."""
        self._channel.send(said.Failed.of(error))

    def ask_state(self) -> "asyncio.Future[said.State]":
        """What the supervisor knows."""
        future: asyncio.Future[said.State] = self.loop.create_future()
        self._states.append(future)
        self._channel.send(said.AskState())
        return future

    def ask_figures(self) -> "asyncio.Future[said.Figures]":
        """What all have counted."""
        future: asyncio.Future[said.Figures] = self.loop.create_future()
        self._figures_asked.append(future)
        self._channel.send(said.AskFigures())
        return future

    def alert(self, sentence: str) -> None:
        self.log(Alert(sentence))

    def leave_within(self, seconds: float) -> None:
        """It is to end; what is under way may take so long."""
        self.seconds = seconds
        self._until = self.loop.time() + seconds
        self.leaving.set()

    async def leave(self) -> None:
        """Until it is to end."""
        await self.leaving.wait()

    @property
    def out_of_time(self) -> bool:
        """Whether it has left to end by now what is under way; to be asked while it leaves."""
        return self.hurried.is_set() or self.loop.time() >= self._until

    def close(self) -> None:
        self._tell_figures()
        self._channel.close()
        self.log.flush()

    # --- the supervisor's word ----------------------------------------------------------

    def _received(self, message: said.ToChild, descriptors: list[int]) -> None:
        if isinstance(message, said.Peer):
            for descriptor in descriptors:
                self._introduce(message.port, socket.socket(fileno=descriptor))
        elif isinstance(message, said.Leave):
            self.handover = False  # nobody follows any more
            self.leave_within(message.seconds)
        elif isinstance(message, said.Handover):
            self.handover = True
            self.leaving.set()
        elif isinstance(message, said.Hurry):
            self.hurried.set()
            self.leaving.set()
        elif isinstance(message, said.Reload):
            self.reload()
        elif isinstance(message, said.Flush):
            self.flush()
        elif isinstance(message, said.State):
            _answer(self._states, message)
        else:
            _answer(self._figures_asked, message)

    def _introduce(self, port: str, connection: socket.socket) -> None:
        """In the order in which they came: the last one is the one to be asked."""
        take = self.peers.get(port) if self._ready else None
        if take is None:
            self._early.append((port, connection))
        else:
            take(connection)

    def _lost(self, error: Exception | None) -> None:
        """The supervisor is gone."""
        if isinstance(error, FrameError):
            self.alert(f"{self.role} does not understand its supervisor: {error}; ending")
        self.hurried.set()
        self.leaving.set()

    def _beat(self) -> None:
        count = self.work()
        if count != self._told:
            self._told = count
            self._channel.send(said.Work(count))
        self._tell_figures()
        self.loop.call_later(BEAT, self._beat)

    def _tell_figures(self) -> None:
        """What is new of them."""
        if self.figures is None or not self.settings.metrics:
            return
        if self._counts is None:
            self._counts = Counts(self.role)
        told = self._counts.news(self.figures())
        if told is not None:
            self._channel.send(said.Counted(told.added, told.present))


def _answer(asked: "list[asyncio.Future[A]]", answer: A) -> None:
    """All who have asked."""
    for future in asked:
        if not future.done():
            future.set_result(answer)
    asked.clear()
