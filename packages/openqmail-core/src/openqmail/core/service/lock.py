"""That only one process serves a home: `run/lock`, held by it, with its pid inside; and that no
qmail-send runs on its queue: `lock/sendmutex`."""

import fcntl
import os

from openqmail.core.control.home import Home
from openqmail.core.queue import SendMutex
from openqmail.core.values import HomeError


class Served(HomeError):
    """Another process serves the home."""


class HomeLock:
    """Taken when it is made; the kernel gives it back when the process ends, however it ends."""

    def __init__(self, home: Home) -> None:
        os.makedirs(home.run, mode=0o700, exist_ok=True)
        path = os.path.join(home.run, "lock")
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(self._descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._descriptor)
            raise Served(f"{home.path} is served already, by process {pid}") from None
        try:
            self._mutex = SendMutex(os.fsencode(home.queue))
        except HomeError:
            os.close(self._descriptor)
            raise
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, b"%d\n" % os.getpid(), 0)

    def release(self) -> None:
        self._mutex.release()
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)
