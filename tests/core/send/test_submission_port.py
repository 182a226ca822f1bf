"""What the port Submission promises, of a real queue on a real disk; run once more through frames
(tests/core/service/frames/test_submission_port.py).

`queue.run(story)`: `story(port, store)`, with what the queue has on disk at hand.
"""

import asyncio
from types import SimpleNamespace

import pytest

from openqmail.core.control import Home, read_settings
from openqmail.core.log import MemoryLog
from openqmail.core.ports import LARGE
from openqmail.core.service.queueing import Ending, Queueing
from openqmail.core.values import Envelope, QueueFull, Recipient, TemporaryFailure
from openqmail.core.world import PosixDisk, SystemClock

ENVELOPE = Envelope(b"s@x.example", (Recipient(b"r@a.example"), Recipient(b"far@y.example")))


class Disk(PosixDisk):
    """`free`: bytes of a thousand million; None: as it is."""

    free: int | None = None

    def room(self, path):
        return super().room(path) if self.free is None else (self.free, 1_000_000_000)


class Queue:
    """Delivers nothing: what comes in stays."""

    def __init__(self, path):
        (path / "control").mkdir()
        for name, value in {"me": "a.example", "concurrencylocal": "0", "concurrencyremote": "0"}.items():
            (path / "control" / name).write_text(f"{value}\n")
        (path / "queue").mkdir()
        self.home, self.disk, self.log = Home(str(path)), Disk(), MemoryLog()

    def run(self, story):
        async def life():
            nobody = SimpleNamespace(sync=None)
            queueing = Queueing(
                *(self.home, read_settings(self.home), self.disk, SystemClock(), self.log),
                *(nobody, nobody, lambda error: None, False),
            )
            queueing.start()
            await self.told(story, queueing)
            await queueing.close(Ending(10, asyncio.Event()), settle=False)

        asyncio.run(asyncio.wait_for(life(), 30))

    async def told(self, story, queueing):
        await story(queueing.sender, queueing.store)


@pytest.fixture
def queue(tmp_path):
    return Queue(tmp_path)


def stored(store, message):
    """Envelope and body of a message that is in the queue."""
    found = store.load(message.number)
    assert found.id == message
    return found.envelope, b"".join(store.body(message.number).chunks())


def test_a_message_that_is_taken_is_in_the_queue_whole(queue):
    async def story(port, store):
        envelope, body = stored(store, await port.submit(ENVELOPE, b"Subject: x\n\nsmall\n"))
        assert body == b"Subject: x\n\nsmall\n"
        assert (envelope.sender, envelope.recipients) == (ENVELOPE.sender, ENVELOPE.recipients)

    queue.run(story)


def test_a_large_one_comes_piece_by_piece(queue):
    async def story(port, store):
        large = port.large()
        for piece in (b"x" * LARGE, b"", b"y" * 300_000, b"\n"):
            await large.write(piece)
        _, body = stored(store, await port.submit(ENVELOPE, large))
        assert body == b"x" * LARGE + b"y" * 300_000 + b"\n"

    queue.run(story)


def test_each_of_many_at_once_is_answered_for_itself(queue):
    async def story(port, store):
        bodies = [b"number %d\n" % number for number in range(50)]
        taken = await asyncio.gather(*(port.submit(ENVELOPE, body) for body in bodies))
        assert [stored(store, one)[1] for one in taken] == bodies
        assert len({one.number for one in taken}) == 50

    queue.run(story)


def test_a_body_that_is_given_up_is_nowhere_and_takes_no_more(queue):
    async def story(port, store):
        large = port.large()
        await large.write(b"x" * LARGE)
        large.abort()
        large.abort()
        for late in (lambda: large.write(b"more"), lambda: port.submit(ENVELOPE, large)):
            with pytest.raises(TemporaryFailure):
                await late()
        taken = await port.submit(ENVELOPE, b"after it\n")
        assert list(store.numbers()) == [taken.number]

    queue.run(story)


def test_a_full_disk_is_told_as_such_and_takes_nothing(queue):
    queue.disk.free = 0

    async def story(port, store):
        with pytest.raises(QueueFull):
            await port.submit(ENVELOPE, b"x\n")
        large = port.large()
        with pytest.raises(QueueFull):
            await large.write(b"x" * LARGE)
        assert list(store.numbers()) == []

    queue.run(story)
