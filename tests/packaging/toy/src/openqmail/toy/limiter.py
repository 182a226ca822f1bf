"""So many recipients an hour from one address, by control/toylimit; then it is put off."""

from collections import Counter

from openqmail.core.hooks import Answer, Defer, HookContext, SessionFacts
from openqmail.core.values import Recipient, Reply

HOUR = 3600
ENOUGH = Defer(Reply(452, b"4.5.3", (b"too many recipients this hour",)))


class Limiter:
    def __init__(self, context: HookContext) -> None:
        self._clock = context.clock
        self._most: int = context.settings.added["toylimit"]  # type: ignore[assignment]
        self._since = self._clock.monotonic()
        self._taken: Counter[str] = Counter()

    def rcpt(self, session: SessionFacts, recipient: Recipient) -> Answer:
        now = self._clock.monotonic()
        if now - self._since >= HOUR:
            self._since = now
            self._taken.clear()
        if self._taken[session.client] >= self._most:
            return ENOUGH
        self._taken[session.client] += 1
        return None
