"""The port for people who look after the queue.  The JSON forms are these structs' own."""

from collections.abc import Iterable
from typing import Literal, Protocol

import msgspec

from openqmail.core.values import Body


class RecipientSummary(msgspec.Struct, frozen=True):
    """`next` and `last` are times in seconds UTC, or None; `address` has bytes beyond UTF-8 as \\xNN."""

    address: str
    channel: Literal["local", "remote"]
    state: Literal["todo", "done", "failed"]
    attempts: int
    next: int | None
    last: str | None


class MessageSummary(msgspec.Struct, frozen=True):
    """One queued message, as `openqmail queue list --json` prints it."""

    id: int
    key: str
    born: int
    size: int
    sender: str
    uid: int
    state: Literal["new", "deferred", "held", "bouncing"]
    recipients: tuple[RecipientSummary, ...]


class QueueTotals(msgspec.Struct, frozen=True):
    """The `queue` object of `openqmail status --json`."""

    messages: int
    recipients: int
    deferred: int
    held: int
    bytes: int


class QueueAdmin(Protocol):
    """Served by send; atomic with respect to deliveries."""

    def totals(self) -> QueueTotals: ...

    def messages(self) -> Iterable[MessageSummary]:
        """Oldest first."""
        ...

    def message(self, number: int) -> MessageSummary | None: ...

    def content(self, number: int) -> Body | None:
        """The stored message; None when there is none of that number."""
        ...

    def flush(self) -> int:
        """Make every deferred message due now; how many there were."""
        ...
