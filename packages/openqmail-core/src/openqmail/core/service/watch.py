"""Notices a new certificate: looks at its files once a minute, by stat alone.

A file that is being written is looked at again a moment later, so that it is taken when it is whole.
"""

from openqmail.core.tls import stamp

EVERY = 60.0
"""Seconds between two looks."""

SETTLED = 2.0
"""Seconds for which the files have to stay as they are."""

CHANGED = "the certificates have changed"


class Watch:
    """Over the certificates of `control`; times are monotonic seconds."""

    def __init__(self, control: str, now: float) -> None:
        self._control = control
        self._taken = self._seen = stamp(control)
        self._next = now + EVERY

    def wait(self, now: float) -> float:
        """Seconds to the next look."""
        return max(0.0, self._next - now)

    def changed(self, now: float) -> bool:
        """Whether others than before are there, and whole; it is said once."""
        if now < self._next:
            return False
        found = stamp(self._control)
        settled = found == self._seen
        self._seen = found
        if found == self._taken or not settled:
            self._next = now + (EVERY if found == self._taken else SETTLED)
            return False
        self._taken, self._next = found, now + EVERY
        return True
