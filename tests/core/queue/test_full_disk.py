"""A full disk: mail is refused, results and bounces are not, and service resumes by itself."""

import asyncio
import errno

import pytest
from stage import DONE, NOW, ONE, QUEUE, Stage, content, deferred, failed, to, until_moved

from openqmail.core.ports import LARGE
from openqmail.core.queue import Closes, Limits
from openqmail.core.values import QueueFull, TemporaryFailure

TOTAL = 1 << 24
LIMITS = Limits(segment=100_000, reserve=8000, watermark=0, numbers=8)
RESERVE = QUEUE + b"/journal/reserve"


@pytest.fixture
def stage():
    return Stage(1, capacity=TOTAL, limits=LIMITS)


def used(stage):
    return stage.disk.capacity - stage.disk.room(b"/")[0]


def leave(stage, room):
    stage.disk.capacity = used(stage) + room


def reserved(stage):
    return b"reserve" in stage.disk.names(QUEUE + b"/journal")


def test_below_the_watermark_mail_is_refused_and_bounces_are_not(stage):
    stage.limits = Limits(segment=100_000, reserve=8000, watermark=0.10, numbers=8)

    async def story(store, _):
        parent = (await store.submit(ONE, b"x\n")).id.number
        before = used(stage)
        stage.disk.capacity = before + before // 20
        assert not store.totals().full
        await asyncio.sleep(2)
        assert store.totals().full, "before any mail comes, too"
        with pytest.raises(QueueFull):
            await store.submit(ONE, b"x\n")
        with pytest.raises(QueueFull):
            await store.large().write(b"x" * 1000)
        stage.disk.capacity = before + before // 20 + 1000
        await store.submit(ONE, b"bounce\n", Closes(parent, DONE, True))
        stage.disk.capacity = TOTAL
        await asyncio.sleep(2)
        await store.submit(ONE, b"again\n")
        assert not store.totals().full

    stage.run(story)
    assert len(stage.reports) == 2, "once when it is full, once when it is not any more"
    assert "refused (452)" in stage.reports[0] and "taken again" in stage.reports[1]


def test_below_the_watermark_a_large_bounce_gets_through_and_leaves_some_room(stage):
    stage.limits = Limits(segment=100_000, reserve=8000, watermark=0.10, numbers=8)

    async def story(store, _):
        parents = [(await store.submit(ONE, b"x\n")).id.number for _ in range(2)]
        stage.disk.make(b"/filler", b"z" * (stage.disk.room(b"/")[0] - TOTAL // 12))
        await asyncio.sleep(2)
        with pytest.raises(QueueFull):
            await store.large().write(b"x" * LARGE)
        body = store.large(closes=True)
        await body.write(b"x" * LARGE)
        bounce = await store.submit(ONE, body, Closes(parents[0], DONE, True))
        stage.disk.make(b"/more", b"z" * (stage.disk.room(b"/")[0] - 20_000))
        await asyncio.sleep(2)
        with pytest.raises(QueueFull):
            await store.large(closes=True).write(b"x" * 1000)
        return {bounce.id.number, parents[1]}

    there = stage.run(story)
    stage.crash(seed=1)
    assert stage.look().keys() == there


def test_with_no_byte_left_the_reserve_serves_results_and_bounces_and_is_made_again(stage):
    async def story(store, _):
        numbers = [(await store.submit(ONE, b"x\n")).id.number for _ in range(3)]
        assert reserved(stage)
        leave(stage, 0)
        with pytest.raises(QueueFull):
            await store.submit(ONE, b"x" * 9000)
        assert not reserved(stage)
        await store.record(numbers[0], DONE, (0, 0), True)
        bounce = await store.submit(ONE, b"bounce\n", Closes(numbers[1], DONE, True))
        stage.disk.capacity = TOTAL
        more = await store.submit(ONE, b"again\n")
        assert reserved(stage)
        return {numbers[2], bounce.id.number, more.id.number}

    there = stage.run(story)
    stage.crash(seed=1)
    assert stage.look().keys() == there


def test_results_that_find_no_room_at_all_wait_for_it(stage):
    async def story(store, _):
        numbers = [(await store.submit(ONE, b"x\n")).id.number for _ in range(3)]
        stage.disk.capacity = 0
        ending = [store.record(number, DONE, (0, 0), True) for number in numbers]
        for _ in range(3):
            with pytest.raises(QueueFull):
                await store.submit(ONE, b"x\n")
        with pytest.raises(QueueFull):
            await store.submit(ONE, b"x\n" * 9000)
        await asyncio.sleep(10)
        assert not any(future.done() for future in ending)
        stage.disk.capacity = TOTAL
        await asyncio.gather(*ending)

    stage.run(story)
    stage.crash(seed=1)
    assert stage.look() == {}


def test_half_a_batch_that_found_no_room_does_not_stand_before_what_comes_next(stage):
    async def story(store, _):
        first = (await store.submit(ONE, b"first\n")).id.number
        leave(stage, 700)
        with pytest.raises(QueueFull):
            await store.submit(ONE, b"x" * 9000)
        return {first, (await store.submit(ONE, b"second\n")).id.number}

    there = stage.run(story, close=False)
    stage.crash()
    assert stage.look().keys() == there


def test_a_new_segment_that_found_no_room_does_not_come_back_to_cut_the_old_one(stage):
    async def story(store, _):
        await store.submit(ONE, b"x" * 60_000)
        stage.disk.faults.fail_sync(b".seg", error=errno.ENOSPC)
        with pytest.raises(QueueFull):
            await store.submit(ONE, b"x" * 60_000)
        kept = (await store.submit(ONE, b"kept\n")).id.number
        [other] = set(store.numbers()) - {kept}
        await store.record(other, DONE, (0, 0), True)
        return {kept}

    there = stage.run(story, close=False)
    before = stage.disk
    for seed in (None, 1, 2, 3):
        stage.disk = before
        stage.crash(seed)
        assert stage.look().keys() == there


def test_a_large_body_that_finds_no_room_is_refused_and_leaves_nothing(stage):
    async def story(store, _):
        body = store.large()
        await body.write(b"x" * 1000)
        leave(stage, 100)
        with pytest.raises(QueueFull):
            await body.write(b"x" * 1000)
        with pytest.raises(QueueFull):
            await store.submit(ONE, body)

    stage.run(story)
    assert not any(data for data, _ in stage.files(QUEUE + b"/pool").values())
    assert not any(name.startswith(b"mess") for name in stage.files())


def test_when_no_number_can_be_reserved_mail_is_refused_and_taken_again_later(stage, monkeypatch):
    async def story(store, _):
        taken = [await store.submit(ONE, b"x\n") for _ in range(8)]
        monkeypatch.setattr(store._pool, "make", no_room)
        with pytest.raises(QueueFull, match="no number"):
            for _ in range(500):
                taken.append(await store.submit(ONE, b"x\n"))
        monkeypatch.undo()
        taken.append(await store.submit(ONE, b"x\n"))
        assert len({one.id.number for one in taken}) == len(taken)

    def no_room(count):
        raise OSError(errno.ENOSPC, "No space left on device")

    stage.run(story)


def test_mail_that_finds_no_room_in_the_layout_stays_in_the_journal_until_there_is(stage):
    async def story(store, _):
        number = (await store.submit(to(b"a@here", b"b@remote"), b"x" * 30_000)).id.number
        leave(stage, 2000)
        await store.record(number, (deferred(0),), (NOW + 60, NOW + 60), False)
        await asyncio.sleep(20)
        assert not store.load(number).channels and len(content(store, number)) == 30_000
        [told] = stage.reports
        assert "cannot be moved" in told and "No space left" in told and QUEUE.decode() in told
        stage.disk.capacity = TOTAL
        await until_moved(store)
        assert len(content(store, number)) == 30_000

    stage.run(story)


def test_results_that_find_no_room_in_the_layout_are_not_lost(stage):
    async def story(store, _):
        number = (await store.submit(to(b"a@r", b"b@r"), b"x\n")).id.number
        await store.record(number, (deferred(0), deferred(1)), (0, NOW + 60), False)
        await until_moved(store)
        stage.disk.capacity = used(stage) + 400
        await store.record(number, (failed(0, b"a@r", b"n" * 5000),), (0, 0), False)
        await asyncio.sleep(20)
        assert any("results cannot be written" in told for told in stage.reports)
        before = store.load(number)
        assert before.bounce == b"<a@r>:\n%s\n\n" % (b"n" * 5000)
        return number, before

    number, before = stage.run(story, close=False)
    stage.crash()
    stage.disk.capacity = TOTAL
    stored, _ = stage.look()[number]
    assert stored.bounce == before.bounce
    assert [one.outcome is None for one in stored.progress] == [False, True]


def test_a_move_that_finds_no_room_is_told_to_who_waits_for_it(stage):
    async def story(store, _):
        number = (await store.submit(ONE, b"x" * 30_000)).id.number
        leave(stage, 2000)
        with pytest.raises(TemporaryFailure, match="No space left"):
            await store.hold(number, "why")
        assert store.load(number).held is None
        stage.disk.capacity = TOTAL
        await asyncio.sleep(20)
        await store.hold(number, "why")
        assert store.load(number).held == "why"

    stage.run(story)
