"""The port that says how much is too much (and, later, who is who)."""

from typing import Protocol


class Gate(Protocol):
    """Served by gate."""

    def lease(self, counter: bytes, count: int = 1) -> bool:
        """Take `count` of what `counter` still has to give; False when that is too much."""
        ...

    def release(self, counter: bytes, count: int = 1) -> None:
        """Give back what was leased."""
        ...
