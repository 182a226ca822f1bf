"""What the sender says only when it is a fact, and what it writes only together.

The sender, its manager and the queue on the disk are the real ones; deliveries to users are
played, and what their files' sync says is held by the test.
"""

import asyncio
import os
from asyncio import Future
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from openqmail.core.log import MemoryLog
from openqmail.core.ports import Forward, LargeBody, LocalJob, LocalReport, Written
from openqmail.core.queue import LocalStore, read
from openqmail.core.queue.store import Change, Closes, Due, Stored
from openqmail.core.send import Sender, SendManager, StoredQueue
from openqmail.core.values import Envelope, Origin, Outcome, Recipient, Result
from openqmail.core.world import PosixDisk, SimulatedClock

SUCCESS, DEFERRAL, FAILURE = Outcome.SUCCESS, Outcome.DEFERRAL, Outcome.FAILURE
ALICE, BOB, CAROL = b"alice@example.test", b"bob@example.test", b"carol@example.test"
FILES = (Written(b"/mail/alice/new/1", 5), Written(b"/mail/alice/new/2", 5))
DID = Result(SUCCESS, b"did 2+0+0\n")
LATER = LocalReport(Result(DEFERRAL, b"later\n"))


class Store(LocalStore):
    """The real queue, which remembers what it was asked to write."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts, route=lambda address: ("local", address))
        self.closed: list[Closes] = []
        self.results: list[tuple[int, tuple[Change, ...], bool]] = []

    def submit(
        self, envelope: Envelope, body: bytes | LargeBody, closes: Closes | None = None
    ) -> "Future[Stored]":
        if closes is not None:
            self.closed.append(closes)
        return super().submit(envelope, body, closes)

    def record(
        self, number: int, changes: tuple[Change, ...], due: Due, ended: bool, routed: bool = False
    ) -> "Future[None]":
        self.results.append((number, changes, ended))
        return super().record(number, changes, due, ended)


class Local:
    """Reports what the test says of a recipient, at once; any other is deferred."""

    def __init__(self, reports: dict[bytes, LocalReport]) -> None:
        self._loop = asyncio.get_running_loop()
        self._reports = reports
        self.asked: Future[list[Written]] = self._loop.create_future()
        """The files that the sender wants synced."""
        self.answer: Future[tuple[bool, ...]] = self._loop.create_future()

    def deliver(self, job: LocalJob) -> "Future[LocalReport]":
        future: Future[LocalReport] = self._loop.create_future()
        future.set_result(self._reports.get(job.recipient, LATER))
        return future

    def sync(self, written: Sequence[Written]) -> "Future[tuple[bool, ...]]":
        self.asked.set_result(list(written))
        return self.answer


class Scene:
    """A sender on a queue in `folder`, and one message to some recipients, `number`."""

    def __init__(self, folder: Path, settings: Any, reports: dict[bytes, LocalReport]) -> None:
        self.folder, self.log, self.local = folder, MemoryLog(), Local(reports)
        clock, fatal = SimulatedClock(), list[Exception]()
        self.store = Store(PosixDisk(), clock, os.fsencode(folder), fatal.append)
        manager = SendManager(settings, 1, 1)
        self.sender = Sender(
            manager,
            self.store,
            self.local,
            None,  # type: ignore[arg-type]
            settings,
            clock,
            self.log,
        )
        self.sender.start()
        self.queue = StoredQueue(self.store, lambda: settings, self.sender, clock, self.log)
        self.number = 0

    async def submit(self, *recipients: bytes) -> None:
        envelope = Envelope(CAROL, tuple(Recipient(address) for address in recipients), Origin(1000, 1))
        self.number = (await self.sender.submit(envelope, b"Subject: x\n\nbody\n")).number

    async def until(self, line: bytes) -> None:
        async with asyncio.timeout(10):
            while line not in self.log.lines():
                await asyncio.sleep(0)

    async def all_written(self) -> None:
        """What the store was asked for before is on the disk: submissions wait for no second."""
        await self.store.submit(Envelope(b"after@c.example", (Recipient(b"x@far.test"),)), b"after\n")

    def state(self) -> tuple[str, int]:
        """Of the message's first recipient, as `openqmail queue list` has it."""
        [summary] = self.queue.messages([self.number])
        return summary.recipients[0].state, summary.recipients[0].attempts

    def on_disk(self) -> dict[bytes, Stored]:
        """What somebody who looks finds on the disk now, by sender."""
        return {stored.envelope.sender: stored for stored in read(os.fsencode(self.folder))}

    async def close(self) -> None:
        await self.sender.drain()
        await self.store.close()


Begin = Callable[[dict[bytes, LocalReport]], Scene]


@pytest.fixture
def begin(tmp_path: Path, make: Any) -> Begin:
    """A scene, given what is reported of whom; in a running loop."""
    settings = make(bouncefrom=b"MAILER-DAEMON", bouncehost=b"mail.example.test")
    (tmp_path / "queue").mkdir()
    return lambda reports: Scene(tmp_path / "queue", settings, reports)


def succeeded(scene: Scene) -> bool:
    return any(b": success" in line for line in scene.log.lines())


def test_a_success_is_recorded_only_when_its_files_are_durable(begin: Begin) -> None:
    async def story() -> None:
        scene = begin({ALICE: LocalReport(DID, FILES)})
        await scene.submit(ALICE)
        async with asyncio.timeout(10):
            assert await scene.local.asked == list(FILES)
        assert scene.sender.running == (0, 0)
        await scene.all_written()
        assert scene.store.results == [] and not succeeded(scene)
        assert scene.state() == ("todo", 0)
        assert [one.outcome for one in scene.on_disk()[CAROL].progress] == [None]
        scene.local.answer.set_result((True, True))
        await scene.close()
        assert b"delivery 1: success: did_2+0+0/" in scene.log.lines()
        assert b"end msg %d" % scene.number in scene.log.lines()
        assert scene.store.results == [(scene.number, (Change(0, SUCCESS, DID.text),), True)]
        assert not list(scene.queue.messages([scene.number])) and CAROL not in scene.on_disk()

    asyncio.run(story())


@pytest.mark.parametrize("answer", [(False, True), (True, False), (True,), OSError(5, "EIO")])
def test_a_message_whose_files_were_not_kept_stays_in_the_queue(begin: Begin, answer: Any) -> None:
    async def story() -> None:
        scene = begin({ALICE: LocalReport(DID, FILES)})
        await scene.submit(ALICE)
        async with asyncio.timeout(10):
            await scene.local.asked
        if isinstance(answer, OSError):
            scene.local.answer.set_exception(answer)
        else:
            scene.local.answer.set_result(answer)
        await scene.close()
        line = b"delivery 1: deferral: The_disk_would_not_keep_the_message._(#4.3.0)/"
        assert line in scene.log.lines() and not succeeded(scene)
        assert scene.state() == ("todo", 1)
        [recipient] = scene.on_disk()[CAROL].progress
        assert (recipient.outcome, recipient.attempts) == (None, 1)

    asyncio.run(story())


def test_a_bounce_and_the_end_of_its_message_are_one_record(begin: Begin) -> None:
    async def story() -> Scene:
        scene = begin({ALICE: LocalReport(Result(FAILURE, b"no such user\n"))})
        await scene.submit(ALICE)
        await scene.until(b"delivery 2: deferral: later/")  # the bounce's, to carol
        await scene.close()
        return scene

    scene = asyncio.run(story())
    assert scene.store.closed == [Closes(scene.number, (), True)]
    paragraph = b"<alice@example.test>:\nno such user\n\n"
    mine = [result for result in scene.store.results if result[0] == scene.number]
    assert mine == [(scene.number, (Change(0, FAILURE, paragraph),), False)]
    found = scene.on_disk()
    assert CAROL not in found and found[b""].envelope.recipients == (Recipient(CAROL),)


def test_a_forward_and_its_recipients_end_are_one_record(begin: Begin) -> None:
    forward = Forward(CAROL, (b"dave@example.test",), b"Delivered-To: alice@example.test\n")

    async def story() -> Scene:
        scene = begin({ALICE: LocalReport(DID, FILES, forward)})
        await scene.submit(ALICE, BOB)
        async with asyncio.timeout(10):
            await scene.local.asked
        assert scene.store.closed == []  # nothing is forwarded before the files are facts
        scene.local.answer.set_result((True, True))
        await scene.until(b"delivery 3: deferral: later/")  # the forwarded one's, to dave
        await scene.close()
        return scene

    scene = asyncio.run(story())
    change = Change(0, SUCCESS, DID.text)
    assert scene.store.closed == [Closes(scene.number, (change,), False)]
    assert not any(change in changes for _, changes, _ in scene.store.results)
    recipients = {one.envelope.recipients for one in read(os.fsencode(scene.folder))}
    assert (Recipient(b"dave@example.test"),) in recipients
