"""The signals that the first process lives by: they come when they like, and are taken in its own time."""

import os
import signal
from contextlib import suppress

HEARD = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM, signal.SIGCHLD, signal.SIGUSR2)


class Signals:
    """`fileno` is readable when one has come."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._came: list[int] = []

    def fileno(self) -> int:
        return self._read

    def listen(self) -> None:
        """From here on; what came during an upgrade comes now."""
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in HEARD:
            signal.signal(number, lambda number, frame: self._came.append(number))
        self.let()

    def take(self) -> list[int]:
        """Those that have come.  An upgrade is behind all else: what is in hand then is forgotten."""
        with suppress(BlockingIOError):
            os.read(self._read, 4096)
        came, self._came = self._came, []  # one that comes in between is in either of them
        return sorted(came, key=lambda number: number == signal.SIGUSR2)

    def keep(self) -> None:
        """For an exec: they wait for who can handle them."""
        signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
        for number in self._came:
            os.kill(os.getpid(), number)
        self._came.clear()

    def let(self) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)
