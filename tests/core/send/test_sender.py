"""The shell round the manager: what breaks below it holds no other mail up."""

import asyncio
from asyncio import Future
from typing import Any

import pytest

from openqmail.core.log import MemoryLog
from openqmail.core.ports import LocalJob, LocalReport
from openqmail.core.queue import Progress, Stored
from openqmail.core.send import Sender, SendManager
from openqmail.core.values import (
    BytesBody,
    Envelope,
    MessageId,
    OpenqmailError,
    Outcome,
    QueueDamaged,
    Recipient,
    Result,
    TemporaryFailure,
)
from openqmail.core.world import SimulatedClock


class Store:
    """Two messages, 1 and 2; reading the first one fails as `broken` says."""

    def __init__(self, broken: str, error: Exception) -> None:
        self.broken, self.error = broken, error
        self.ended: list[int] = []

    def open(self) -> list[tuple[int, int]]:
        return [(1, 0), (2, 0)]

    def load(self, number: int) -> Stored:
        if number == 1 and self.broken == "load":
            raise self.error
        envelope = Envelope(b"s@c.example", (Recipient(b"alice@example.test"),))
        return Stored(MessageId(number, b"k" * 24), 1_700_000_000, 5, envelope, (Progress(),))

    def body(self, number: int) -> BytesBody:
        if number == 1 and self.broken == "body":
            raise self.error
        return BytesBody(b"body\n")

    def record(self, number: int, changes: Any, due: int, ended: bool) -> "Future[None]":
        if ended:
            self.ended.append(number)
        future: Future[None] = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future


class Local:
    """Delivers; the first message's delivery breaks when told so."""

    def __init__(self, breaks: bool) -> None:
        self.breaks = breaks

    def deliver(self, job: LocalJob) -> "Future[LocalReport]":
        future: Future[LocalReport] = asyncio.get_running_loop().create_future()
        if self.breaks and job.message.number == 1:
            future.set_exception(RuntimeError("a fault of ours"))
        else:
            future.set_result(LocalReport(Result(Outcome.SUCCESS, b"did 1+0+0\n")))
        return future

    def sync(self, written: Any) -> Any:
        raise AssertionError


@pytest.mark.parametrize("broken", ["load", "body", "delivery"])
@pytest.mark.parametrize(
    "error", [TemporaryFailure("cannot be read"), QueueDamaged("torn"), OSError(5, "EIO")]
)
def test_a_message_that_cannot_be_read_holds_no_other_up(
    make: Any, broken: str, error: OpenqmailError | OSError
) -> None:
    async def story() -> tuple[list[int], list[bytes]]:
        store, log = Store(broken, error), MemoryLog()
        local = Local(broken == "delivery")
        settings = make()
        manager = SendManager(settings, 1, 1)
        clock = SimulatedClock()
        sender = Sender(manager, store, local, None, settings, clock, log)  # type: ignore[arg-type]
        sender.start()
        async with asyncio.timeout(10):
            while 2 not in store.ended:
                await asyncio.sleep(0)
            await sender.drain()
        return store.ended, log.lines()

    ended, lines = asyncio.run(story())
    assert ended == [2]
    assert any(line.startswith(b"alert: ") for line in lines)
