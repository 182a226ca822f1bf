"""That only one service runs on a home: `run/lock`, held by its first process, with the pid inside."""

import fcntl
import os
from contextlib import suppress

from openqmail.core.control.home import Home
from openqmail.core.values import HomeError, TemporaryFailure


class Served(HomeError):
    """Another process serves the home."""


class HomeLock:
    """Taken when it is made; the kernel gives it back when the process ends, however it ends."""

    def __init__(self, home: Home, descriptor: int = -1) -> None:
        """`descriptor`: the lock as another program in this process has taken it.

        Raises Served, HomeError, TemporaryFailure (as where the disk is full)."""
        if descriptor >= 0:
            self._descriptor = descriptor
            return
        path = os.path.join(home.run, "lock")
        try:
            os.makedirs(home.run, mode=0o700, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except PermissionError as error:
            raise HomeError(f"{error.filename}: {error.strerror}; mend its owner and mode") from None
        except OSError as error:
            raise _cannot_be_written(error.filename, error) from None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(self._descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._descriptor)
            raise Served(f"{home.path} is served already, by process {pid}") from None
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, b"%d\n" % os.getpid(), 0)
        except OSError as error:
            os.close(self._descriptor)
            raise _cannot_be_written(path, error) from None

    def release(self) -> None:
        with suppress(OSError):  # a disk that does not work any more
            os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)

    def fileno(self) -> int:
        """What holds the lock; a child must not keep it."""
        return self._descriptor


def _cannot_be_written(path: str, error: OSError) -> TemporaryFailure:
    why = error.strerror or error
    return TemporaryFailure(
        f"{path} cannot be written: {why}; make room there or mend its disk, and try again"
    )
