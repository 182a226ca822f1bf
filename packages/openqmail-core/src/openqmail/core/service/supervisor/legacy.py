"""What one program of a service leaves to the next, when it is replaced in the midst of its work.

Descriptors by number, kept open over the exec; the rest as JSON in the environment.  The new one is
tried before: whether it can be imported, understands this very legacy, and reads the control files.
A key that is new has a default, so that older programs may leave without it.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, MutableMapping
from typing import ClassVar, Literal

import msgspec

from openqmail.core.control.settings import Listener
from openqmail.core.service.frames import codec
from openqmail.core.service.sockets import Bound
from openqmail.core.service.supervisor.machine import ChildState, Role
from openqmail.core.values import OpenqmailError

_TRIAL = """
import sys
from openqmail.core.control.home import Home
from openqmail.core.log import MemoryLog
from openqmail.core.service.run import run
from openqmail.core.service.supervisor.ground import proved_settings
from openqmail.core.service.supervisor.legacy import Legacy
from openqmail.core.values import OpenqmailError
from openqmail.core.world import SystemClock
try:
    Legacy.decoded(sys.stdin.buffer.read())
    proved_settings(Home(sys.argv[1]), MemoryLog(), SystemClock())
except OpenqmailError as error:
    sys.exit(str(error))
"""
_TRIED = 20.0
"""Seconds that a trial may take."""

VERSION = 1
"""Of what is left: another one is not understood."""


class ChildLeft(msgspec.Struct, frozen=True, array_like=True):
    """`channel`: the descriptor; `greeted`: whether the child's preface was read there."""

    number: int
    role: Role
    generation: int
    state: ChildState
    pid: int
    uid: int
    channel: int
    greeted: bool


class BoundLeft(msgspec.Struct, frozen=True, array_like=True):
    """A listener and its sockets; `given`: whoever started the service had bound them."""

    service: str
    host: str
    port: int
    descriptors: tuple[int, ...]
    given: bool = False
    kind: Literal["service", "metrics", "submit"] = "service"

    @classmethod
    def of(cls, listener: Listener, some: Iterable[socket.socket], given: bool) -> "BoundLeft":
        descriptors = tuple(one.fileno() for one in some)
        return cls(listener.service, listener.host, listener.port, descriptors, given, listener.kind)

    @property
    def listener(self) -> Listener:
        return Listener(self.service, self.host, self.port, kind=self.kind)


class Legacy(msgspec.Struct, frozen=True, kw_only=True):
    """Made by the old program, read by the new one.  `frames`: the version of them that the children
    speak; `lock`, `admin`, `submit`: descriptors."""

    VARIABLE: ClassVar = "OPENQMAIL_LEGACY"

    pid: int
    lock: int
    admin: int
    submit: int
    bound: tuple[BoundLeft, ...]
    children: tuple[ChildLeft, ...]
    since: int = 0
    generation: int = 1
    version: int = 1
    frames: int = 1

    @classmethod
    def of(
        cls,
        since: int,
        generation: int,
        lock: int,
        bound: Bound,
        given: Iterable[Listener],
        admin: socket.socket,
        submit: socket.socket,
        children: Iterable[ChildLeft],
    ) -> "Legacy":
        """Of this program.  `given`: those of `bound` that whoever started the service had bound."""
        places = frozenset(one.place for one in given)
        return cls(
            pid=os.getpid(),
            lock=lock,
            admin=admin.fileno(),
            submit=submit.fileno(),
            bound=tuple(BoundLeft.of(one, some, one.place in places) for one, some in bound.items()),
            children=tuple(children),
            since=since,
            generation=generation,
            version=VERSION,
            frames=codec.VERSION,
        )

    @classmethod
    def decoded(cls, text: bytes) -> "Legacy":
        """Raises OpenqmailError when this program cannot go on with it."""
        try:
            found = msgspec.json.decode(text, type=cls)
        except msgspec.DecodeError as error:
            raise OpenqmailError(f"what the running service leaves is not understood: {error}") from None
        if (found.version, found.frames) != (VERSION, codec.VERSION):
            raise OpenqmailError(
                f"the running service leaves version {found.version} and speaks version {found.frames} of "
                f"the frames, this program knows {VERSION} and {codec.VERSION}; stop it and start it anew"
            )
        return found

    @classmethod
    def take(cls, environ: MutableMapping[str, str]) -> "Legacy | None":
        """What the environment has of it, once; None when it is another process's.

        Raises OpenqmailError."""
        text = environ.pop(cls.VARIABLE, None)
        found = cls.decoded(text.encode()) if text else None
        if found is None or found.pid != os.getpid():
            return None
        found._keep(False)
        return found

    def leave(self) -> str:
        """Go on as the program that is installed now, with the same pid; returns only with why not."""
        os.environ[self.VARIABLE] = self.encoded().decode()
        wakeup = signal.set_wakeup_fd(-1)
        self._keep(True)
        try:
            words = [word for word in sys.orig_argv[1:] if word != "--salvage"]  # said once, done once
            os.execv(sys.executable, [sys.executable, *words])
        except OSError as error:
            self._keep(False)
            signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
            del os.environ[self.VARIABLE]
            return f"{sys.executable} cannot be executed: {error.strerror or error}"

    def encoded(self) -> bytes:
        return msgspec.json.encode(self)

    def listening(self) -> Bound:
        """The sockets of the listeners, once: they are the caller's."""
        return {one.listener: [socket.socket(fileno=each) for each in one.descriptors] for one in self.bound}

    def _keep(self, over: bool) -> None:
        """Whether the descriptors stay open over an exec."""
        listening = [each for one in self.bound for each in one.descriptors]
        channels = [one.channel for one in self.children]
        for descriptor in (self.lock, self.admin, self.submit, *listening, *channels):
            os.set_inheritable(descriptor, over)


def try_installed(home: str, legacy: Legacy) -> str:
    """Why the program that is installed could not take over the service of this home; empty if it can."""
    try:
        tried = subprocess.run(
            # -P, and no folder of anybody's: what lies there must not be taken for a module.
            [sys.executable, "-P", "-c", _TRIAL, home],
            input=legacy.encoded(),
            cwd="/",
            capture_output=True,
            check=False,
            timeout=_TRIED,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    said = tried.stderr.decode("utf-8", "replace").strip()
    return (said.rpartition("\n")[2] or f"code {tried.returncode}") if tried.returncode else ""
