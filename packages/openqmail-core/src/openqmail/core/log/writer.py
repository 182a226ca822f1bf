"""Where events go: a file descriptor, in batches, or a list.

An event costs an append; what came together is put into words, stamped with the time and written
all at once.  A full pipe makes the writer wait, as it makes qmail-send wait.  All processes write
to the same one: what is written at once ends with a line, and none is longer than a pipe takes whole.
"""

import os
import select
import stat
import time
from collections.abc import Callable
from typing import Literal, Protocol

from openqmail.core.log import json
from openqmail.core.log.events import Event
from openqmail.core.world import Clock

Form = Literal["qmail", "json"]
"""What `control/logformat` may say."""

_SOCKET_PIECE = 16 * 1024
"""Bytes that a Unix socket takes whole."""


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
    """Writes lines to `descriptor`, in qmail-send's form or as JSON; `form` may be set at any time.

    In front of a line of qmail-send's form stands the time where no logger adds one: ISO 8601 UTC when the
    descriptor is a terminal or a file; none when it is a pipe or a socket (multilog, journald).
    An object of JSON has it inside, always.  `soon` is how to have `flush` called before long;
    without it every line is written at once.
    """

    def __init__(
        self,
        descriptor: int,
        clock: Clock,
        soon: Callable[[Callable[[], None]], object] | None = None,
        form: Form = "qmail",
    ) -> None:
        self.form = form
        self._descriptor = descriptor
        self._clock = clock
        self._soon = soon
        self._events: list[Event] = []
        mode = os.fstat(descriptor).st_mode
        self._stamped = os.isatty(descriptor) or stat.S_ISREG(mode)
        self._piece = 0  # bytes that are written in one piece; 0: any number
        if stat.S_ISFIFO(mode):
            self._piece = select.PIPE_BUF
        elif stat.S_ISSOCK(mode):
            self._piece = _SOCKET_PIECE

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
        data = self._words(self._events)
        self._events.clear()
        try:
            while data:
                data = data[os.write(self._descriptor, self._portion(data)) :]
        except OSError:
            return

    def _words(self, events: list[Event]) -> bytes:
        if self.form == "json":
            now = self._time()
            return b"".join([json.encode(event, now) + b"\n" for event in events])
        stamp = self._time().encode() + b" " if self._stamped else b""
        most = self._piece - 1
        lines = [event.line() for event in events]
        if most > 0 and max(map(len, lines)) > most:
            lines = [line if len(line) <= most else line[: most - 3] + b"..." for line in lines]
        return stamp + (b"\n" + stamp).join(lines) + b"\n"

    def _portion(self, data: bytes) -> bytes:
        """As much as is written in one piece, which is whole lines."""
        if not 0 < self._piece < len(data):
            return data
        return data[: data.rfind(b"\n", 0, self._piece) + 1] or data[: self._piece]

    def _time(self) -> str:
        now = self._clock.now()
        second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        return f"{second}.{int(now % 1 * 1000):03d}Z"
