"""What the send manager knows of a message, and of a delivery, while it works on them.

These are the only mutable values here; they live from `Accepted` or `Loaded` until every
recipient of the message is idle again.
"""

from openqmail.core.control.settings import Settings
from openqmail.core.queue.store import Change, Stored
from openqmail.core.send.events import Bounce
from openqmail.core.send.fairness import Item
from openqmail.core.send.routing import Channel, bounce_sender, route
from openqmail.core.values import Outcome, Result

# An enum's attributes are slow to look up.
_SUCCESS, _DEFERRAL, _FAILURE = Outcome.SUCCESS, Outcome.DEFERRAL, Outcome.FAILURE

REPORT = 10_000
"""Bytes of a report that are kept, as in qmail-send."""
_EXPIRED = b"I'm not going to try again; this message has been in the queue too long.\n"

Items = dict[bytes, list[Item]]
"""Recipients by their destination."""


class Delivery:
    """A slot in use: one local recipient, or one remote transaction.

    `expired`: it was the last attempt, a deferral becomes a failure.  `finished`: the slot is
    free, the results are not known yet.
    """

    __slots__ = ("channel", "destination", "expired", "finished", "items", "message")

    def __init__(
        self, message: "Message", channel: Channel, destination: bytes, items: list[Item], expired: bool
    ) -> None:
        self.message = message
        self.channel: Channel = channel
        self.destination = destination
        self.items = items
        self.expired = expired
        self.finished = False

    def verdict(self, result: Result) -> tuple[Outcome, bytes]:
        """What a result means for its recipient, and the report as it is kept."""
        outcome, text = result.outcome, result.text
        if len(text) > REPORT:
            text = text[:REPORT]
        if self.expired and outcome is _DEFERRAL:
            if text and not text.endswith(b"\n"):
                text += b"\n"
            return _FAILURE, text + _EXPIRED
        return outcome, text


class Message:
    """A message with work to do.

    `waiting`, `running`: recipients in line, and deliveries without a result.  `left_local`,
    `left_remote`: recipients not done with; `due_local`, `due_remote`: when these are tried
    next.  `changes`: results not yet handed to the queue; `writing`: a Record or Bounce is
    under way; `due`: the time that is on disk.  `failures`: reports by position.  `ending`:
    the write under way is the message's last; `bounced`: it is a bounce's.
    """

    __slots__ = (
        "bounced",
        "changes",
        "due",
        "due_local",
        "due_remote",
        "ending",
        "failures",
        "left_local",
        "left_remote",
        "number",
        "running",
        "stored",
        "waiting",
        "writing",
    )

    def __init__(self, number: int, stored: Stored, due_local: int, due_remote: int) -> None:
        self.number = number
        self.stored = stored
        self.waiting = 0
        self.running = 0
        self.left_local = 0
        self.left_remote = 0
        self.due_local = due_local
        self.due_remote = due_remote
        self.changes: list[Change] = []
        self.failures: dict[int, bytes] | None = None
        self.due = stored.due
        self.writing = False
        self.ending = False
        self.bounced = False

    def sort(self, settings: Settings, now: float) -> tuple[Items, Items]:
        """Route who is left: the local and the remote recipients that are due."""
        local: Items = {}
        remote: Items = {}
        progress = self.stored.progress
        for position, recipient in enumerate(self.stored.envelope.recipients):
            outcome = progress[position].outcome
            if outcome is _FAILURE:
                self.failed(position, progress[position].text)
            elif outcome is not _SUCCESS:
                routed = route(recipient.address, settings)
                if routed.channel == "local":
                    self.left_local += 1
                    lines, due = local, self.due_local
                else:
                    self.left_remote += 1
                    lines, due = remote, self.due_remote
                if due <= now:
                    lines.setdefault(routed.domain, []).append((position, routed.address))
        return local, remote

    def failed(self, position: int, text: bytes) -> None:
        if self.failures is None:
            self.failures = {}
        self.failures[position] = text

    def next_due(self) -> int:
        """When the first recipient that is left is tried again."""
        if not self.left_local:
            return self.due_remote
        if not self.left_remote:
            return self.due_local
        return min(self.due_local, self.due_remote)

    def bounce(self, settings: Settings) -> Bounce:
        """What tells the sender about the failures; or, when that is nobody, the postmaster."""
        envelope = self.stored.envelope
        failures = self.failures or {}
        reports = tuple(
            (route(envelope.recipients[position].address, settings).plain, failures[position])
            for position in sorted(failures)
        )
        to = bounce_sender(envelope.sender)
        if to:
            return Bounce(self.number, b"", to, reports, False)
        to = settings.doublebounceto + b"@" + settings.doublebouncehost
        return Bounce(self.number, b"#@[]", to, reports, True)
