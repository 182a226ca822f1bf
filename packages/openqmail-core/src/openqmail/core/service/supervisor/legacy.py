"""What one program of a service leaves to the next, when it is replaced in the midst of its work.

Descriptors by number, kept open over the exec; the rest as JSON in the environment.  The new one is
tried before: whether it can be imported, and reads the control files.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, MutableMapping
from typing import Any, ClassVar

from openqmail.core.control.settings import Listener
from openqmail.core.service.sockets import Bound

_TRIAL = """
import sys
from openqmail.core.control.home import Home
from openqmail.core.control.reader import read_settings
from openqmail.core.service.supervisor import shell
read_settings(Home(sys.argv[1]))
"""
_TRIED = 20.0
"""Seconds that a trial may take."""

ChildLeft = tuple[int, Any, int, Any, int, int, int, bool]
"""Number, role, generation, state, pid, uid, the descriptor of its channel, whether it has greeted."""


class Legacy:
    """Made by the old program, read by the new one."""

    VARIABLE: ClassVar = "OPENQMAIL_LEGACY"

    def __init__(
        self,
        since: int,
        generation: int,
        lock: int,
        bound: Bound,
        given: Iterable[Listener],
        admin: socket.socket,
        submit: socket.socket,
        children: "list[ChildLeft]",
    ) -> None:
        """`given`: those of `bound` that whoever started the service had bound."""
        self.since, self.generation, self.lock = since, generation, lock
        self.bound, self.admin, self.submit, self.children = bound, admin, submit, children
        self.given = frozenset(given)

    def written(self) -> dict[str, Any]:
        """For the environment."""
        return {
            "pid": os.getpid(),
            "since": self.since,
            "generation": self.generation,
            "lock": self.lock,
            "bound": [
                [one.service, one.host, one.port, [each.fileno() for each in some], one in self.given]
                for one, some in self.bound.items()
            ],
            "admin": self.admin.fileno(),
            "submit": self.submit.fileno(),
            "children": [list(child) for child in self.children],
        }

    def leave(self) -> str:
        """Go on as the program that is installed now, with the same pid; returns only with why not."""
        os.environ[self.VARIABLE] = json.dumps(self.written())
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

    def _keep(self, over: bool) -> None:
        """Whether the descriptors stay open over an exec."""
        for descriptor in _descriptors(self.written()):
            os.set_inheritable(descriptor, over)

    @classmethod
    def read(cls, found: dict[str, Any]) -> "Legacy | None":
        """None when it is another process's."""
        if found["pid"] != os.getpid():
            return None
        for descriptor in _descriptors(found):
            os.set_inheritable(descriptor, False)
        bound = {
            Listener(service, host, port): [socket.socket(fileno=one) for one in some]
            for service, host, port, some, _ in found["bound"]
        }
        return cls(
            found["since"],
            found["generation"],
            found["lock"],
            bound,
            [Listener(service, host, port) for service, host, port, _, given in found["bound"] if given],
            socket.socket(fileno=found["admin"]),
            socket.socket(fileno=found["submit"]),
            [tuple(child) for child in found["children"]],
        )

    @classmethod
    def take(cls, environ: MutableMapping[str, str]) -> "Legacy | None":
        """What the environment has of it, once."""
        text = environ.pop(cls.VARIABLE, None)
        return cls.read(json.loads(text)) if text else None


def try_installed(home: str) -> str:
    """Why the program that is installed could not take over the service of this home; empty if it can."""
    try:
        tried = subprocess.run(
            # -P, and no folder of anybody's: what lies there must not be taken for a module.
            [sys.executable, "-P", "-c", _TRIAL, home],
            cwd="/",
            capture_output=True,
            check=False,
            timeout=_TRIED,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    said = tried.stderr.decode("utf-8", "replace").strip()
    return (said.rpartition("\n")[2] or f"code {tried.returncode}") if tried.returncode else ""


def _descriptors(found: dict[str, Any]) -> list[int]:
    sockets = [one for _, _, _, some, _ in found["bound"] for one in some]
    return [found["lock"], found["admin"], found["submit"], *sockets, *(one[6] for one in found["children"])]
