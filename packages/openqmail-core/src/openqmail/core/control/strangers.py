"""Who but root could change a home of root's, or put another in its place; or a program that root runs.

`run` and a reload ask before root believes what the home says and runs the programs that it names, `init`
before it makes one, and `check` names every place.  Owners and modes alone are looked at, as in modes.py.
"""

import os
import stat
from collections.abc import Iterator

from openqmail.core.control.accounts import find_accounts
from openqmail.core.control.home import Home
from openqmail.core.control.owner import user_name
from openqmail.core.control.reader import all_definitions
from openqmail.core.control.settings import Settings
from openqmail.core.control.submitting import PROGRAMS
from openqmail.core.values import ControlError, HomeError


def not_roots(path: str) -> str:
    """Who but root could put another thing in the place of a home at `path`; empty: nobody."""
    for folder, owner in replaceable(path, (0,)):
        if owner:
            return f"{folder} belongs to {owner}, who could put another home in its place"
        return f"others may write to {folder}, and put another home in its place"
    return ""


SECRETS = {
    "users/smtpauth": "gate",
    "control/clientcert.pem": "remote",
    "control/credentials": "remote",
}
"""Files that may belong to the one process that reads them, as well as to root."""

_KEYS = ("servercert.pem", "clientca.pem", "clientcrl.pem")
_FOLDERS = ("certs", "tlshosts", "notlshosts")
"""What is read of TLS, beside the control files; of a folder each file that is in it."""


def roots_alone(home: Home) -> None:
    """Raises HomeError when somebody else could change what root is to do in a home of root's, or who may
    log in, or what is believed of other hosts; any other home is its owner's matter."""
    if home.uid:
        return
    why = not_roots(home.path)
    names = (*(one.name for one in all_definitions()), *_KEYS)
    settings = (os.path.join(home.control, name) for name in names)
    users = (os.path.join(home.users, name) for name in ("assign", "cdb"))
    for path in (home.path, home.control, home.users, home.run, *settings, *users, *_kept(home)):
        why = why or _changeable(path)
    for name, role in SECRETS.items():
        why = why or _changeable(os.path.join(home.path, name), home, role)
    if why:
        raise HomeError(f"{home.path}: {why}; root serves it when that is mended, as 'openqmail check' says")


_LINKS = 40
"""As many symbolic links Linux follows."""


def roots_programs(home: Home, settings: Settings) -> None:
    """Raises ControlError when somebody else could change a program that root is to run for a login; in any
    other home they are run as its owner, and are his matter."""
    if home.uid:
        return
    for name, place, owner in changeable_programs(settings, (0,)):
        who = f"{place} belongs to {owner}" if owner else f"others may write to {place}"
        why = f"{who}, and root would run what is put there; mend that, as 'openqmail check' says"
        raise ControlError(f"control/{name}", 0, why)


def changeable_programs(settings: Settings, owners: tuple[int, ...]) -> Iterator[tuple[str, str, str]]:
    """The control file of each program for logins, and where somebody else than these uids could have
    another program run in its place: place and owner as of `replaceable`.

    The program itself may be missing, and be put there later.  Of the arguments those are looked at that are
    programs, too: such a program goes on with them."""
    told: set[str] = set()
    for name in PROGRAMS:
        for number, word in enumerate(getattr(settings, name)):
            path = os.fsdecode(word)
            if number == 0 or (path.startswith("/") and _is_program(path)):
                for place, owner in _ways_to(path, owners):
                    if place not in told:
                        told.add(place)
                        yield name, place, owner


def _is_program(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def _ways_to(path: str, owners: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    """Of the file, and all folders and symbolic links by which the kernel comes to it, as far as they are
    there."""
    at, parts, links = "/", path.split("/")[::-1], 0
    while parts and links <= _LINKS:
        part = parts.pop()
        if part in ("", "."):
            continue
        found = os.lstat(at)
        if found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
            yield at, ""
        if part == "..":
            at = os.path.dirname(at)
            continue
        step = os.path.join(at, part)
        try:
            found = os.lstat(step)
        except OSError:
            return
        if found.st_uid not in owners:
            yield step, user_name(found.st_uid)
        if not stat.S_ISLNK(found.st_mode):
            at = step
            continue
        target, links = os.readlink(step), links + 1
        at = "/" if target.startswith("/") else at
        parts += target.split("/")[::-1]
    if os.lstat(at).st_mode & 0o022:
        yield at, ""


def replaceable(path: str, owners: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    """The folders above `path` in which somebody else than these uids could put another thing in its
    place, and whose each is; nobody's name: others may write to it."""
    for folder in folders_to(path):
        found = os.stat(folder)
        if found.st_uid not in owners:
            yield folder, user_name(found.st_uid)
        elif found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
            yield folder, ""


def folders_to(path: str) -> list[str]:
    """The folders that `path` is in, from `/` on, by their real names."""
    found = [os.path.dirname(os.path.realpath(path))]
    while found[-1] != "/":
        found.append(os.path.dirname(found[-1]))
    return found[::-1]


def _kept(home: Home) -> Iterator[str]:
    """The folders of keys and pins, and what is in them."""
    for name in _FOLDERS:
        folder = os.path.join(home.control, name)
        yield folder
        if os.path.isdir(folder):
            yield from (os.path.join(folder, one) for one in sorted(os.listdir(folder)))


def _changeable(path: str, home: Home | None = None, role: str = "") -> str:
    """By whom else than root, and the user of `role` in this home; empty: nobody."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return ""
    if found.st_uid and (home is None or found.st_uid != find_accounts(home).by_role()[role].uid):
        return f"{path} belongs to {user_name(found.st_uid)}"
    if found.st_mode & stat.S_IWOTH or (found.st_mode & stat.S_IWGRP and found.st_gid):
        return f"others may write to {path}"
    return ""
