"""What the send manager knows of a message, and of a delivery, while it works on them.

These are the only mutable values here; they live from `Accepted` or `Loaded` until every
recipient of the message is idle again.
"""

from collections.abc import Callable

import msgspec

from openqmail.core.control.settings import Settings
from openqmail.core.queue.store import Change, Stored
from openqmail.core.send.events import Bounce
from openqmail.core.send.fairness import Item
from openqmail.core.send.routing import Channel, Routed, bounce_sender, route
from openqmail.core.send.schedule import next_try
from openqmail.core.values import Outcome, Result

# An enum's attributes are slow to look up.
_SUCCESS, _DEFERRAL, _FAILURE = Outcome.SUCCESS, Outcome.DEFERRAL, Outcome.FAILURE

REPORT = 10_000
"""Bytes of a report that are kept, as in qmail-send."""
_EXPIRED = b"I'm not going to try again; this message has been in the queue too long.\n"

Items = dict[bytes, list[Item]]
"""Recipients by their destination."""


class Delivery(msgspec.Struct, eq=False):
    """A slot in use: one local recipient, or one remote transaction.

    `expired`: it was the last attempt, a deferral becomes a failure.  `finished`: the slot is
    free, the results are not known yet.
    """

    message: "Message"
    channel: Channel
    destination: bytes
    items: list[Item]
    expired: bool
    finished: bool = False

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


class Message(msgspec.Struct, eq=False):
    """A message with work to do.

    `waiting`, `running`: recipients in line, and deliveries without a result.  `left_local`,
    `left_remote`: recipients not done with; `due_local`, `due_remote`: when these are tried
    next; `tried_local`, `tried_remote`: when they were last, if they were since it was loaded.
    `changes`: results not yet handed to the queue; `writing`: a Record or Bounce is under way;
    `due`: the time that is on disk.  `failures`: reports by position.  `ending`: the write
    under way is the message's last; `bounced`: it is a bounce's.
    """

    number: int
    stored: Stored
    due: int
    due_local: int = 0
    due_remote: int = 0
    tried_local: int | None = None
    tried_remote: int | None = None
    waiting: int = 0
    running: int = 0
    left_local: int = 0
    left_remote: int = 0
    changes: list[Change] = []
    failures: dict[int, bytes] | None = None
    writing: bool = False
    ending: bool = False
    bounced: bool = False

    def sort(self, route: Callable[[bytes], Routed], now: float) -> tuple[Items, Items]:
        """Route who is left: the local and the remote recipients that are due."""
        local: Items = {}
        remote: Items = {}
        progress = self.stored.progress
        for position, recipient in enumerate(self.stored.envelope.recipients):
            outcome = progress[position].outcome
            if outcome is _FAILURE:
                self.failed(position, progress[position].text)
            elif outcome is not _SUCCESS:
                routed = route(recipient.address)
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
        birth = self.stored.birth
        if self.tried_local is not None:
            self.due_local = next_try(birth, self.tried_local, "local")
        if self.tried_remote is not None:
            self.due_remote = next_try(birth, self.tried_remote, "remote")
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
