"""What a service stands on: its settings, and the sockets that listen by them; and others that are tried.

New settings are taken whole or not at all: read, proved as far as that can be without serving, bound.
What whoever started the service had bound stays, whatever control/listen says.
"""

import socket

import msgspec

from openqmail.core.control.home import Home
from openqmail.core.control.reader import first_of, not_installed, read_settings
from openqmail.core.control.settings import Listener, Settings
from openqmail.core.control.strangers import roots_alone, roots_programs
from openqmail.core.log import Log
from openqmail.core.remote.keys import Keys, has_files
from openqmail.core.service import sockets
from openqmail.core.service.confine.asking import ask_apart
from openqmail.core.service.supervisor.legacy import ChildLeft, Legacy
from openqmail.core.service.supervisor.making import try_hooks
from openqmail.core.service.supervisor.manager import Manager
from openqmail.core.world import Clock


def proved_settings(home: Home, log: Log, clock: Clock) -> Settings:
    """What the control files say, when it can be served and nobody else could have said it.

    Raises OpenqmailError."""
    roots_alone(home)
    settings = read_settings(home)
    roots_programs(home, settings)
    if problems := not_installed(msgspec.structs.asdict(settings), home):
        raise first_of(problems)
    try_hooks(home, settings, log, clock)
    if has_files(home.control) or settings.tlsclientciphers:
        ask_apart(lambda: _load_keys(home, settings))
    return settings


def _load_keys(home: Home, settings: Settings) -> bytes:
    """Whether `remote` will be able to; in a process that ends with that, as no other shall have them."""
    Keys.load(home.control, settings)
    return b""


class Ground:
    """`settings` and `bound` are in force, `admin` and `submit` the sockets in `run/`."""

    def __init__(self, home: Home, settings: Settings, read: int) -> None:
        """`read`: when the control files were read, seconds UTC."""
        self._home = home
        self.settings = settings
        self._read = read
        self.bound: sockets.Bound = {}
        self.given: sockets.Bound = {}
        """Those of `bound` that whoever started the service had bound."""
        self.listen: tuple[tuple[str, str], ...] = ()
        """Service and address of each."""
        self._tried: tuple[Settings, sockets.Bound, int] | None = None

    def bind(self, manager: Manager) -> None:
        """Before anything is started: what cannot be bound stops the start.  Raises OpenqmailError."""
        self.given = manager.sockets(self.settings.listen)
        self.bound = sockets.with_given(sockets.bind(_listeners(self.settings), self.given), self.given)
        self.admin = sockets.bind_local(self._home, "admin", 0o600)
        self.submit = sockets.bind_local(self._home, "submit", 0o666 if self._home.uid == 0 else 0o600)
        self.listen = tuple(sockets.addresses(self.bound))

    def inherit(self, legacy: Legacy) -> None:
        """The same from the program before."""
        named = {one.place: one for one in self.settings.listen}  # the legacy knows no options
        self.bound = {named.get(place, place): some for place, some in legacy.listening().items()}
        self.admin = socket.socket(fileno=legacy.admin)
        self.submit = socket.socket(fileno=legacy.submit)
        given = {one.listener for one in legacy.bound if one.given}
        self.given = {one: some for one, some in self.bound.items() if one.place in given}
        self.listen = tuple(sockets.addresses(self.bound))

    def for_child(self, trial: bool) -> tuple[Settings, sockets.Bound, int]:
        """What a child is given, and when the settings were read; `trial`: to try what is tried."""
        return self._tried if trial and self._tried else (self.settings, self.bound, self._read)

    def attempt(self, log: Log, clock: Clock) -> Settings:
        """New settings and their sockets, to be tried; those of an attempt before are forgotten.

        Raises OpenqmailError; then all is as before."""
        read = int(clock.now())
        settings = proved_settings(self._home, log, clock)
        bound = sockets.with_given(sockets.bind(_listeners(settings), self.bound), self.given)
        if self._tried:
            _close_but(self._tried[1], self.bound | bound)
        self._tried = settings, bound, read
        return settings

    def take(self) -> None:
        """What was tried is good."""
        if self._tried:
            _close_but(self.bound, self._tried[1])
            self.settings, self.bound, self._read = self._tried
        self.listen = tuple(sockets.addresses(self.bound))
        self._tried = None

    def refuse(self) -> None:
        """What was tried is not."""
        if self._tried:
            _close_but(self._tried[1], self.bound)
        self._tried = None

    def left(self, since: int, generation: int, lock: int, children: list[ChildLeft]) -> Legacy:
        """What an upgrade leaves of it, and of the rest."""
        return Legacy.of(since, generation, lock, self.bound, self.given, self.admin, self.submit, children)

    def close(self) -> None:
        """Who comes now is told at once that nobody is here; who asks how it goes, is answered."""
        for some in self.bound.values():
            for one in some:
                one.close()
        self.submit.close()
        sockets.unlink_local(self._home, "submit")


def _listeners(settings: Settings) -> tuple[Listener, ...]:
    return settings.listen + settings.metrics


def _close_but(bound: sockets.Bound, keep: sockets.Bound) -> None:
    """Those of `bound` that are no more."""
    kept = {one.place for one in keep}
    for listener in [one for one in bound if one.place not in kept]:
        for gone in bound[listener]:
            gone.close()
