"""What the send manager is told, and what it asks for: its whole face is these values."""

import msgspec

from openqmail.core.dsn import Told
from openqmail.core.log import Event as LogEvent
from openqmail.core.queue.store import Change, Due, Stored
from openqmail.core.values import Result

# --- events ---------------------------------------------------------------------------


class Accepted(msgspec.Struct, frozen=True):
    """A message has just become durable."""

    stored: Stored


class Known(msgspec.Struct, frozen=True):
    """A message is in the queue: found at the start, or put back after it was taken.

    `due` 0: whatever is left of it is tried at once.  `urgent`: even where a destination rests,
    because somebody asked for it."""

    number: int
    due: int
    urgent: bool = False


class Loaded(msgspec.Struct, frozen=True):
    """The answer to `Load`; None when the message is no longer there."""

    number: int
    stored: Stored | None


class Unreadable(msgspec.Struct, frozen=True):
    """The answer to `Load` when the queue could not be read: ask again later."""

    number: int


class Finished(msgspec.Struct, frozen=True):
    """A delivery no longer needs its slot; its results follow in `Reported`."""

    delivery: int


class Reported(msgspec.Struct, frozen=True):
    """The results of a delivery are facts: one for each recipient of its `Start`, in order.

    Frees the slot when `Finished` did not.  `recorded`: they were already written together
    with a forward (rule 11), not as the message's end: a `Record` without changes may follow
    to write that.
    """

    delivery: int
    results: tuple[Result, ...]
    recorded: bool = False


class Recorded(msgspec.Struct, frozen=True):
    """The `Record` or `Bounce` asked for on this message is on disk."""

    number: int


class BounceFailed(msgspec.Struct, frozen=True):
    """The bounce could not be submitted now; ask again later."""

    number: int


class NotifyFailed(msgspec.Struct, frozen=True):
    """Neither the notice nor its changes are in the queue."""

    number: int


class Take(msgspec.Struct, frozen=True):
    """Let go of these messages: start none of their deliveries any more, and say `Taken` of each
    when nothing of it runs or is being written.  They are as unknown then as if they had never
    been here, until they are `Known` again."""

    numbers: frozenset[int]


class Wake(msgspec.Struct, frozen=True):
    """The time of `WakeAt` has come."""


class Flush(msgspec.Struct, frozen=True):
    """Try everything now (ALRM)."""


class Stop(msgspec.Struct, frozen=True):
    """Start nothing more.  `abandon`: what is under way is broken off, so a deferral of it says nothing:
    it is due as it was."""

    abandon: bool = False


Event = (
    Accepted
    | Known
    | Loaded
    | Unreadable
    | Finished
    | Reported
    | Recorded
    | BounceFailed
    | NotifyFailed
    | Take
    | Wake
    | Flush
    | Stop
)

# --- actions --------------------------------------------------------------------------


class Load(msgspec.Struct, frozen=True):
    """Bring the message from the queue, then say `Loaded`."""

    number: int


class StartLocal(msgspec.Struct, frozen=True):
    """`recipient` as routed; `position` in the envelope; `sender` as this recipient is shown
    it (VERP)."""

    delivery: int
    stored: Stored
    position: int
    sender: bytes
    recipient: bytes
    again: bool


class StartRemote(msgspec.Struct, frozen=True):
    """One transaction to one domain (lower case); `sender` as its recipients are shown it.

    In the log the recipients have numbers of their own: `delivery`, `delivery + 1`, …"""

    delivery: int
    stored: Stored
    positions: tuple[int, ...]
    sender: bytes
    domain: bytes
    recipients: tuple[bytes, ...]


class Record(msgspec.Struct, frozen=True):
    """Write to the queue, then say `Recorded`.  At most one `Record` or `Bounce` of a message
    is under way; `changes` may be empty.  With a time in `due` nothing more is done until then."""

    number: int
    changes: tuple[Change, ...]
    due: Due
    ended: bool
    routed: bool = False


class Bounce(msgspec.Struct, frozen=True):
    """Submit a bounce that ends the message, then say `Recorded` (before the `Accepted` of the
    bounce itself) or `BounceFailed`.  The failures are already recorded.

    `sender`, `recipient`: of the bounce.  `failures`: the paragraphs of all that failed, in the
    order in which they did (qmail's `bounce/N`).  `double`: what failed was itself a bounce.
    """

    number: int
    sender: bytes
    recipient: bytes
    failures: bytes
    double: bool


class Notify(msgspec.Struct, frozen=True):
    """Submit what tells the sender how far his message is, and write `changes`, both or neither; then
    say `Recorded` (before the `Accepted` of the notice) or `NotifyFailed`.

    `told`: what became of which recipients."""

    number: int
    told: tuple[Told, ...]
    changes: tuple[Change, ...]
    routed: bool


class Taken(msgspec.Struct, frozen=True):
    """Nothing of this message is under way; once for each number of a `Take`, known or not (one
    that is being taken twice is told once)."""

    number: int


class WakeAt(msgspec.Struct, frozen=True):
    """Say `Wake` at this time (seconds UTC); replaces the one before."""

    when: float


Action = Load | StartLocal | StartRemote | Record | Bounce | Notify | Taken | WakeAt | LogEvent
"""A fact for the log stands for the writing of its line."""
