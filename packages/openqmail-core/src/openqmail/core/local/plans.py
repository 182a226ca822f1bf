"""What to do for an address: users/cdb, then `alias`, then their `.qmail` files.

A plan is made for every delivery anew, because a user's files may change at any time, but for
the most frequent one: a home without a `.qmail` file for the address gives the default
delivery, and is remembered with what there is to know of the home.  A file can come into a folder
only with a change of the folder's ctime, which, unlike its mtime, nobody can set back; while
that is the same, one stat is all.
"""

from functools import partial

import msgspec

from openqmail.core.control.assign import Directory, User, local_part, owner_of
from openqmail.core.dotqmail import Mbox, Plan, interpret
from openqmail.core.dotqmail.interpreter import names
from openqmail.core.local.home import ABSENT, check_home, look
from openqmail.core.values import Outcome, Result
from openqmail.core.world import Clock, Disk

SETTLED = 2.0
"""Seconds after which a folder's next change is sure to have another time stamp."""

MOST = 4096
"""Plans that are remembered; then all are forgotten."""


Where = tuple[bytes, bytes, bytes]
"""Home, dash and extension."""

Version = tuple[int, int, int]
"""A home's ctime in nanoseconds, its inode and its device."""


class Box(msgspec.Struct, frozen=True):
    """Where a message is put: the absolute path of a Maildir or an mbox, and as the user wrote it."""

    path: bytes
    shown: bytes
    mbox: bool = False


class Task(msgspec.Struct, frozen=True):
    """A plan made ready for one home.

    `boxes`: in the order of the plan; `waits`: one of them is an mbox, whose lock may take its time.
    `result`: the refusal when `refused`, else the report when all of it is done (a forward adds its
    own line).
    """

    result: Result
    refused: bool = False
    boxes: tuple[Box, ...] = ()
    waits: bool = False
    forwards: tuple[bytes, ...] = ()


class Plans:
    """Makes tasks of addresses; may be asked by one thread at a time."""

    def __init__(self, users: Directory, alias: bytes, disk: Disk, clock: Clock) -> None:
        self._users = users
        self._alias = User(b"alias", 0, 0, alias, b"-", b"")
        self._disk = disk
        self._clock = clock
        self._default = b""
        self._remembered: dict[Where, tuple[Version, Task]] = {}

    def reconfigure(self, default: bytes) -> None:
        """The default delivery, in the form of a `.qmail` file."""
        self._default = default
        self._remembered.clear()

    def task(self, recipient: bytes) -> Task:
        """What to do for an address."""
        user = owner_of(local_part(recipient), self._users, self._alias, own=True)
        if isinstance(user, Result):
            return Task(user, refused=True)
        where = (user.home, user.dash, user.ext)
        known = self._remembered.get(where)
        if known is None:
            return self._make(*where)
        version, task = known
        try:
            home = self._disk.stat(where[0] + b"/.")
        except OSError:
            return self._make(*where)
        if (home.changed, home.inode, home.device) == version:
            return task
        return self._make(*where)

    def _make(self, home: bytes, dash: bytes, ext: bytes) -> Task:
        found = check_home(self._disk, home)
        if isinstance(found, bytes):
            return _deferred(found)
        none = self._has_none(home, dash, ext)
        default = self._default
        plan = (
            interpret(_see_none, dash, ext, default)
            if none
            else plan_in(self._disk, home, dash, ext, default)
        )
        if plan.refusal is not None:
            return Task(plan.refusal, refused=True)
        text = b"did %d+%d+0\n" % (len(plan.deliveries), len(plan.forwards))
        boxes = tuple(
            Box(absolute(home, delivery.path), delivery.path, isinstance(delivery, Mbox))
            for delivery in plan.deliveries
        )
        waits = any(box.mbox for box in boxes)
        task = Task(Result(Outcome.SUCCESS, text), False, boxes, waits, plan.forwards)
        where = (home, dash, ext)
        if none and found.changed / 1e9 + SETTLED <= self._clock.now():
            if len(self._remembered) >= MOST:
                self._remembered.clear()
            self._remembered[where] = ((found.changed, found.inode, found.device), task)
        else:
            self._remembered.pop(where, None)
        return task

    def _has_none(self, home: bytes, dash: bytes, ext: bytes) -> bool:
        """Whether nothing at all has a name that the address looks for.

        What hangs on another folder (a slash, a symbolic link) can come to be without a change
        of the home."""
        return not any(b"/" in name or self._may_be(home + b"/" + name) for name in names(dash, ext))

    def _may_be(self, path: bytes) -> bool:
        """Where nobody can tell, whoever looks at it is to say so."""
        try:
            self._disk.stat(path)
        except OSError as error:
            return error.errno not in ABSENT
        except ValueError:
            return False  # a name with a NUL
        return True


def _see_none(_: bytes) -> None:
    """What a home has under a name, where that is known to be nothing."""


def plan_in(disk: Disk, home: bytes, dash: bytes, ext: bytes, default: bytes) -> Plan:
    """What the `.qmail` files of a home say, which has been checked."""
    return interpret(partial(look, disk, home), dash, ext, default)


def _deferred(text: bytes) -> Task:
    return Task(Result(Outcome.DEFERRAL, text), refused=True)


def absolute(home: bytes, path: bytes) -> bytes:
    return path if path.startswith(b"/") else home + b"/" + path.removeprefix(b"./")
