"""Whose home it is, and that only one process serves it.

A home runs as its owner.  Root becomes that owner before anything of the home is touched;
anybody else who is not the owner is refused.
"""

import fcntl
import os
import pwd

from openqmail.core.control.home import Home
from openqmail.core.values import HomeError


def become_owner(home: Home) -> None:
    """Run as the owner of the home from here on.  Raises HomeError."""
    found = os.stat(home.path)
    uid, gid = found.st_uid, found.st_gid
    if os.geteuid() == uid and uid != 0:
        return
    if os.geteuid() != 0:
        raise HomeError(
            f"{home.path} belongs to uid {uid}, you are uid {os.geteuid()}; run as its owner or as root"
        )
    if uid == 0:
        raise HomeError(
            f"{home.path} belongs to root; give it to the user who shall run it: chown -R USER {home.path}"
        )
    try:
        entry = pwd.getpwuid(uid)
        os.initgroups(entry.pw_name, entry.pw_gid)
        gid = entry.pw_gid
    except KeyError:  # an owner that the system has no name for
        os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


class HomeLock:
    """`run/lock`: held by the process that serves the home, with its pid inside."""

    def __init__(self, home: Home) -> None:
        os.makedirs(home.run, mode=0o700, exist_ok=True)
        path = os.path.join(home.run, "lock")
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(self._descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._descriptor)
            raise HomeError(f"{home.path} is served already, by process {pid}") from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, b"%d\n" % os.getpid(), 0)

    def release(self) -> None:
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)
