"""What the send manager knows of a message, and of a delivery, while it works on them.

These are the only mutable values here; they live from `Accepted` or `Loaded` until every
recipient of the message is idle again.
"""

import msgspec

from openqmail.core.control.settings import Settings
from openqmail.core.dsn import Action, Told, report
from openqmail.core.queue.store import Change, Due, Stored
from openqmail.core.send.events import Bounce, Notify
from openqmail.core.send.fairness import Item
from openqmail.core.send.routing import Routes, bounce_sender
from openqmail.core.send.schedule import last_try, next_try
from openqmail.core.send.wishes import LATE, wants, wants_bounce
from openqmail.core.values import Outcome, Result
from openqmail.core.values.address import Channel

# An enum's attributes are slow to look up.
_DEFERRAL, _FAILURE = Outcome.DEFERRAL, Outcome.FAILURE

REPORT = 10_000
"""Bytes of a report that are kept, as in qmail-send."""
_EXPIRED = b"I'm not going to try again; this message has been in the queue too long.\n"

Items = dict[bytes, list[Item]]
"""Recipients by their destination."""


class Delivery(msgspec.Struct, eq=False):
    """A slot in use: one local recipient, or one remote transaction.

    `began`: when (seconds UTC).  `expired`: it was the last attempt, a deferral becomes a failure.
    `finished`: the slot is free, the results are not known yet.
    """

    message: "Message"
    channel: Channel
    destination: bytes
    items: list[Item]
    began: float
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

    `due`: the times that are on disk.  `waiting`, `running`: recipients in line, and deliveries
    without a result.  `left_local`, `left_remote`: recipients not done with; `tried_local`,
    `tried_remote`: when they were last, if they were since it was loaded.  `held`: destinations that
    rest, whose recipients were due and not tried; `left_held`: how many these are.  `changes`: results
    not yet handed to the queue; `failures`: the bounce so far; `writing`: a Record or Bounce is under
    way; `ending`: it is the message's last; `bounced`: it is a bounce's.  `wanted`: to be let go.
    `told`: what its sender wants to be told now; `late`: and once nothing of it runs; `telling`: the
    notice that is being written.
    """

    number: int
    stored: Stored
    due: Due
    tried_local: int | None = None
    tried_remote: int | None = None
    waiting: int = 0
    running: int = 0
    left_local: int = 0
    left_remote: int = 0
    held: tuple[bytes, ...] = ()
    left_held: int = 0
    changes: list[Change] = []
    failures: list[bytes] = []
    writing: bool = False
    ending: bool = False
    bounced: bool = False
    wanted: bool = False
    told: list[Told] = []
    late: list[Told] = []
    telling: Notify | None = None

    def sort(self, routes: Routes, now: float) -> tuple[Items, Items]:
        """Route who is left: the local and the remote recipients that are due."""
        local: Items = {}
        remote: Items = {}
        stored = self.stored
        due_local, due_remote = stored.due
        for position, progress in enumerate(stored.progress):
            if progress.outcome is not None:
                continue
            routed = routes.of(stored, position)
            if routed.channel == "local":
                self.left_local += 1
                lines, due = local, due_local
            else:
                self.left_remote += 1
                lines, due = remote, due_remote
            if due <= now:
                lines.setdefault(routed.domain, []).append((position, routed.address))
        return local, remote

    def hold(self, destination: bytes, recipients: int) -> None:
        """So many that are due are not tried, because their destination rests."""
        if destination not in self.held:
            self.held = (*self.held, destination)
        self.left_held += recipients

    def next_due(self) -> Due:
        """When the recipients that are left are tried next; where only one kind is, both times
        are its own.  Those that were due and not tried stay due, if they are all that is left."""
        local, remote = self.stored.due
        birth = self.stored.birth
        if self.tried_local is not None:
            local = next_try(birth, self.tried_local, "local")
            remote = remote or birth  # due since then: beside another time, 0 says nothing
        if self.tried_remote is not None and self.left_remote > self.left_held:
            remote = next_try(birth, self.tried_remote, "remote")
        if not self.left_local:
            local = remote
        if not self.left_remote:
            remote = local
        return local, remote

    def note(
        self,
        routes: Routes,
        position: int,
        outcome: Outcome,
        text: bytes,
        channel: Channel,
        elsewhere: bool,
        now: float,
    ) -> tuple[Outcome, bytes]:
        """Keep what the sender is to be told of a recipient; how the queue is to record it, and with
        which text.  `elsewhere`: somebody else tells him of a success.

        A failure of which he does not want to hear is just done with, so that no qmail will tell him."""
        envelope = self.stored.envelope
        address = routes.of(self.stored, position).plain
        if outcome is _FAILURE:
            if not wants_bounce(envelope, position):
                return Outcome.SUCCESS, text
            text = report(address, text)
            self.failures.append(text)
            return outcome, text
        action: Action = (
            "delayed" if outcome is _DEFERRAL else "delivered" if channel == "local" else "relayed"
        )
        if not elsewhere and wants(envelope, position, action):
            told = Told(action, address, text, envelope.recipients[position].orcpt)
            if outcome is not _DEFERRAL:
                self.told.append(told)
            elif self._is_late(channel, now):
                self.late.append(told)
        return outcome, text

    def _is_late(self, channel: Channel, now: float) -> bool:
        """Whether this was the first try of these recipients since the message is late."""
        birth, due = self.stored.birth, self.stored.due[channel == "remote"]
        return now - birth >= LATE > last_try(birth, due, channel) - birth

    def bounce(self, settings: Settings) -> Bounce:
        """What tells the sender about the failures; or, when that is nobody, the postmaster."""
        failures = b"".join(self.failures)
        to = bounce_sender(self.stored.envelope.sender)
        if to:
            return Bounce(self.number, b"", to, failures, False)
        to = settings.doublebounceto + b"@" + settings.doublebouncehost
        return Bounce(self.number, b"#@[]", to, failures, True)
