"""A `QueueStore` in memory: what it is asked for is done in the next turn of the loop.

It keeps what was asked of it (`results`, `closed`), and follows qmail in what it forgets: a
message that ends is gone at once.  Nothing here is durable.
"""

import asyncio
from asyncio import Future
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from openqmail.core.ports import LargeBody, QueueTotals
from openqmail.core.queue.store import Change, Closes, Due, Progress, Stored
from openqmail.core.values import Body, BytesBody, Envelope, MessageId, Outcome

BIRTH = 1_700_000_000


class Large:
    """A large body that is held."""

    def __init__(self) -> None:
        self.content = b""

    def write(self, chunk: bytes) -> "Future[None]":
        self.content += chunk
        return _done(None)

    def abort(self) -> None:
        self.content = b""


class MemoryStore:
    def __init__(self) -> None:
        self.messages: dict[int, Stored] = {}
        self.bodies: dict[int, bytes] = {}
        self.results: list[tuple[int, tuple[Change, ...], Due, bool]] = []
        self.closed: list[Closes] = []
        self.arrived: Callable[[Stored], None] = lambda stored: None
        self.next = 1
        self.settled = self.ended = False

    def put(self, stored: Stored, body: bytes = b"Subject: x\n\nbody\n") -> None:
        """A message that was there before."""
        self.messages[stored.id.number] = stored
        self.bodies[stored.id.number] = body
        self.next = max(self.next, stored.id.number + 1)

    def open(self) -> Iterable[tuple[int, int]]:
        return [(number, min(one.due)) for number, one in self.messages.items() if one.held is None]

    def large(self, closes: bool = False) -> LargeBody:
        return Large()

    def submit(
        self, envelope: Envelope, body: bytes | LargeBody, closes: Closes | None = None
    ) -> "Future[Stored]":
        content = body.content if isinstance(body, Large) else body
        assert isinstance(content, bytes)
        number, self.next = self.next, self.next + 1
        progress = (Progress(),) * len(envelope.recipients)
        stored = Stored(MessageId(number, b"%024d" % number), BIRTH, len(content), envelope, progress)
        self.put(stored, content)
        if closes is not None:
            self.closed.append(closes)
            self._apply(closes.number, closes.changes, (0, 0), closes.ended)
        return _done(stored)

    def record(
        self, number: int, changes: tuple[Change, ...], due: Due, ended: bool, routed: bool = False
    ) -> "Future[None]":
        self.results.append((number, changes, due, ended))
        self._apply(number, changes, due, ended)
        return _done(None)

    def load(self, number: int) -> Stored:
        return self.messages[number]

    def body(self, number: int) -> Body:
        return BytesBody(self.bodies[number])

    def numbers(self) -> Iterable[int]:
        return list(self.messages)

    def totals(self) -> QueueTotals:
        all_of_them = self.messages.values()
        left = [sum(one.outcome is None for one in stored.progress) for stored in all_of_them]
        deferred = sum(stored.held is None and any(stored.due) for stored in all_of_them)
        held = sum(stored.held is not None for stored in all_of_them)
        size = sum(stored.size for stored in all_of_them)
        return QueueTotals(len(self.messages), sum(left), deferred, held, size)

    def hold(self, number: int, reason: str) -> "Future[None]":
        return self._held(number, reason)

    def release(self, number: int) -> "Future[None]":
        return self._held(number, None)

    def arrivals(self, arrived: Callable[[Stored], None]) -> None:
        self.arrived = arrived

    def look(self) -> None:
        pass

    async def settle(self) -> int:
        self.settled = True
        return 0

    async def close(self) -> None:
        self.ended = True

    def _held(self, number: int, reason: str | None) -> "Future[None]":
        future: Future[None] = asyncio.get_running_loop().create_future()
        if number in self.messages:
            self.messages[number] = msgspec.structs.replace(self.messages[number], held=reason)
            future.set_result(None)
        else:
            future.set_exception(KeyError(number))
        return future

    def _apply(self, number: int, changes: tuple[Change, ...], due: Due, ended: bool) -> None:
        if ended:
            del self.messages[number], self.bodies[number]
        else:
            self.messages[number] = applied(self.messages[number], changes, due)


def applied(stored: Stored, changes: tuple[Change, ...], due: Due) -> Stored:
    """The message after a record of these changes."""
    progress, bounce = list(stored.progress), stored.bounce
    for change in changes:
        before = progress[change.position]
        assert before.outcome is None, "a recipient that is done with was tried again"
        outcome = None if change.outcome is Outcome.DEFERRAL else change.outcome
        progress[change.position] = Progress(outcome, before.attempts + 1, change.text)
        if outcome is Outcome.FAILURE:
            bounce += change.text
    return msgspec.structs.replace(stored, progress=tuple(progress), due=due, bounce=bounce)


def _done(value: Any) -> "Future[Any]":
    future: Future[Any] = asyncio.get_running_loop().create_future()
    future.set_result(value)
    return future
