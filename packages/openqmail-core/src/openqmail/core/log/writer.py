"""Where events go: a file descriptor, in batches, or a list.

An event costs an append; what came together is put into words, stamped with the time and written
all at once.  A full pipe makes the writer wait, as it makes qmail-send wait.
"""

import os
import select
import stat
import time
from collections.abc import Callable
from typing import Protocol

from openqmail.core.log.events import Event
from openqmail.core.world import Clock


class Log(Protocol):
    def __call__(self, event: Event) -> None: ...


class MemoryLog:
    """Keeps the events, for tests."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def lines(self) -> list[bytes]:
        return [event.line() for event in self.events]


class LogWriter:
    """Writes lines to `descriptor`; with a time in front where no logger adds one.

    ISO 8601 UTC when the descriptor is a terminal or a file; none when it is a pipe or a
    socket (multilog, journald).  `soon` is how to have `flush` called before long;
    without it every line is written at once.
    """

    def __init__(
        self, descriptor: int, clock: Clock, soon: Callable[[Callable[[], None]], object] | None = None
    ) -> None:
        self._descriptor = descriptor
        self._clock = clock
        self._soon = soon
        self._events: list[Event] = []
        mode = os.fstat(descriptor).st_mode
        self._stamped = os.isatty(descriptor) or stat.S_ISREG(mode)
        self._piped = stat.S_ISFIFO(mode)

    def __call__(self, event: Event) -> None:
        events = self._events
        events.append(event)
        if len(events) == 1:
            if self._soon is None:
                self.flush()
            else:
                self._soon(self.flush)

    def flush(self) -> None:
        """Write what has come together; an error of the descriptor loses those lines, not mail."""
        if not self._events:
            return
        stamp = self._time() if self._stamped else b""
        lines = [event.line() for event in self._events]
        self._events.clear()
        data = stamp + (b"\n" + stamp).join(lines) + b"\n"
        try:
            while data:
                data = data[os.write(self._descriptor, self._portion(data)) :]
        except OSError:
            return

    def _portion(self, data: bytes) -> bytes:
        """As much as is written in one piece: others write to the same pipe."""
        if not self._piped or len(data) <= select.PIPE_BUF:
            return data
        return data[: data.rfind(b"\n", 0, select.PIPE_BUF) + 1] or data[: select.PIPE_BUF]

    def _time(self) -> bytes:
        now = self._clock.now()
        second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)).encode()
        return second + b".%03dZ " % (now % 1 * 1000)
