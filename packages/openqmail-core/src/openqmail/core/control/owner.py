"""As whom a home is touched: always as its owner.

Root becomes the owner, for as long as a command works there or, to serve it, for good; so
nothing in a folder that somebody else may write to leads root anywhere.
"""

import grp
import importlib
import os
import pwd
import shlex
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib.machinery import PathFinder

from openqmail.core.control import extensions
from openqmail.core.control.home import Home
from openqmail.core.control.settings import METRICS_LIBRARY
from openqmail.core.control.syntax import load_idna
from openqmail.core.values import HomeError, OpenqmailError

_LATE = ("difflib", "encodings.punycode")
"""Python's own modules that are imported where they are needed, also by libraries."""


@contextmanager
def as_owner(home: Home) -> Iterator[None]:
    """Work as the home's owner.  Raises HomeError for anybody else but root."""
    me = os.geteuid()
    if me not in (home.uid, 0):
        raise _not_the_owner(home)
    with acting_as(home.uid, home.gid):
        yield


@contextmanager
def acting_as(uid: int, gid: int) -> Iterator[None]:
    """Take on a uid, its group and its other groups, and give them back.

    What is used inside must be imported before: the owner may not be able to read it."""
    if os.geteuid() != 0 or uid == 0:
        yield
        return
    load_late()
    before = os.getegid(), os.getgroups()
    os.setgroups(_groups(uid, gid))
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(before[0])
        os.setgroups(before[1])


def load_late() -> None:
    """Import what may be needed later: who it is then may not be able to read where it lies.

    What takes memory and few need is imported by those few, where anybody can read it."""
    if not for_everybody():
        for module in _LATE:
            importlib.import_module(module)
    if not for_everybody("idna"):
        load_idna()
    extensions.installed(METRICS_LIBRARY)
    for name in extensions.registered("openqmail.control"):
        with suppress(OpenqmailError):  # said when the control files are read
            extensions.load("openqmail.control", name)


def for_everybody(*packages: str) -> bool:
    """Whether anybody may read their modules, Python's own, which every package needs, and ours."""
    files = [os.__file__, __file__]
    try:
        for package in packages:
            spec = PathFinder.find_spec(package)
            folders = (spec and spec.submodule_search_locations) or ()
            found = [one.path for folder in folders for one in os.scandir(folder) if one.name.endswith(".py")]
            if not found:
                return False
            files += found
        return all(_open_to_all(file) and _open_to_all(os.path.realpath(file)) for file in files)
    except OSError:
        return False


def _open_to_all(path: str) -> bool:
    """Whether anybody may read it, by its mode and those of the folders above it."""
    path = os.path.abspath(path)
    wanted = 0o4
    while os.stat(path).st_mode & wanted == wanted:
        if path == "/":
            return True
        path, wanted = os.path.dirname(path), 0o5
    return False


def become_owner(home: Home) -> None:
    """Run as the home's owner from here on.  Raises HomeError for anybody else but root, and
    for a home of root's."""
    me = os.geteuid()
    if me not in (home.uid, 0):
        raise _not_the_owner(home)
    if home.uid == 0:
        raise HomeError(
            f"{home.path}: belongs to root; give it to the user who shall run it: chown -R USER {home.path}"
        )
    if me == 0:
        os.setgroups(_groups(home.uid, home.gid))
        os.setgid(home.gid)
        os.setuid(home.uid)


def _groups(uid: int, gid: int) -> list[int]:
    try:
        return os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
    except KeyError:  # a uid without a name, as in a container
        return [gid]


def _not_the_owner(home: Home) -> HomeError:
    names = user_name(home.uid), user_name(os.geteuid())
    return HomeError(f"{home.path}: belongs to {names[0]}, you are {names[1]}; become its owner first")


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


BEGUN = "pid"
"""A folder of a queue's, made by hand to say that an empty queue is meant: the start makes the others.
Without any of them `queue/` could be one that is lost, or is not mounted."""


def to_make(folders: Iterable[str], mode: int, uid: int, gid: int) -> str:
    """The command by which root, or this user, makes folders that are missing; its paths end it."""
    places = " ".join(map(shlex.quote, folders))
    return f"install -d -o {user_name(uid)} -g {group_name(gid)} -m {mode:o} {places}"
