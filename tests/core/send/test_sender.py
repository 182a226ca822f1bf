"""The shell round the manager: what breaks below it holds no other mail up."""

import asyncio
import threading
from asyncio import Future
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from memory_store import MemoryStore
from openqmail.core.log import MemoryLog
from openqmail.core.ports import LARGE, LargeBody, LocalJob, LocalReport
from openqmail.core.queue.store import Progress, Stored
from openqmail.core.send import Sender, SendManager
from openqmail.core.send.derived import prefixed
from openqmail.core.values import (
    Body,
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
from openqmail.core.world.simulated import SimulatedLoop


class Store(MemoryStore):
    """Two messages, 1 and 2; reading the first one fails as `broken` says."""

    def __init__(self, broken: str, error: Exception) -> None:
        super().__init__()
        self.broken, self.error = broken, error
        for number in (1, 2):
            self.put(message(number))

    def load(self, number: int) -> Stored:
        if number == 1 and self.broken == "load":
            raise self.error
        return super().load(number)

    def body(self, number: int) -> Body:
        if number == 1 and self.broken == "body":
            raise self.error
        return super().body(number)


def message(number: int, **facts: Any) -> Stored:
    envelope = Envelope(b"s@c.example", (Recipient(b"alice@example.test"),))
    return Stored(MessageId(number, b"k" * 24), 1_700_000_000, 5, envelope, (Progress(),), **facts)


class Local:
    """Delivers; the first message's delivery breaks when told so."""

    def __init__(self, breaks: bool = False) -> None:
        self.breaks = breaks
        self.jobs: list[LocalJob] = []

    def deliver(self, job: LocalJob) -> "Future[LocalReport]":
        self.jobs.append(job)
        future: Future[LocalReport] = asyncio.get_running_loop().create_future()
        if self.breaks and job.message.number == 1:
            future.set_exception(RuntimeError("a fault of ours"))
        else:
            future.set_result(LocalReport(Result(Outcome.SUCCESS, b"did 1+0+0\n")))
        return future

    def sync(self, written: Any) -> Any:
        raise AssertionError


def begun(
    settings: Any, store: MemoryStore, local: Local, log: MemoryLog, clock: SimulatedClock | None = None
) -> Sender:
    manager = SendManager(settings, 1, 1)
    clock = clock or SimulatedClock()
    sender = Sender(manager, store, local, None, settings, clock, log)  # type: ignore[arg-type]
    sender.start()
    return sender


async def drained(sender: Sender, store: MemoryStore) -> None:
    """Until nothing is left in the queue."""
    async with asyncio.timeout(10):
        while store.messages:
            await asyncio.sleep(0)
        await sender.drain()


@pytest.mark.parametrize("broken", ["load", "body", "delivery"])
@pytest.mark.parametrize(
    "error", [TemporaryFailure("cannot be read"), QueueDamaged("torn"), OSError(5, "EIO")]
)
def test_a_message_that_cannot_be_read_holds_no_other_up(
    make: Any, broken: str, error: OpenqmailError | OSError
) -> None:
    async def story() -> tuple[list[int], list[bytes]]:
        store, log = Store(broken, error), MemoryLog()
        sender = begun(make(), store, Local(broken == "delivery"), log)
        async with asyncio.timeout(10):
            while 2 in store.messages:
                await asyncio.sleep(0)
            await sender.drain()
        return list(store.messages), log.lines()

    left, lines = asyncio.run(story())
    assert left == [1]
    assert any(line.startswith(b"alert: ") for line in lines)


@pytest.mark.parametrize(("channels", "synced"), [((), False), (("local",), True)])
def test_deliveries_out_of_the_layout_sync_by_themselves(make: Any, channels: Any, synced: bool) -> None:
    async def story() -> LocalJob:
        store, local = MemoryStore(), Local()
        store.put(message(1, channels=channels))
        await drained(begun(make(), store, local, MemoryLog()), store)
        return local.jobs[0]

    job = asyncio.run(story())
    assert (job.synced, job.again) == (synced, synced)


def test_mail_that_another_program_put_into_the_queue_is_delivered(make: Any) -> None:
    async def story() -> list[bytes]:
        store, log = MemoryStore(), MemoryLog()
        sender = begun(make(), store, Local(), log)
        store.put(message(7))
        store.arrived(store.load(7))
        await drained(sender, store)
        return log.lines()

    lines = asyncio.run(story())
    assert lines[0] == b"new msg 7" and lines[-1] == b"end msg 7"


def test_a_clock_that_is_set_forward_is_seen_within_a_minute(make: Any) -> None:
    """What it makes due is tried then, though the loop sleeps until what was due first before."""
    clock, store, local = SimulatedClock(), MemoryStore(), Local()
    later = int(clock.now()) + 3600
    store.put(message(1, due=(later, later)))

    async def story() -> None:
        sender = begun(make(), store, local, MemoryLog(), clock)
        await asyncio.sleep(200)
        assert not local.jobs
        clock.set(clock.now() + 86_400)
        await asyncio.sleep(61)
        assert [job.message.number for job in local.jobs] == [1]
        await sender.drain()

    with asyncio.Runner(loop_factory=lambda: SimulatedLoop(clock)) as runner:
        runner.run(story())


def test_a_large_bounce_is_made_although_hooks_keep_all_threads_of_the_loop() -> None:
    returns = threading.Event()

    async def story() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        hanging = loop.run_in_executor(None, returns.wait)
        try:
            store = MemoryStore()
            store.put(message(1), b"x" * LARGE)
            await asyncio.wait_for(prefixed(store, b"sorry\n", 1), 10)
        finally:
            returns.set()
        await hanging

    asyncio.run(story())


def test_a_large_bounce_asks_for_room_below_the_watermark() -> None:
    async def story() -> None:
        store, asked = MemoryStore(), []
        store.put(message(1), b"x" * LARGE)
        large = store.large

        def noted(closes: bool = False) -> LargeBody:
            asked.append(closes)
            return large(closes)

        store.large = noted  # type: ignore[method-assign]
        await prefixed(store, b"sorry\n", 1)
        assert asked == [True]

    asyncio.run(story())
