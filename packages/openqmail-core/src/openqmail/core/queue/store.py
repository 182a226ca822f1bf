"""What is on disk, behind one protocol: everything above knows numbers, never file names."""

from asyncio import Future
from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec

from openqmail.core.ports import LargeBody, QueueTotals
from openqmail.core.values import Body, Envelope, MessageId, Outcome
from openqmail.core.values.address import Channel

Due = tuple[int, int]
"""When the local and the remote recipients are tried next, seconds UTC; 0: at once."""


class Progress(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """How far one recipient is.  `outcome` is None while it is to be tried (again).

    `text` is the last report; a failure's is its paragraph in the bounce (qmail's `bounce/N`)."""

    outcome: Outcome | None = None
    attempts: int = 0
    text: bytes = b""


class Change(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one attempt did to the recipient at `position`; DEFERRAL leaves it to be tried again.

    `text` of a FAILURE is its paragraph in the bounce, which ends with an empty line."""

    position: int
    outcome: Outcome
    text: bytes


class Closes(msgspec.Struct, frozen=True, gc=False):
    """What a submission does to the message it comes from: a crash leaves both or neither.

    `routed`: as in `QueueStore.record`."""

    number: int
    changes: tuple[Change, ...]
    ended: bool
    routed: bool = False


class Stored(msgspec.Struct, frozen=True):
    """A message as the queue has it.

    `birth`: seconds UTC.  `progress` is parallel to `envelope.recipients`.  `again`: an earlier
    attempt may have left files.  `channels`: parallel too, of a message whose addresses have been
    routed for good; empty while they are as they were accepted.  `bounce`: the paragraphs of all
    failures so far, in the order in which they occurred.  `held`: why an administrator or a hook
    holds it back (perhaps no reason, `""`); None: it is not held.
    """

    id: MessageId
    birth: int
    size: int
    envelope: Envelope
    progress: tuple[Progress, ...]
    due: Due = (0, 0)
    again: bool = False
    channels: tuple[Channel, ...] = ()
    bounce: bytes = b""
    held: str | None = None

    @property
    def first_due(self) -> int:
        """When the first recipient is to be tried; 0: at once."""
        local, remote = self.due
        return min(local, remote) or max(local, remote)


Router = Callable[[bytes], tuple[Channel, bytes]]
"""Where a recipient goes, and its address as it is delivered: asked when a message moves to
qmail's layout, which keeps both."""


class QueueStore(Protocol):
    """A durable queue.  Futures belong to the loop that `open` was called in.

    Whatever `submit` or `record` returned for is on disk; what is written is written in
    the order of the calls.
    """

    def open(self) -> Iterable[tuple[int, int]]:
        """Recover what is there: (number, when it is first due) of every message that is not
        held, oldest first.  Blocks.

        Raises QueueDamaged (naming file, offset and remedy), HomeError, QueueFull."""
        ...

    def large(self, closes: bool = False) -> LargeBody:
        """A place for a large body; `closes`: of what will be submitted with `closes`, and is taken below
        the watermark, too."""
        ...

    def submit(
        self, envelope: Envelope, body: bytes | LargeBody, closes: Closes | None = None
    ) -> Future[Stored]:
        """Queue a message; durable when done.

        `closes` is recorded for another message in the same record (bounces, forwards); such a
        submission is not refused at the watermark.  Raises QueueFull, TemporaryFailure."""
        ...

    def record(
        self, number: int, changes: tuple[Change, ...], due: Due, ended: bool, routed: bool = False
    ) -> Future[None]:
        """Write what became of recipients, and when to try the rest; `ended`: the message is
        done with and is gone.  Done when it is synced, within 50 ms.  Never refused.

        `routed`: the positions are those of a `Stored` with `channels`, whose recipients stand in
        another order than they were accepted in.  A record with a time in `due` says that nobody
        works on the message until then."""
        ...

    def load(self, number: int) -> Stored:
        """Raises KeyError for a number that is not queued, TemporaryFailure, QueueDamaged."""
        ...

    def body(self, number: int) -> Body:
        """The stored body, readable until the message has ended.  Raises KeyError."""
        ...

    def numbers(self) -> Iterable[int]:
        """Every queued message, held ones too, oldest first; then those that `load` raises for since the
        queue was opened."""
        ...

    def totals(self) -> QueueTotals:
        """How much there is in all."""
        ...

    def hold(self, number: int, reason: str) -> Future[None]:
        """Put a message aside that nobody works on; durable when done.  Raises KeyError."""
        ...

    def release(self, number: int) -> Future[None]:
        """Put it back.  Raises KeyError."""
        ...

    def arrivals(self, arrived: Callable[[Stored], None]) -> None:
        """From now on tell `arrived` of each message that came in by another way than `submit`
        (a foreign qmail-queue's `todo/`), when it is taken in."""
        ...

    def look(self) -> None:
        """Look soon whether such messages are there."""
        ...

    async def settle(self) -> int:
        """Move everything to where it can stay; how many messages could not be moved."""
        ...

    def unsettled(self) -> int:
        """How many messages are not there yet."""
        ...

    async def close(self) -> None:
        """Write and sync everything, and let go of the disk."""
        ...
