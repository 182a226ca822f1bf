"""qmail-send's lock and its bell: `lock/sendmutex` and the FIFO `lock/trigger`.

While we hold the mutex no qmail-send runs on the queue, and its tools know that something does.
A qmail-queue of any make writes a byte to the FIFO when it has put something into `todo/`.
"""

import contextlib
import errno
import fcntl
import os
import stat
from asyncio import AbstractEventLoop
from collections.abc import Callable

from openqmail.core.queue.journal.journal import FULL
from openqmail.core.queue.layout import whole
from openqmail.core.queue.layout.paths import prepare
from openqmail.core.queue.unreadable import unreadable
from openqmail.core.values import HomeError, QueueFull
from openqmail.core.world import PosixDisk


class Locked(HomeError):
    """Somebody else works on the queue."""


class SendMutex:
    """Taken when it is made; the kernel gives it back when the process ends.  Raises Locked,
    QueueFull, HomeError."""

    def __init__(self, queue: bytes) -> None:
        path = os.path.join(queue, b"lock", b"sendmutex")
        where = os.fsdecode(path)
        try:
            whole.require(PosixDisk(), queue)
            prepare(PosixDisk(), queue)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
            if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
                os.close(self._descriptor)
                raise OSError(errno.EINVAL, "it is not a regular file", path)
        except OSError as error:
            if error.errno in FULL:
                raise QueueFull(
                    f"{where} cannot be made: {error.strerror}; make room and start again"
                ) from None
            raise HomeError(unreadable(os.fsencode(error.filename or path), error)) from None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise Locked(f"{where} is locked: a qmail-send runs on this queue; stop it first") from None

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Trigger:
    """Calls `pulled` in the loop when a byte comes through the FIFO."""

    def __init__(self, queue: bytes, loop: AbstractEventLoop, pulled: Callable[[], None]) -> None:
        """Raises HomeError."""
        self._loop = loop
        self._pulled = pulled
        path = os.path.join(queue, b"lock", b"trigger")
        try:
            with contextlib.suppress(FileExistsError):
                os.mkfifo(path, 0o622)
                os.chmod(path, 0o622)
            self._reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            if not stat.S_ISFIFO(os.fstat(self._reader).st_mode):
                raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
            # With a writer of our own it does not read as ended when another one closes.
            self._writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            why = "it is not a FIFO" if error.errno == errno.ENXIO else error.strerror
            raise HomeError(
                f"{os.fsdecode(path)} cannot be opened: {why}; mend it, or remove it and start again"
            ) from None
        loop.add_reader(self._reader, self._read)

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._reader, 4096):
                pass
        self._pulled()

    def close(self) -> None:
        self._loop.remove_reader(self._reader)
        os.close(self._reader)
        os.close(self._writer)
