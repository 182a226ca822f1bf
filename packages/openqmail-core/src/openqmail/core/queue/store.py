"""What is on disk, behind one protocol: everything above knows numbers, never file names."""

from asyncio import Future
from collections.abc import Iterable
from typing import Protocol

import msgspec

from openqmail.core.ports import LargeBody, QueueTotals
from openqmail.core.values import Body, Envelope, MessageId, Outcome


class Progress(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """How far one recipient is.  `outcome` is None while it is to be tried (again);
    `text` is the last report (a failure's goes into the bounce)."""

    outcome: Outcome | None = None
    attempts: int = 0
    text: bytes = b""


class Change(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one attempt did to the recipient at `position`; DEFERRAL leaves it to be tried again."""

    position: int
    outcome: Outcome
    text: bytes


class Stored(msgspec.Struct, frozen=True):
    """A message as the queue has it.

    `birth`: seconds UTC.  `due`: when it is next to be tried (0: now).  `progress` is
    parallel to `envelope.recipients`.  `again`: an earlier attempt may have left files.
    """

    id: MessageId
    birth: int
    size: int
    envelope: Envelope
    progress: tuple[Progress, ...]
    due: int = 0
    again: bool = False


class QueueStore(Protocol):
    """A durable queue.  Futures belong to the loop that `open` was called in.

    Whatever `submit` or `record` returned for is on disk; what is written is written in
    the order of the calls.
    """

    def open(self) -> Iterable[tuple[int, int]]:
        """Recover what is there: (number, due) of every message, oldest first.  Blocks.

        Raises QueueDamaged (naming file, offset and remedy), HomeError."""
        ...

    def large(self) -> LargeBody: ...

    def submit(
        self,
        envelope: Envelope,
        body: bytes | LargeBody,
        closes: tuple[int, tuple[Change, ...], bool] | None = None,
    ) -> Future[Stored]:
        """Queue a message; durable when done.

        `closes` = (number, changes, ended) is recorded for another message in the same
        record: a crash leaves both or neither (bounces, forwards).  Such a submission is
        not refused at the watermark.  Raises QueueFull, TemporaryFailure."""
        ...

    def record(self, number: int, changes: tuple[Change, ...], due: int, ended: bool) -> Future[None]:
        """Write what became of recipients, and when to try the rest; `ended`: the message is
        done with and is gone.  Done when it is synced, within 50 ms.  Never refused."""
        ...

    def load(self, number: int) -> Stored:
        """Raises KeyError for a number that is not queued."""
        ...

    def body(self, number: int) -> Body:
        """The stored body, readable until the message has ended.  Raises KeyError."""
        ...

    def numbers(self) -> Iterable[int]:
        """Every queued message, oldest first."""
        ...

    def totals(self) -> QueueTotals:
        """How much there is in all."""
        ...

    async def close(self) -> None:
        """Write and sync everything, and let go of the disk."""
        ...
