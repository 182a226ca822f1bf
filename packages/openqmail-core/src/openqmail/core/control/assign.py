"""users/assign and users/cdb: which user a local part belongs to (qmail-users(5)).

`=local:user:uid:gid:home:dash:ext:` is for one local part, `+prefix:...:` for all that begin
so, and a line with a dot ends the file.  `parse_assign` finds every bad line, `compile_cdb`
makes users/cdb as qmail-newu does, and `Users` looks local parts up in it as qmail-lspawn
does: the exact one, then the longest prefix that ends at a break character.  `owner_of` decides by it
whose mail is, for all who ask.
"""

import os
import time
from collections.abc import Iterable, Iterator
from typing import Protocol

import msgspec

from openqmail.core.control.cdb import Cdb, CdbDamaged, make_cdb
from openqmail.core.values import ControlError, OpenqmailError, Outcome, Result, TemporaryFailure

FILE = "users/assign"

NO_USERS = Result(Outcome.DEFERRAL, b"Trouble reading users/cdb. (#4.3.0)\n")
CHANGED = Result(Outcome.DEFERRAL, b"The user of this address has just changed in users/cdb. (#4.3.0)\n")
NOT_AS_ROOT = Result(Outcome.DEFERRAL, b"Not allowed to perform deliveries as root.\n")
"""What qmail-lspawn reports, for the time being as there: who mends users/assign loses no mail."""

FRESH = 1.0
"""Seconds for which a user that is known is believed without a look at the file."""

CACHE = 8192
"""Local parts that are remembered; then all are forgotten."""


class User(msgspec.Struct, frozen=True, gc=False):
    """Who gets a local part, and what of it is left for the names of .qmail files."""

    name: bytes
    uid: int
    gid: int
    home: bytes
    dash: bytes
    ext: bytes


class UserChanged(TemporaryFailure):
    """A directory that knows one user's addresses alone was asked for one that is another's by now."""


class Directory(Protocol):
    """Who has a local part; `Users` is one."""

    def find(self, local: bytes) -> User | None: ...


def local_part(address: bytes) -> bytes:
    """What stands before the last @, or all of it where there is none."""
    return address.rpartition(b"@")[0] if b"@" in address else address


def owner_of(local: bytes, users: Directory, alias: User, *, own: bool = False) -> User | Result:
    """Whose mail for a local part is, or what a delivery is told where it is nobody's.

    `alias`: who gets what belongs to no user, its `ext` being the local part then; `own`: all runs as the
    owner of a home that is not root's, so uids mean nothing."""
    try:
        user = users.find(local)
    except UserChanged:
        return CHANGED
    except (OSError, OpenqmailError):
        return NO_USERS
    if user is None:
        user = User(alias.name, alias.uid, alias.gid, alias.home, alias.dash, local)
    return user if own or user.uid else NOT_AS_ROOT


class Assignment(msgspec.Struct, frozen=True):
    """A line of users/assign; `wildcard`: a `+` line.  `user.ext` stands before what is left."""

    local: bytes
    wildcard: bool
    user: User


def parse_assign(content: bytes) -> tuple[list[Assignment], list[ControlError]]:
    """The assignments up to the line that begins with a dot, and what is wrong.

    Beyond what qmail-newu checks: uid and gid are numbers, and a line begins with = or +.
    """
    found: list[Assignment] = []
    problems: list[ControlError] = []
    lines = content.split(b"\n")
    for number, line in enumerate(lines, 1):
        if line.startswith(b"."):
            return found, problems
        if number == len(lines):
            break
        try:
            found.append(_assignment(line))
        except ValueError as error:
            problems.append(ControlError(FILE, number, str(error)))
    problems.append(
        ControlError(
            FILE, len(lines), "does not end with a line '.'; without it the file counts as cut off; add it"
        )
    )
    return found, problems


def line_of(content: bytes, entry: Assignment) -> int:
    """The line of users/assign that an entry of users/cdb was made of; 0 when there is none like it."""
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.startswith(b"."):
            break
        kind, name = line[:1], line[1:].partition(b":")[0].lower()
        if (kind == b"+") == entry.wildcard and name == entry.local:
            return number
    return 0


def compile_cdb(assignments: Iterable[Assignment]) -> bytes:
    """users/cdb, byte for byte as qmail-newu writes it for the same lines."""
    return make_cdb(_records(assignments))


class Users:
    """Looks users up in a compiled `users/cdb`, which is read again when it has changed.

    A missing file is an error, as a damaged one is: nobody can tell who the users are.  A new
    user is known at once: whoever is not known is looked for in the file as it is.  One who is
    known is believed for `fresh` seconds after the last look at the file.
    """

    def __init__(self, path: str, fresh: float = FRESH) -> None:
        self._path = path
        self._fresh = fresh
        self._version: tuple[int, int, int] | None = None
        self._cdb: Cdb | None = None
        self._breaks = b""
        self._known: dict[bytes, User | None] = {}
        self._looked = float("-inf")

    def find(self, local: bytes) -> User | None:
        """Raises TemporaryFailure when users/cdb is missing, damaged or cannot be read."""
        user = self._known.get(local)
        now = time.monotonic()
        if user is not None and now - self._looked < self._fresh:
            return user
        self._refresh()
        self._looked = now
        if local in self._known:
            return self._known[local]
        if len(self._known) >= CACHE:
            self._known.clear()
        user = self._known[local] = self._look_up(local)
        return user

    def _refresh(self) -> None:
        try:
            found = os.stat(self._path)
        except OSError as error:
            self._version = None
            raise TemporaryFailure(f"{self._path}: cannot be read: {error.strerror}") from None
        if (found.st_ino, found.st_mtime_ns, found.st_size) != self._version:
            self._known.clear()
            self._cdb, self._version = None, None
            self._read()

    def _read(self) -> None:
        try:
            with open(self._path, "rb") as opened:
                found = os.fstat(opened.fileno())
                cdb = Cdb(opened.read(), self._path)
        except OSError as error:
            raise TemporaryFailure(f"{self._path}: cannot be read: {error.strerror}") from None
        breaks = cdb.get(b"")
        if breaks is None:
            raise CdbDamaged(
                f"{self._path}: damaged: it lists no break characters; make it anew from users/assign"
            )
        self._breaks = breaks
        self._cdb, self._version = cdb, (found.st_ino, found.st_mtime_ns, found.st_size)

    def entry(self, local: bytes) -> Assignment | None:
        """The same, as the entry that decides: its `local` in lower case, its user as `find` gives it.
        Raises as `find`."""
        self._refresh()
        return self._entry(local)

    def _look_up(self, local: bytes) -> User | None:
        found = self._entry(local)
        return None if found is None else found.user

    def _entry(self, local: bytes) -> Assignment | None:
        cdb = self._cdb
        if cdb is None:
            return None
        lower = local.lower()
        data = cdb.get(b"!" + lower + b"\0")
        if data is not None:
            return Assignment(lower, False, self._user(data, b""))
        for end in range(len(lower), -1, -1):
            if end == 0 or lower[end - 1] in self._breaks:
                data = cdb.get(b"!" + lower[:end])
                if data is not None:
                    return Assignment(lower[:end], True, self._user(data, local[end:]))
        return None

    def _user(self, data: bytes, rest: bytes) -> User:
        fields = data.split(b"\0")
        if len(fields) != 6 or not (fields[1].isdigit() and fields[2].isdigit()):
            raise CdbDamaged(
                f"{self._path}: damaged: an entry has the wrong form; make it anew from users/assign"
            )
        name, uid, gid, home, dash, ext = fields
        return User(name, int(uid), int(gid), home, dash, ext + rest)


def _assignment(line: bytes) -> Assignment:
    if b"\0" in line:
        raise ValueError("has a NUL byte; remove it")
    fields = line.split(b":")
    if line[:1] not in (b"=", b"+"):
        raise ValueError("begins with neither = nor +; write =local:user:uid:gid:home:dash:ext:")
    if len(fields) < 8:
        raise ValueError(
            f"has {len(fields) - 1} colons, but needs 7; write =local:user:uid:gid:home:dash:ext:"
        )
    local, name, uid, gid, home, dash, ext = fields[:7]
    for what, text in (("uid", uid), ("gid", gid)):
        if not text.isdigit() or len(text) > 10:
            raise ValueError(f"has a {what} that is not a number; write it in digits")
    return Assignment(local[1:], line[:1] == b"+", User(name, int(uid), int(gid), home, dash, ext))


def _records(assignments: Iterable[Assignment]) -> Iterator[tuple[bytes, bytes]]:
    breaks = bytearray()
    for one in assignments:
        user = one.user
        key = b"!" + one.local.lower() + (b"" if one.wildcard else b"\0")
        if one.wildcard and one.local and one.local[-1] not in breaks:
            breaks.append(one.local[-1])
        fields = (user.name, b"%d" % user.uid, b"%d" % user.gid, user.home, user.dash, user.ext)
        yield key, b"\0".join(fields)
    yield b"", bytes(breaks)
