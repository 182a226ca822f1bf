"""A new body, given by a hook as a function, that breaks."""

import sys
import threading
from collections.abc import Iterator


class BreakingBody:
    """A hook; `pieces` breaks, as `how` says, when it is called for the `bad` time and later.  What hangs
    does so until `returns` is set."""

    def __init__(self, how: str, bad: int) -> None:
        self.how, self.bad, self.calls = how, bad, 0
        self.returns = threading.Event()

    def pieces(self) -> Iterator[bytes]:
        self.calls += 1
        yield b"x\n"
        if self.calls < self.bad:
            return
        if self.how == "hangs":
            self.returns.wait()
        elif self.how == "exits":
            sys.exit(3)
        raise RuntimeError("no more")
