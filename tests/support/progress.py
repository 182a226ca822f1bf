"""Shows how far a long run is: a bar on a terminal, a line now and then elsewhere; and plain tables."""

import sys
import time
from collections.abc import Sequence

_LINE_EVERY = 5.0


class Progress:
    """`Progress("sent", 200)`, then `to(17)`; `done` leaves the last state standing."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total = what, max(total, 1)
        self._bar = sys.stderr.isatty()
        self._began = self._shown = time.monotonic()

    def to(self, count: int) -> None:
        now = time.monotonic()
        if self._bar and now - self._shown > 0.05:
            filled = 40 * count // self._total
            sys.stderr.write(f"\r{self._what:<22} [{'#' * filled:<40}] {count}/{self._total} ")
        elif not self._bar and now - self._shown > _LINE_EVERY:
            say(f"{self._what}: {count} of {self._total}")
        else:
            return
        self._shown = now
        sys.stderr.flush()

    def done(self, count: int, note: str = "") -> None:
        if self._bar:
            sys.stderr.write("\r\x1b[K")
        say(f"{self._what}: {count} of {self._total}{note}, {time.monotonic() - self._began:.1f} s")


def say(text: str) -> None:
    print(text, flush=True)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """The first column to the left, the others to the right."""
    lines = [list(map(str, head)), *[list(map(str, row)) for row in rows]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True))]
        )
        for line in lines
    )
