"""Crash anywhere: what was acknowledged is there, what was ended stays ended."""

import asyncio
import contextlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unreliable_disk import UnreliableDisk

from openqmail.core.queue import Change, Limits, LocalStore, read
from openqmail.core.values import Envelope, HomeError, Outcome, Recipient, TemporaryFailure
from openqmail.core.world import SimulatedClock

SMALL = Limits(segment=3000, reserve=1000, memory=2000)
DONE = (Change(0, Outcome.SUCCESS, b"done\n"),)
LATER = (Change(0, Outcome.DEFERRAL, b"later\n"),)


@pytest.fixture(scope="module", autouse=True)
def _prompt_syncs():
    """Results that come alone are synced at once, so that histories are short."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("openqmail.core.queue.commit.SYNC_WITHIN", 0.001)
        yield


def small_disk():
    return UnreliableDisk()


def store_on(disk, fatal=None, **more):
    lost = fatal if fatal is not None else []
    return LocalStore(disk, SimulatedClock(), b"/queue", lost.append, limits=SMALL, **more)


class History:
    """What a client of the store was told."""

    def __init__(self):
        self.accepted = {}  # number -> sender, body
        self.maybe = set()  # senders of submissions never answered
        self.ended = set()  # numbers whose end was acknowledged
        self.ending = set()  # numbers that an end was asked for
        self.due = {}  # number -> due acknowledged last
        self.touched = {}  # number -> dues asked for since


async def live(disk, seed, history, steps=60):
    """Submit, defer, bounce and end at random until the disk stops or the steps are done."""
    chance = random.Random(seed)
    store = store_on(disk)
    store.open()

    async def one(step):
        sender = b"s%d-%d@example" % (seed, step)
        body = bytes([97 + step % 26]) * chance.choice([0, 10, 300, 900]) + b"\n"
        large = chance.random() < 0.15
        waiting = [n for n in history.accepted if n not in history.ending]
        closes, kind = None, chance.random()
        if waiting and kind < 0.3:
            number = chance.choice(waiting)
            history.ending.add(number)
            closes = (number, DONE, True)
        handed = body
        if large:
            handed = store.large()
            await handed.write(body)
        history.maybe.add(sender)
        stored = await store.submit(Envelope(sender, (Recipient(b"r@example"),)), handed, closes)
        history.maybe.discard(sender)
        history.accepted[stored.id.number] = (sender, body)
        if closes:
            history.ended.add(closes[0])
        number = stored.id.number
        if chance.random() < 0.5 and number not in history.ending:
            due = 1 + step
            history.touched.setdefault(number, set()).add(due)
            await store.record(number, LATER, due, False)
            history.due[number] = due
        if chance.random() < 0.5 and number not in history.ending:
            history.ending.add(number)
            await store.record(number, DONE, 0, True)
            history.ended.add(number)

    async def some(worker):
        for step in range(worker, steps, 4):
            await one(step)

    results = await asyncio.gather(*(some(worker) for worker in range(4)), return_exceptions=True)
    for result in results:
        if result is not None and not isinstance(result, TemporaryFailure):
            raise result
    return store


async def look(disk):
    """Everything in the queue as a new process finds it, and the disk that it leaves."""
    store = store_on(disk)
    found = dict(store.open())
    seen = {}
    for number, due in found.items():
        stored = store.load(number)
        assert stored.again and stored.due == due
        seen[number] = (
            stored.envelope.sender,
            b"".join(store.body(number).chunks()),
            stored.id.key,
            due,
            stored.progress,
        )
    await store.close()
    return seen


def check(history, seen):
    for number, (sender, body) in history.accepted.items():
        if number in history.ended:
            assert number not in seen or seen[number][0] != sender, "an ended message came back"
        elif number not in history.ending:
            assert number in seen, "an accepted message is lost"
            assert seen[number][:2] == (sender, body)
            if number in history.due:
                assert seen[number][3] == history.due[number] or seen[number][3] in history.touched[number]
    known = {sender for sender, _ in history.accepted.values()} | history.maybe
    assert {entry[0] for entry in seen.values()} <= known
    senders = [entry[0] for entry in seen.values()]
    assert len(senders) == len(set(senders)), "a message is there twice"


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 1 << 30), stop=st.integers(1, 700), power=st.booleans())
def test_no_accepted_message_is_lost_and_no_ended_one_comes_back_wherever_it_stops(seed, stop, power):
    disk = small_disk()
    disk.stop_at = stop
    history = History()

    async def run():
        with contextlib.suppress(HomeError):
            await live(disk, seed, history)
        after = disk.after_power_cut(seed) if power else disk.after_kill()
        if b"/queue/journal" in after.now and b"journal" not in after.now[b"/queue"]:
            after = UnreliableDisk()  # the folder's own name was lost: nothing was accepted yet
            assert not history.accepted
        seen = await look(after)
        check(history, seen)
        assert await look(after.after_power_cut(seed)) == seen, "a second recovery changed something"

    asyncio.run(run())


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1 << 30), again=st.integers(1, 40))
def test_a_crash_during_recovery_changes_nothing(seed, again):
    disk = small_disk()
    disk.stop_at = 250
    history = History()

    async def run():
        await live(disk, seed, history)
        after = disk.after_power_cut(seed)
        after.stop_at = again
        with contextlib.suppress(HomeError):
            await look(after)
        seen = await look(after.after_power_cut(seed + 1))
        check(history, seen)

    asyncio.run(run())


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1 << 30), fail=st.lists(st.integers(0, 59), max_size=4))
def test_a_failed_sync_refuses_its_submissions_and_loses_no_result(seed, fail):
    """Nothing of the batch is accepted, and none of it is delivered after a restart."""
    disk = small_disk()
    history = History()

    async def run():
        fatal = []
        store = store_on(disk, fatal)
        store.open()
        refused = set()
        for step in range(60):
            sender = b"s%d@example" % step
            if step in fail:
                disk.failing_syncs = 1
            waiting = [n for n in history.accepted if n not in history.ending]
            result = None
            if waiting and step % 3 == 0:
                number = waiting[step % len(waiting)]
                history.ending.add(number)
                result = (number, store.record(number, DONE, 0, True))
            try:
                stored = await store.submit(Envelope(sender, (Recipient(b"r@example"),)), b"x\n")
                history.accepted[stored.id.number] = (sender, b"x\n")
            except TemporaryFailure:
                refused.add(sender)
            if result:
                await result[1]
                history.ended.add(result[0])
        assert len(refused) == len(set(fail)) and not fatal
        seen = await look(disk.after_power_cut(seed))
        check(history, seen)
        assert not refused & {entry[0] for entry in seen.values()}

    asyncio.run(run())


def test_when_a_new_segment_cannot_be_made_either_the_process_is_told_to_end():
    disk = small_disk()

    async def run():
        fatal = []
        store = store_on(disk, fatal)
        store.open()
        stored = await store.submit(Envelope(b"a@example", (Recipient(b"r@example"),)), b"kept\n")
        disk.failing_syncs = 1000
        ending = store.record(stored.id.number, DONE, 0, True)
        with pytest.raises(TemporaryFailure, match="cannot be written"):
            await store.submit(Envelope(b"b@example", (Recipient(b"r@example"),)), b"lost\n")
        with pytest.raises(TemporaryFailure):
            await ending
        assert len(fatal) == 1
        with pytest.raises(TemporaryFailure):
            await store.submit(Envelope(b"c@example", (Recipient(b"r@example"),)), b"too late\n")
        await store.close()
        seen = await look(disk.after_power_cut(1))
        assert stored.id.number in seen

    asyncio.run(run())


def test_when_all_is_lost_a_large_body_stays_for_the_record_that_may_claim_it():
    disk = small_disk()

    async def run():
        store = store_on(disk)
        store.open()
        body = store.large()
        await body.write(b"large\n")
        disk.failing_syncs = 1000
        with pytest.raises(TemporaryFailure):
            await store.submit(Envelope(b"a@example", (Recipient(b"r@example"),)), body)
        await store.close()
        for after in (disk.after_kill(), disk.after_power_cut(1)):
            for _, content, *_ in (await look(after)).values():
                assert content == b"large\n"

    asyncio.run(run())


def test_listing_a_stopped_queue_changes_nothing_on_the_disk():
    disk = small_disk()
    history = History()

    async def run():
        store = await live(disk, 7, history)
        await store.close()
        before = disk.after_kill()
        calls = disk.calls
        listed = {stored.id.number: stored.envelope.sender for stored in read(b"/queue", disk)}
        assert disk.calls == calls
        assert {name: bytes(node.data) for name, node in disk.now[b"/queue/journal"].items() if node} == {
            name: bytes(node.data) for name, node in before.now[b"/queue/journal"].items() if node
        }
        seen = await look(disk)
        assert listed == {number: entry[0] for number, entry in seen.items()} and listed

    asyncio.run(run())
