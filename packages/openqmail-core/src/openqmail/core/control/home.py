"""A home: the folder in which `control/ queue/ users/ alias/ run/ mail/` live.

A `Home` only names paths and the owner; it reads and makes nothing.  The owner of the folder
decides as whom everything in it runs.  `Home.find` is how a command comes to its home:
`--home DIR`, else the environment's OPENQMAIL_HOME.
"""

import os
from collections.abc import Mapping

from openqmail.core.values import HomeError

SOCKET_PATH = 107
"""Bytes that the path of a Unix socket may have: sun_path's 108 less the final NUL (unix(7))."""


class Home:
    """The paths of a home, absolute, as `str`; `uid` and `gid` are its owner's."""

    __slots__ = ("alias", "control", "gid", "mail", "path", "queue", "run", "uid", "users")

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            raise HomeError(f"{self.path}: is not there; {_MAKE.format(self.path)}") from None
        except OSError as error:
            raise HomeError(f"{self.path}: {error.strerror}; name the folder of a home") from None
        self.uid, self.gid = found.st_uid, found.st_gid
        self.control = os.path.join(self.path, "control")
        self.queue = os.path.join(self.path, "queue")
        self.users = os.path.join(self.path, "users")
        self.alias = os.path.join(self.path, "alias")
        self.run = os.path.join(self.path, "run")
        self.mail = os.path.join(self.path, "mail")

    @property
    def owner(self) -> tuple[int, int]:
        """uid and gid that everything in this home runs as."""
        return self.uid, self.gid

    @classmethod
    def find(cls, argument: str | None, environ: Mapping[str, str]) -> "Home":
        """The home that was named, checked to be one.  Raises HomeError."""
        path = argument if argument is not None else environ.get("OPENQMAIL_HOME", "")
        if not path:
            raise HomeError("no home is named; give --home DIR or set OPENQMAIL_HOME")
        home = cls(path)
        if not os.path.isdir(home.path):
            raise HomeError(f"{home.path}: not a folder; name the folder of a home")
        if not os.path.isdir(home.control):
            if not os.access(home.path, os.X_OK):
                raise HomeError(f"{home.path}: may not be entered by this user; become its owner first")
            makes = _MAKE.format(home.path)
            if not _is_empty(home.path):
                makes = f"name the folder of a home; {_MAKE.format('DIR')} in a new or empty folder"
            raise HomeError(f"{home.path}: not a home, it has no folder control; {makes}")
        return home


_MAKE = "'openqmail init {} --me NAME --user NAME' makes one"


def _is_empty(path: str) -> bool:
    try:
        return not os.listdir(path)
    except OSError:
        return False


def check_socket_paths(path: str) -> None:
    """Raises HomeError when the sockets of a home at `path` would have too long a name."""
    longest = os.path.join(os.path.abspath(path), "run", "submit")
    length = len(os.fsencode(longest))
    if length > SOCKET_PATH:
        raise HomeError(
            f"{path}: too long a path; its socket {longest} would have {length} bytes, "
            f"the system takes {SOCKET_PATH}; choose a shorter one"
        )
