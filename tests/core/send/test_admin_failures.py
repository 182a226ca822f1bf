"""Verbs of an administrator that the disk refuses: the message stays what it was, and its time stays.

The sender and its manager are the real ones, on a queue in memory whose calls fail when the test says so.
"""

import asyncio
from asyncio import Future
from types import SimpleNamespace

import msgspec
import pytest

from memory_store import BIRTH, MemoryStore
from openqmail.core.log import MemoryLog
from openqmail.core.ports import LocalReport
from openqmail.core.queue.store import Progress, Stored
from openqmail.core.send import Sender, SendManager, StoredQueue
from openqmail.core.values import Envelope, MessageId, Outcome, Recipient, Result, TemporaryFailure
from openqmail.core.world import SimulatedClock

LATER = BIRTH + 5000
DEFERRED = LocalReport(Result(Outcome.DEFERRAL, b"later\n"))


class Failing(MemoryStore):
    """`fails`: the calls that go wrong, each once; `late`: what they did has happened all the same.

    `wait`: calls are answered when the test says so."""

    def __init__(self):
        super().__init__()
        self.fails, self.late, self.wait = [], False, None

    def open(self):
        return [(number, one.first_due) for number, one in self.messages.items() if one.held is None]

    def _goes_wrong(self, call):
        if call not in self.fails:
            return False
        self.fails.remove(call)
        return True

    def _answer(self, call, work):
        failed = self._goes_wrong(call)
        done = work() if self.late or not failed else None
        future = asyncio.get_running_loop().create_future()
        if failed:
            future.set_exception(TemporaryFailure("the disk would not"))
        elif self.wait is not None:
            self.wait.add_done_callback(lambda _: future.set_result(None))
        elif done.exception() is not None:
            future.set_exception(done.exception())
        else:
            future.set_result(None)
        return future

    def hold(self, number, reason):
        return self._answer("hold", lambda: MemoryStore.hold(self, number, reason))

    def release(self, number):
        return self._answer("release", lambda: MemoryStore.release(self, number))

    def record(self, number, changes, due, ended, routed=False):
        return self._answer("record", lambda: MemoryStore.record(self, number, changes, due, ended))

    def load(self, number):
        if self._goes_wrong("load"):
            raise TemporaryFailure("the disk would not")
        return super().load(number)


class Local:
    """Deliveries that are begun and answered by the test."""

    def __init__(self):
        self.running: dict[int, Future[LocalReport]] = {}

    def deliver(self, job):
        future = self.running[job.message.number] = asyncio.get_running_loop().create_future()
        return future

    def sync(self, written):
        raise AssertionError


class Scene:
    def __init__(self, settings, *messages, now=BIRTH + 100):
        self.store, self.local, self.log = Failing(), Local(), MemoryLog()
        self.clock = SimulatedClock(now)
        for one in messages:
            self.store.put(one)
        self.settings = settings
        manager = SendManager(settings, 99, 1)
        self.sender = Sender(manager, self.store, self.local, None, settings, self.clock, self.log)
        self.sender.start()
        self.queue = StoredQueue(self.store, lambda: settings, self.sender, self.clock, self.log, 2)

    async def passes(self):
        """All that is under way in the loop is handled; nothing here waits for the real time."""
        for _ in range(50):
            await asyncio.sleep(0)

    async def tried(self, at=None):
        """Which messages are being delivered, after the clock was set and the sender has looked at it."""
        if at is not None:
            self.clock.advance(at - self.clock.now())
        self.sender.reconfigure(self.settings)  # as HUP: it looks at the clock
        await self.passes()
        return set(self.local.running)


def message(number, due=LATER, held=None):
    """To alice, tried before, due later."""
    envelope = Envelope(b"carol@example.test", (Recipient(b"alice@example.test"),))
    progress = (Progress(None, 1, b"later\n"),)
    key = b"%024d" % number
    return Stored(
        MessageId(number, key), BIRTH, 19, envelope, progress, (due, 0), True, ("local",), held=held
    )


def play(story):
    asyncio.run(story())


def acts(queue, verb):
    more = {"hold": ("why",), "bounce": ("No.",)}.get(verb, ())
    return getattr(queue, verb)((1,), *more)


@pytest.fixture
def begin(make):
    settings = make(bouncefrom=b"MAILER-DAEMON", bouncehost=b"mail.example.test")
    return lambda *messages, **more: Scene(settings, *messages, **more)


@pytest.mark.parametrize(
    ("verb", "fails"),
    [
        ("release", "release"),
        ("delete", "record"),
        ("delete", "load"),
        ("bounce", "record"),
        ("bounce", "release"),
        ("release", "load"),
    ],
)
@pytest.mark.parametrize("when", ["before", "after it was taken"])
def test_a_held_message_is_not_tried_because_a_verb_failed_on_it(begin, verb, fails, when):
    async def story():
        scene = begin(message(1, held="why"))
        await scene.passes()
        if when == "before" or fails != "load":
            scene.store.fails.append(fails)
            acting = acts(scene.queue, verb)
        else:
            acting = asyncio.create_task(acts(scene.queue, verb))
            await asyncio.sleep(0)  # it has been looked at, and is taken just now
            scene.store.fails.append(fails)
        acted = await acting
        [missed] = acted.missed
        assert acted.done == () and "is left as it is: the disk would not" in missed.why
        assert scene.store.fails == [] and scene.store.messages[1].held == "why"
        scene.sender.flush()
        assert await scene.tried(LATER + 100_000) == set(), "it is held"
        assert (await scene.queue.release((1,))).done == (1,)
        await scene.tried()
        assert 1 in scene.local.running or scene.store.bodies.keys() - {1}, "released, it goes on"

    play(story)


def test_a_hold_that_failed_half_way_and_came_to_hold_is_not_tried(begin):
    """The queue puts it right later: then it is held, although the administrator was told otherwise."""

    async def story():
        scene = begin(message(1))
        await scene.passes()
        scene.store.fails, scene.store.late = ["hold"], True
        [missed] = (await acts(scene.queue, "hold")).missed
        assert "the disk would not" in missed.why and scene.store.messages[1].held == "why"
        assert await scene.tried(LATER + 100) == set()

    play(story)


@pytest.mark.parametrize(
    ("verb", "fails"), [("hold", "hold"), ("delete", "record"), ("bounce", "record"), ("delete", "load")]
)
def test_a_verb_that_failed_on_deferred_mail_does_not_make_it_due_at_once(begin, verb, fails):
    async def story():
        scene = begin(message(1))
        await scene.passes()
        acting = asyncio.create_task(acts(scene.queue, verb))
        await asyncio.sleep(0)
        scene.store.fails.append(fails)
        [missed] = (await acting).missed
        assert "the disk would not" in missed.why and scene.store.fails == []
        assert await scene.tried(LATER - 10) == set()
        assert await scene.tried(LATER + 10) == {1}, "and it is not forgotten either"

    play(story)


@pytest.mark.parametrize("due", [(LATER, 0), (0, LATER), (LATER + 50, LATER), (LATER, LATER + 50)])
def test_a_released_message_is_tried_when_it_was_due(begin, due):
    async def story():
        remote = due[1] and not due[0]
        one = msgspec.structs.replace(message(1, held=""), due=due)
        scene = begin(one)
        put_back = []
        scene.queue._deliveries = SimpleNamespace(
            take=scene.sender.take, put_back=lambda *back: put_back.append(back)
        )
        assert (await scene.queue.release((1,))).done == (1,)
        assert put_back == [(one.id, LATER)]
        scene.sender.put_back(*put_back[0])
        assert await scene.tried(LATER - 10) == set()
        if not remote and due[0] == LATER:
            assert await scene.tried(LATER + 10) == {1}

    play(story)


@pytest.mark.parametrize("first", ["hold", "release", "delete", "bounce"])
@pytest.mark.parametrize("second", ["hold", "release", "retry", "delete", "bounce"])
def test_of_two_verbs_at_once_the_second_is_told_and_does_nothing(begin, first, second):
    async def story():
        scene = begin(message(1, held="why" if first == "release" else None))
        await scene.passes()
        scene.store.wait = asyncio.get_running_loop().create_future()
        begun = asyncio.create_task(acts(scene.queue, first))
        await scene.passes()
        assert not begun.done()
        acted = await acts(scene.queue, second)
        [missed] = acted.missed
        assert acted.done == () and missed.number == 1
        assert "in the hands of another command" in missed.why
        scene.store.wait.set_result(None)
        assert (await begun).done == (1,)

    play(story)


@pytest.mark.parametrize("verb", ["hold", "delete", "bounce"])
def test_a_service_that_ends_waits_until_what_a_verb_writes_is_durable(begin, verb):
    async def story():
        scene = begin(message(1), message(2))
        scene.store.wait = asyncio.get_running_loop().create_future()
        begun = asyncio.create_task(acts(scene.queue, verb))
        await scene.passes()
        ending = asyncio.create_task(scene.queue.close())
        await scene.passes()
        assert not ending.done() and not begun.done()
        [missed] = (await scene.queue.delete((2,))).missed
        assert "the service is ending" in missed.why
        scene.store.wait.set_result(None)
        await ending
        assert (await begun).done == (1,)

    play(story)


def test_a_verb_can_be_asked_for_again_after_it_failed(begin):
    async def story():
        for verb, call in (("hold", "hold"), ("release", "release"), ("delete", "record")):
            scene = begin(message(1, held="why" if verb == "release" else None))
            await scene.passes()
            scene.store.fails.append(call)
            assert (await acts(scene.queue, verb)).done == ()
            assert (await acts(scene.queue, verb)).done == (1,)

    play(story)
