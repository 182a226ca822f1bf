"""What an administrator does to messages, while deliveries are under way.

The sender and its manager are the real ones, on a queue in memory; a delivery ends when the
test says so.
"""

import asyncio
from asyncio import Future
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest

from memory_store import MemoryStore
from openqmail.core.log import MemoryLog
from openqmail.core.ports import Acted, LocalJob, LocalReport, Missed
from openqmail.core.queue.store import Progress, Stored
from openqmail.core.send import Sender, SendManager, StoredQueue
from openqmail.core.values import (
    Envelope,
    MessageId,
    Outcome,
    Recipient,
    Result,
    TemporaryFailure,
)
from openqmail.core.world import SimulatedClock

DEFERRED = LocalReport(Result(Outcome.DEFERRAL, b"later\n"))
DELIVERED = LocalReport(Result(Outcome.SUCCESS, b"did 1+0+0\n"))
ABSENT = "is not in the queue"


class Local:
    """A delivery ends when the test answers it, by the number of the message."""

    def __init__(self) -> None:
        self.running: dict[int, Future[LocalReport]] = {}

    def deliver(self, job: LocalJob) -> "Future[LocalReport]":
        assert job.message.number not in self.running
        future = self.running[job.message.number] = asyncio.get_running_loop().create_future()
        return future

    def end(self, number: int, report: LocalReport) -> None:
        self.running.pop(number).set_result(report)

    def sync(self, written: Any) -> Any:
        raise AssertionError


class Scene:
    """Some messages to alice: numbers from 1 on, each being delivered."""

    def __init__(self, settings: Any, count: int, patience: float = 30) -> None:
        self.store, self.local, self.log = MemoryStore(), Local(), MemoryLog()
        self.clock = SimulatedClock()
        for number in range(1, count + 1):
            self.store.put(message(number))
        manager = SendManager(settings, 99, 1)
        self.sender = Sender(
            manager,
            self.store,
            self.local,
            None,  # type: ignore[arg-type]
            settings,
            self.clock,
            self.log,
        )
        self.sender.start()
        self.queue = StoredQueue(self.store, lambda: settings, self.sender, self.clock, self.log, patience)

    async def until(self, true: Callable[[], Any]) -> None:
        async with asyncio.timeout(10):
            while not true():
                await asyncio.sleep(0)

    async def deferred(self) -> None:
        """Until every delivery was deferred and recorded."""
        numbers = set(self.store.messages)
        await self.until(lambda: set(self.local.running) == numbers)
        for number in numbers:
            self.local.end(number, DEFERRED)
        await self.until(lambda: all(any(one.due) for one in self.store.messages.values()))

    async def is_let_go(self, work: "Coroutine[Any, Any, Acted]") -> "asyncio.Task[Acted]":
        """The verb, begun, when the manager has been told."""
        task = asyncio.create_task(work)
        await asyncio.sleep(0)
        return task


def message(number: int, **facts: Any) -> Stored:
    envelope = Envelope(b"carol@example.test", (Recipient(b"alice@example.test"),))
    key = b"%024d" % number
    return Stored(MessageId(number, key), 1_700_000_000, 19, envelope, (Progress(),), **facts)


Begin = Callable[..., Scene]


@pytest.fixture
def begin(make: Any) -> Begin:
    settings = make(bouncefrom=b"MAILER-DAEMON", bouncehost=b"mail.example.test")
    return lambda count, **parts: Scene(settings, count, **parts)


def test_held_mail_is_not_tried_until_it_is_released(begin: Begin) -> None:
    async def story() -> None:
        scene = begin(3)
        await scene.deferred()
        acted = await scene.queue.hold((2, 3, 9), "odd")
        assert acted == Acted((2, 3), (Missed(9, ABSENT),))
        assert await scene.queue.hold((2,), "") == Acted((), (Missed(2, "is held already"),))
        assert await scene.queue.retry((2,)) == Acted((), (Missed(2, "is held; release it first"),))
        assert [one.held for one in scene.queue.messages()] == [None, "odd", "odd"]
        scene.clock.advance(100_000)
        scene.sender.flush()
        await scene.until(lambda: scene.local.running)
        assert set(scene.local.running) == {1}
        assert await scene.queue.release((1, 3)) == Acted((3,), (Missed(1, "is not held"),))
        await scene.until(lambda: set(scene.local.running) == {1, 3})

    asyncio.run(story())


def test_retry_tries_one_message_and_flush_all(begin: Begin) -> None:
    async def story() -> None:
        scene = begin(3)
        await scene.deferred()
        assert await scene.queue.retry((2,)) == Acted((2,))
        await scene.until(lambda: scene.local.running)
        assert set(scene.local.running) == {2}
        assert await scene.queue.flush() == 2, "one does not wait: it is being tried"
        await scene.until(lambda: set(scene.local.running) == {1, 2, 3})

    asyncio.run(story())


def test_a_deleted_message_is_gone_and_nobody_is_told(begin: Begin) -> None:
    async def story() -> None:
        scene = begin(2)
        await scene.deferred()
        await scene.queue.hold((2,), "")
        assert await scene.queue.delete((1, 2, 1)) == Acted((1, 2))
        assert not scene.store.messages and not scene.store.closed
        lines = scene.log.lines()
        at = lines.index(b"message 1 deleted by the administrator")
        assert lines[at + 1] == b"end msg 1"
        assert await scene.queue.delete((1,)) == Acted((), (Missed(1, ABSENT),))

    asyncio.run(story())


@pytest.mark.parametrize("held", [False, True])
def test_a_message_that_is_given_back_bounces_with_the_text(begin: Begin, held: bool) -> None:
    async def story() -> None:
        scene = begin(1)
        await scene.deferred()
        if held:
            await scene.queue.hold((1,), "")
        assert await scene.queue.bounce((1,), "No room for this.") == Acted((1,))
        await scene.until(lambda: 1 not in scene.store.messages)
        [(number, content)] = scene.store.bodies.items()
        assert scene.store.messages[number].envelope.recipients == (Recipient(b"carol@example.test"),)
        assert b"\n\n<alice@example.test>:\nNo room for this.\n\n--- Below" in content

    asyncio.run(story())


def test_a_sender_who_wants_to_be_told_nothing_gets_nothing_back(begin: Begin) -> None:
    async def story() -> None:
        scene = begin(1)
        await scene.deferred()
        envelope = Envelope(b"carol@example.test", (Recipient(b"alice@example.test", b"NEVER"),))
        scene.store.messages[1] = msgspec.structs.replace(scene.store.messages[1], envelope=envelope)
        assert await scene.queue.bounce((1,), "No room for this.") == Acted((1,))
        await scene.until(lambda: b"end msg 1" in scene.log.lines())
        assert not scene.store.messages and not scene.store.closed

    asyncio.run(story())


def test_a_delivery_under_way_ends_first_and_is_recorded(begin: Begin) -> None:
    async def story() -> None:
        scene = begin(2)
        await scene.until(lambda: set(scene.local.running) == {1, 2})
        deleting = await scene.is_let_go(scene.queue.delete((1, 2)))
        assert not deleting.done() and set(scene.store.messages) == {1, 2}
        assert await scene.queue.hold((1,), "") == Acted(
            (), (Missed(1, "is in the hands of another command; ask again", True),)
        )
        scene.local.end(1, DELIVERED)
        scene.local.end(2, DEFERRED)
        assert await deleting == Acted((2,), (Missed(1, ABSENT),))
        assert not scene.store.messages
        assert [number for number, _, _, ended in scene.store.results if ended] == [1, 2]

    asyncio.run(story())


def test_what_takes_longer_than_anybody_waits_is_done_later(begin: Begin) -> None:
    async def story() -> None:
        scene = begin(1, patience=0)
        await scene.until(lambda: scene.local.running)
        assert await scene.queue.delete((1,)) == Acted(later=(1,))
        scene.local.end(1, DEFERRED)
        await scene.until(lambda: not scene.store.messages)

    asyncio.run(story())


def test_a_service_that_ends_leaves_what_is_still_being_delivered(begin: Begin) -> None:
    async def story() -> None:
        scene = begin(1)
        await scene.until(lambda: scene.local.running)
        deleting = await scene.is_let_go(scene.queue.delete((1,)))
        await scene.queue.close()
        [missed] = (await deleting).missed
        assert missed.number == 1 and "the service is ending" in missed.why
        [missed] = (await scene.queue.delete((1,))).missed
        assert "the service is ending" in missed.why
        assert set(scene.store.messages) == {1}

    asyncio.run(story())


def test_what_cannot_be_written_is_said_and_the_message_stays_in_the_queue(begin: Begin) -> None:
    async def story() -> None:
        scene = begin(1)
        await scene.deferred()

        def broken(number: int, reason: str) -> "Future[None]":
            future: Future[None] = asyncio.get_running_loop().create_future()
            future.set_exception(TemporaryFailure("the disk is full"))
            return future

        scene.store.hold = broken  # type: ignore[method-assign]
        assert await scene.queue.hold((1,), "") == Acted(
            (), (Missed(1, "is left as it is: the disk is full", True),)
        )
        scene.sender.flush()
        await scene.until(lambda: scene.local.running)

    asyncio.run(story())


def test_a_message_that_is_taken_before_its_arrival_is_told_is_not_delivered(begin: Begin) -> None:
    async def story() -> None:
        scene = begin(0)
        scene.store.put(message(1))
        deleting = await scene.is_let_go(scene.queue.delete((1,)))
        scene.store.arrived(message(1))  # only now does the queue tell it
        assert await deleting == Acted((1,))
        await scene.sender.drain()
        assert not scene.local.running and not scene.store.messages

    asyncio.run(story())


def ends_and_its_number_comes_again(scene: Scene, number: int) -> Stored:
    """The delivery under way succeeds; in the moment in which its end is on the disk another message
    comes in, under the same number: it is told at once, before the end is."""
    other = msgspec.structs.replace(message(number), id=MessageId(number, b"B" * 24))
    record = scene.store.record

    def recorded(number: int, *more: Any) -> "Future[None]":
        done = record(number, *more)
        if number not in scene.store.messages:
            scene.store.record = record  # type: ignore[method-assign]
            scene.store.put(other)
            done.add_done_callback(lambda _: scene.store.arrived(other))
        return done

    scene.store.record = recorded  # type: ignore[method-assign]
    scene.local.end(number, DELIVERED)
    return other


VERBS = {
    "hold": lambda queue, **more: queue.hold((1,), "", **more),
    "retry": lambda queue, **more: queue.retry((1,), **more),
    "delete": lambda queue, **more: queue.delete((1,), **more),
    "bounce": lambda queue, **more: queue.bounce((1,), "No room for this.", **more),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_does_nothing_to_a_message_that_came_under_the_number_while_it_waited(
    begin: Begin, verb: str
) -> None:
    async def story() -> None:
        scene = begin(1)
        await scene.until(lambda: scene.local.running)
        acting = await scene.is_let_go(VERBS[verb](scene.queue))
        other = ends_and_its_number_comes_again(scene, 1)
        assert await acting == Acted((), (Missed(1, ABSENT),))
        assert scene.store.messages == {1: other}, "as it came"
        await scene.until(lambda: scene.local.running)  # and it is not forgotten
        scene.local.end(1, DELIVERED)
        await scene.until(lambda: not scene.store.messages)
        assert scene.log.lines().count(b"new msg 1") == 1

    asyncio.run(story())


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_does_nothing_to_a_message_that_is_not_the_one_that_was_listed(
    begin: Begin, verb: str
) -> None:
    async def story() -> None:
        scene = begin(1)
        await scene.deferred()
        [listed] = scene.queue.messages()
        assert not isinstance(listed, Missed)
        before = scene.store.messages[1]
        acted = await VERBS[verb](scene.queue, keys=[(b"B" * 24).hex()])
        assert acted == Acted((), (Missed(1, ABSENT),)) and scene.store.messages == {1: before}
        assert await VERBS[verb](scene.queue, keys=[listed.key]) == Acted((1,))

    asyncio.run(story())


def test_a_held_message_is_not_tried_after_a_start(begin: Begin) -> None:
    async def story() -> None:
        scene = begin(0)
        scene.store.put(msgspec.structs.replace(message(1), held="why"))
        scene.store.put(message(2))
        again = Sender(
            SendManager(scene.queue._settings(), 1, 1),
            scene.store,
            scene.local,
            None,  # type: ignore[arg-type]
            scene.queue._settings(),
            scene.clock,
            scene.log,
        )
        again.start()
        await scene.until(lambda: scene.local.running)
        assert set(scene.local.running) == {2}

    asyncio.run(story())
