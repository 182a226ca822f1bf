"""Users of this system that a test makes under odd names and that are gone when it ends; root only.

Tests of several processes take turns: the groups are the same for all, and some look at every user."""

import fcntl
import grp
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROLES = ("smtpd", "gate", "send", "remote", "alias")
MARK = f"oqt{os.getpid()}-"
GROUPS = ("qmail", "nofiles")
TURN = Path(tempfile.gettempdir(), "openqmail-tests-of-users")

_rooms = 0
"""How many this process has open; the first of them has waited for its turn."""


def name_of(who: str) -> str:
    return MARK + who


def add(who: str, home: Path) -> pwd.struct_passwd:
    """A person with a home and a group of her own."""
    name = name_of(who)
    subprocess.run(["useradd", "--no-create-home", "--user-group", "-d", str(home), name], check=True)
    found = pwd.getpwnam(name)
    home.mkdir(mode=0o755)
    os.chown(home, found.pw_uid, found.pw_gid)
    return found


def there() -> set[str]:
    """Those of the odd names that there are now."""
    return {one.pw_name for one in pwd.getpwall() if one.pw_name.startswith(MARK)}


def _safe(folder: str) -> bool:
    """Whether nobody but root may put another thing in the place of one that is in there."""
    found = os.stat(folder)
    return found.st_uid == 0 and (not found.st_mode & 0o022 or bool(found.st_mode & stat.S_ISVTX))


@contextmanager
def turn() -> Iterator[None]:
    """While no other process of the tests makes users, or looks at all there are."""
    global _rooms  # noqa: PLW0603
    with TURN.open("a") as held:
        if not _rooms:
            fcntl.flock(held, fcntl.LOCK_EX)
        _rooms += 1
        try:
            yield
        finally:
            _rooms -= 1
            if not _rooms:
                fcntl.flock(held, fcntl.LOCK_UN)


@contextmanager
def room(under: Sequence[str] = ("/var/tmp", "/var/lib")) -> Iterator[Path]:
    """A folder that all can reach and nobody else may change, not even what it lies in, in the first of
    these where that is so (/var/tmp is not sticky everywhere); with it go the users and groups that came
    in between."""
    with turn():
        yield from _room(under)


def _room(under: Sequence[str]) -> Iterator[Path]:
    safe = next(filter(_safe, under), None)
    if safe is None:
        raise OSError(f"a home of root's needs a folder that only root can replace: not {' or '.join(under)}")
    folder = Path(tempfile.mkdtemp(prefix="oq", dir=safe))
    folder.chmod(0o755)
    before = {one.pw_name for one in pwd.getpwall()}, {one.gr_name for one in grp.getgrall()}
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
        for one in pwd.getpwall():
            if one.pw_name not in before[0] and (
                one.pw_name.startswith(MARK) or one.pw_dir.startswith(str(folder))
            ):
                subprocess.run(["userdel", one.pw_name], check=True, capture_output=True)
        for group in GROUPS:
            if group not in before[1]:
                subprocess.run(["groupdel", group], check=False, capture_output=True)


def accounts() -> list[str]:
    """`--account ROLE=USER` for every role."""
    return [word for role in ROLES for word in ("--account", f"{role}={name_of(role)}")]
