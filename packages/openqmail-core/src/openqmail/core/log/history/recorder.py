"""A tee in front of the log: what is said of a message is kept as well, with its time.

Events come together for a moment and are put into words and written by a thread, so a message
costs the loop little and never waits for a disk.  It is a record, not a promise: nothing is synced.
Where it cannot be written mail goes on, and an alert says so once, until it works again.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from openqmail.core.log import events
from openqmail.core.log.history.files import Files
from openqmail.core.log.history.lines import LINES, Accepted, Made, cut, encode
from openqmail.core.log.writer import Log
from openqmail.core.world import Clock

PAUSE = 0.2
"""Seconds in which events come together."""
WAITING = 8 << 20
"""Bytes of events that wait for a slow disk; further events are left out."""
EVENT = 300
"""Bytes that one takes besides its text."""

Kept = list[tuple[float, Any]]


class History:
    """A log, which hands each event on to `log`.  What is kept is kept for `days`; 0: nothing is."""

    def __init__(self, log: Log, folder: str, clock: Clock, days: int) -> None:
        self._log = log
        self._clock = clock
        self._now = clock.now
        self._days = days
        self._files = Files(folder)
        self._kept: Kept = []
        self._size = 0
        self._children: dict[int, Made] = {}
        """Of the thread: messages that were made here and whose own events are still to come."""
        self._thread: ThreadPoolExecutor | None = None
        """Not the loop's, which hooks may use up."""
        self._running: asyncio.Future[str] | None = None
        self._scheduled = False
        self._missed = 0
        self._trouble = ""

    def __call__(self, event: events.Event) -> None:
        self._log(event)
        if type(event) in LINES and self._days:
            self._keep(event)

    def made(self, number: int, child: int, what: str) -> None:
        """To be told before the new message's own events."""
        if self._days:
            self._keep(Made(number, child, what))

    def reconfigure(self, days: int) -> None:
        """What is too old by now goes soon.  To be called once at the start, too."""
        self._days = days
        self._schedule()

    async def close(self) -> None:
        """Returns when what was kept is written, or cannot be."""
        while self._kept or self._running is not None:
            if self._running is None:
                self._write(self._put)
            assert self._running is not None
            await asyncio.wait((self._running,))
        if self._thread is not None:
            self._thread.shutdown()  # it has nothing to do
            self._thread = None
        self._files.close()

    # --- on the loop ----------------------------------------------------------------------

    def _keep(self, event: Any) -> None:
        event = cut(event)
        size = EVENT + len(getattr(event, "text", ""))
        if self._size + size > WAITING:
            self._missed += 1
            return
        self._size += size
        self._kept.append((self._now(), event))
        if not self._scheduled:
            self._schedule()

    def _schedule(self) -> None:
        self._scheduled = True
        asyncio.get_running_loop().call_later(PAUSE, self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        if self._running is None:
            self._write(self._put if self._kept else self._remove)

    def _write(self, work: Callable[[Kept, int], str]) -> None:
        kept, self._kept, self._size = self._kept, [], 0
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "history")
        self._running = asyncio.get_running_loop().run_in_executor(self._thread, work, kept, self._days)
        self._running.add_done_callback(self._written)

    def _written(self, done: "asyncio.Future[str]") -> None:
        self._running = None
        if done.cancelled():
            return
        error = done.exception()
        trouble = repr(error) if error else done.result()
        if self._missed:
            trouble = (
                trouble or f"they come faster than they can be written, {self._missed} events were left out"
            )
            self._missed = 0
        if trouble and not self._trouble:
            self._log(events.Alert(f"the record of what happens to messages has a gap: {trouble}"))
        self._trouble = trouble
        if self._kept and not self._scheduled:
            self._schedule()

    # --- in the thread --------------------------------------------------------------------

    def _put(self, kept: Kept, days: int) -> str:
        """Write them; what was wrong, empty when nothing was."""
        if not days:  # since then
            return self._remove(kept, days)
        lines = [line for when, event in kept if (line := self._line(event, round(when, 3))) is not None]
        return self._tried(lambda: self._files.append(encode(lines), kept[-1][0], days)) if lines else ""

    def _remove(self, kept: Kept, days: int) -> str:
        return self._tried(lambda: self._files.remove_old(self._clock.now(), days))

    def _tried(self, work: Callable[[], None]) -> str:
        try:
            work()
        except OSError as error:
            return f"{error.filename or self._files.folder}: {error.strerror or error}"
        return ""

    def _line(self, event: Any, when: float) -> Any:
        if type(event) is Made:
            self._children[event.child] = event
        line = LINES[type(event)](event, when)
        if self._children and type(line) is Accepted:
            made = self._children.pop(line.msg, None)
            if made is not None:
                line.made, line.parent = made.what, made.number
        return line
