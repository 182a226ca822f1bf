"""What one program of a service leaves to the next, when it is replaced in the midst of its work.

Descriptors by number, kept open over the exec; the rest as JSON in the environment.
"""

import os
import socket
from collections.abc import MutableMapping
from typing import Any, ClassVar

from openqmail.core.control.settings import Listener
from openqmail.core.service.sockets import Bound

_ChildLeft = tuple[int, Any, int, Any, int, int, int]
"""Number, role, generation, state, pid, uid, the descriptor of its channel."""


class Legacy:
    """Made by the old program, read by the new one."""

    VARIABLE: ClassVar = "OPENQMAIL_LEGACY"

    def __init__(
        self,
        since: int,
        generation: int,
        lock: int,
        bound: Bound,
        admin: socket.socket,
        submit: socket.socket,
        children: "list[_ChildLeft]",
    ) -> None:
        self.since, self.generation, self.lock = since, generation, lock
        self.bound, self.admin, self.submit, self.children = bound, admin, submit, children

    def written(self) -> dict[str, Any]:
        """For the environment; from now on the descriptors stay open over an exec."""
        sockets = [one for some in self.bound.values() for one in some]
        kept = [self.lock, self.admin.fileno(), self.submit.fileno()]
        kept += [one.fileno() for one in sockets] + [child[6] for child in self.children]
        for descriptor in kept:
            os.set_inheritable(descriptor, True)
        return {
            "pid": os.getpid(),
            "since": self.since,
            "generation": self.generation,
            "lock": self.lock,
            "bound": [
                [one.service, one.host, one.port, [each.fileno() for each in some]]
                for one, some in self.bound.items()
            ],
            "admin": self.admin.fileno(),
            "submit": self.submit.fileno(),
            "children": [list(child) for child in self.children],
        }

    @classmethod
    def read(cls, found: dict[str, Any]) -> "Legacy | None":
        """None when it is another process's."""
        if found["pid"] != os.getpid():
            return None
        for descriptor in _descriptors(found):
            os.set_inheritable(descriptor, False)
        bound = {
            Listener(service, host, port): [socket.socket(fileno=one) for one in some]
            for service, host, port, some in found["bound"]
        }
        return cls(
            found["since"],
            found["generation"],
            found["lock"],
            bound,
            socket.socket(fileno=found["admin"]),
            socket.socket(fileno=found["submit"]),
            [tuple(child) for child in found["children"]],
        )

    @classmethod
    def take(cls, environ: MutableMapping[str, str]) -> "Legacy | None":
        """What the environment has of it, once."""
        import json  # noqa: PLC0415  # only after an upgrade

        text = environ.pop(cls.VARIABLE, None)
        return cls.read(json.loads(text)) if text else None


def _descriptors(found: dict[str, Any]) -> list[int]:
    sockets = [one for _, _, _, some in found["bound"] for one in some]
    return [found["lock"], found["admin"], found["submit"], *sockets, *(one[6] for one in found["children"])]
