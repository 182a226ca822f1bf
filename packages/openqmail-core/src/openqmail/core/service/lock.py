"""That only one service runs on a home: `run/lock`, held by its first process, with the pid inside."""

import fcntl
import os

from openqmail.core.control.home import Home
from openqmail.core.values import HomeError


class Served(HomeError):
    """Another process serves the home."""


class HomeLock:
    """Taken when it is made; the kernel gives it back when the process ends, however it ends."""

    def __init__(self, home: Home, descriptor: int = -1) -> None:
        """`descriptor`: the lock as another program in this process has taken it.  Raises Served."""
        if descriptor >= 0:
            self._descriptor = descriptor
            return
        os.makedirs(home.run, mode=0o700, exist_ok=True)
        path = os.path.join(home.run, "lock")
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(self._descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._descriptor)
            raise Served(f"{home.path} is served already, by process {pid}") from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, b"%d\n" % os.getpid(), 0)

    def release(self) -> None:
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)

    def fileno(self) -> int:
        """What holds the lock; a child must not keep it."""
        return self._descriptor
