"""Who says the same again and again says it seldom.  Pure."""

MOST = 1000
"""Things that are remembered; then all are forgotten, and may be said once more."""


class Seldom:
    """The same is said once in so many `seconds`.  Times are seconds of any clock that only ever grows."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._said: dict[str | bytes, float] = {}

    def may_say(self, what: str | bytes, now: float) -> bool:
        """Whether this may be said now; then it counts as said."""
        said = self._said.get(what)
        if said is not None and now < said + self._seconds:
            return False
        if len(self._said) >= MOST:
            self._said.clear()
        self._said[what] = now
        return True
