"""The port for people who look after the queue.  The JSON forms are these structs' own."""

from collections.abc import Iterable, Sequence
from typing import Literal, Protocol

import msgspec

from openqmail.core.ports.destination import DestinationState
from openqmail.core.values import Body


class RecipientSummary(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """`next`: seconds UTC, or None; `last`: what the latest attempt said, or None; `destination`: what this
    recipient waits for, where that rests (left out otherwise).  Bytes beyond UTF-8 as \\xNN."""

    address: str
    channel: Literal["local", "remote"]
    state: Literal["todo", "done", "failed"]
    attempts: int
    next: int | None
    last: str | None
    destination: DestinationState | None = None


class MessageSummary(msgspec.Struct, frozen=True, omit_defaults=True):
    """One queued message, as `openqmail queue list --json` prints it.

    `held`: why, when the state is held (left out otherwise)."""

    id: int
    key: str
    born: int
    size: int
    sender: str
    uid: int
    state: Literal["new", "deferred", "held", "bouncing"]
    recipients: tuple[RecipientSummary, ...]
    held: str | None = None


class QueueTotals(msgspec.Struct, frozen=True):
    """The `queue` object of `openqmail status --json`.  `unreadable`: messages that were found so, at the
    start or since; `full`: there is so little room that new mail is refused (452)."""

    messages: int
    recipients: int
    deferred: int
    held: int
    bytes: int
    unreadable: int = 0
    full: bool = False


ABSENT = "is not in the queue"


class Missed(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A message on which a verb could do nothing; `why` follows "message N".  `passes`: it may be
    otherwise in a while, by itself or when something has been mended: ask again."""

    number: int
    why: str
    passes: bool = False


class Acted(msgspec.Struct, frozen=True):
    """What a verb did: each number that was given is in one of these.

    `later`: a delivery of it is under way, and the verb will be done when that has ended."""

    done: tuple[int, ...] = ()
    missed: tuple[Missed, ...] = ()
    later: tuple[int, ...] = ()


class QueueAdmin(Protocol):
    """Served by send.  Verbs are atomic with respect to deliveries: whatever runs of a message
    ends first and is recorded.

    Numbers come again.  `keys`, if there are any, are parallel to the numbers and those of the
    messages' `MessageSummary`: nothing is done to another message that has the number by now."""

    def totals(self) -> QueueTotals: ...

    def messages(self, numbers: Iterable[int] | None = None) -> Iterable[MessageSummary | Missed]:
        """Oldest first; or those of these numbers that are there.  `Missed`: one that cannot be read."""
        ...

    def content(self, number: int) -> Body | None:
        """The stored message; None when there is none of that number."""
        ...

    def destination(self, domain: bytes) -> DestinationState | None:
        """What is known of the domain (lower case) of another host; None: nothing."""
        ...

    async def hold(self, numbers: Sequence[int], reason: str, keys: Sequence[str] = ()) -> Acted:
        """Try nothing of them until they are released."""
        ...

    async def release(self, numbers: Sequence[int], keys: Sequence[str] = ()) -> Acted:
        """Go on with held ones, by their schedule."""
        ...

    async def retry(self, numbers: Sequence[int], keys: Sequence[str] = ()) -> Acted:
        """Try all that is left of them now."""
        ...

    async def delete(self, numbers: Sequence[int], keys: Sequence[str] = ()) -> Acted:
        """End them; nobody is told."""
        ...

    async def bounce(self, numbers: Sequence[int], text: str, keys: Sequence[str] = ()) -> Acted:
        """Fail whatever is left of them, with `text` as the report; the sender is told."""
        ...

    async def flush(self) -> int:
        """Make every deferred message due now; how many there were."""
        ...
