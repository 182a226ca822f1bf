"""What one session may not do without end: begin messages, guess recipients, send a message slowly.  Pure.

Each is counted in a small value that the dialogue or the shell asks; times are handed in.  Errors are
counted by the server machine; what a network does in all its sessions, by the gate.
"""

from openqmail.core.control.settings import Settings

FREE = 3
"""Refused recipients whose refusal is not delayed: anybody may mistype an address."""

AHEAD = 250
"""Recipients that are looked up together at most."""

LONGEST = 30.0
"""Seconds that a refusal is delayed at most."""

WINDOW = 300.0
"""Seconds over which the rate of a message is looked at: whoever is silent for less is only slow (RFC 5321
section 4.5.3.2.7)."""


class Bounds:
    """Of the messages and recipients of one session; 0 sets none."""

    __slots__ = (
        "_messages",
        "_most_messages",
        "_most_recipients",
        "_most_refused",
        "_recipients",
        "_refused",
        "_tarpit",
    )

    def __init__(self, messages: int = 0, refused: int = 0, tarpit: int = 0, recipients: int = 0) -> None:
        """At most so many; `tarpit`: seconds by which each refusal is later than the one before."""
        self._messages = self._refused = self._recipients = 0
        self._most_messages, self._most_refused, self._tarpit = messages, refused, tarpit
        self._most_recipients = recipients

    def begin(self) -> bool:
        """One more message; False when that is one too many, or when it could have no recipient."""
        self._messages += 1
        return not (0 < self._most_messages < self._messages or 0 < self._most_recipients <= self._recipients)

    def name(self) -> bool:
        """One more recipient is named; False when that is one too many."""
        self._recipients += 1
        return not 0 < self._most_recipients < self._recipients

    def refuse(self) -> bool:
        """One more recipient is refused for good; False when the session has had enough of them."""
        self._refused += 1
        return not 0 < self._most_refused <= self._refused

    def ahead(self, accepted: int) -> int:
        """How many recipients may be looked up before their turn, in a message that has so many: no more
        than came to something or may still fail, so who never takes his turn has won little by it."""
        if self.delay:
            return 0
        most = AHEAD
        if self._most_refused:
            most = min(most, accepted + self._most_refused - self._refused)
        if self._most_recipients:
            most = min(most, self._most_recipients - self._recipients)
        return most

    @property
    def delay(self) -> float:
        """Seconds after which the refusal of the last one is told."""
        return min(self._tarpit * max(0, self._refused - FREE), LONGEST)


def bounds_of(settings: Settings, relay: bool) -> Bounds:
    """Of a session; who may relay has none."""
    if relay:
        return Bounds()
    return Bounds(
        settings.maxmessages, settings.maxbadrcpt, settings.tarpit, settings.maxconnectionrecipients
    )


class Pace:
    """How quickly a message comes, with what announces its chunks.  `least`: bytes a second, 0 for any."""

    __slots__ = ("_before", "_least", "_looked", "_since")

    def __init__(self, least: int) -> None:
        self._least = least
        self._since = self._looked = 0.0
        self._before = -1  # bytes of the session when the window began; none is open

    def rest(self) -> None:
        """No message is under way."""
        self._before = -1

    def too_slow(self, now: float, size: int, paused: bool = False) -> bool:
        """Whether too little has come in a whole window; `size`: bytes of the session so far; `paused`: it is
        we who do not read, and time that passes so is none of the client's."""
        if not self._least:
            return False
        before, self._looked = self._looked, now
        if self._before < 0:
            self._since, self._before = now, size
        elif paused:
            self._since += now - before
        elif now - self._since >= WINDOW:
            if size - self._before < self._least * (now - self._since):
                return True
            self._since, self._before = now, size
        return False
