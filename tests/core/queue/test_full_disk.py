"""A full disk: mail is refused, results and bounces are not, and service resumes by itself."""

import asyncio
import errno

import pytest
from stage import DONE, NOW, ONE, QUEUE, Stage, content, deferred, failed, to, until_moved
from test_moves import KINDS, every_crash

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
        assert "too little room is left to move mail" in told and QUEUE.decode() in told
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
        with pytest.raises(TemporaryFailure, match="too little room"):
            await store.hold(number, "why")
        assert store.load(number).held is None
        stage.disk.capacity = TOTAL
        await asyncio.sleep(20)
        await store.hold(number, "why")
        assert store.load(number).held == "why"

    stage.run(story)


def small_disk(stage, room):
    """Of 32 MiB, with room for so many bytes above the watermark."""
    stage.limits = Limits()
    stage.disk.capacity = 32 << 20
    stage.disk.make(b"/filler", b"z" * (stage.disk.room(b"/")[0] - stage.disk.capacity // 10 - room))


async def until_refused(store):
    for _ in range(1000):
        try:
            stored = await store.submit(ONE, b"x" * 100_000)
        except QueueFull:
            return
        await store.record(stored.id.number, DONE, (0, 0), True)
        await asyncio.sleep(0.1)
    raise AssertionError("it was never full")


async def until_taken(store, body=b"again\n"):
    """Simulated minutes pass."""
    for _ in range(120):
        await asyncio.sleep(1)
        try:
            return await store.submit(ONE, body)
        except QueueFull:
            continue
    raise AssertionError("no mail is taken again")


@pytest.mark.parametrize("crash", [None, 1, 2, 3])
def test_what_has_ended_makes_room_though_no_mail_comes_in(stage, crash):
    small_disk(stage, 1 << 20)

    async def story(store, _):
        await until_refused(store)
        again = await until_taken(store)
        assert store.journal()[1] < 1000, "what has ended is gone"
        return {again.id.number}

    there = stage.run(story, close=False)
    stage.crash(crash)
    assert stage.look().keys() == there


@pytest.mark.parametrize("crash", [None, 1, 2, 3])
def test_a_slow_delivery_does_not_keep_new_mail_out_of_a_small_disk(stage, crash):
    small_disk(stage, 12 << 20)

    async def story(store, _):
        slow = (await store.submit(to(b"slow@remote"), b"slow\n")).id.number
        for _ in range(400):
            stored = await until_taken(store, b"x" * 100_000)
            await store.record(stored.id.number, DONE, (0, 0), True)
        return slow

    slow = stage.run(story, close=False)
    stage.crash(crash)
    seen = stage.look()
    assert seen.keys() == {slow} and seen[slow][1] == b"slow\n"


@pytest.mark.parametrize("crash", [None, 1, 2, 3])
def test_a_slow_delivery_in_the_segment_that_is_written_to_does_not_keep_new_mail_out(stage, crash):
    """There is less room above the watermark than a segment takes."""
    small_disk(stage, 1 << 20)

    async def story(store, _):
        slow = (await store.submit(to(b"slow@remote"), b"slow\n")).id.number
        await until_refused(store)
        return {slow, (await until_taken(store)).id.number}

    there = stage.run(story, close=False)
    stage.crash(crash)
    assert stage.look().keys() == there


@pytest.mark.parametrize("crash", [None, 1, 2, 3])
def test_with_no_byte_left_the_reserve_serves_to_let_go_what_has_ended(stage, crash):
    async def story(store, _):
        kept = [(await store.submit(ONE, b"%d\n" % step)).id.number for step in range(2)]
        for _ in range(5):
            stored = await store.submit(ONE, b"x" * 19_000)
            await store.record(stored.id.number, DONE, (0, 0), True)
        for number in kept:
            await store.record(number, (deferred(0),), (0, NOW + 9000), False)
        await until_moved(store)
        leave(stage, 0)
        await asyncio.sleep(60)
        assert store.journal()[1] < 1000 and reserved(stage)
        return {*kept, (await store.submit(ONE, b"x" * 50_000)).id.number}

    there = stage.run(story, close=False)
    stage.crash(crash)
    assert stage.look().keys() == there


@KINDS
def test_nothing_is_lost_and_nothing_comes_back_wherever_letting_segments_go_is_cut(ordered, whole):
    async def prepare(store, _):
        resident = (await store.submit(ONE, b"resident\n")).id.number
        await store.record(resident, (deferred(0),), (0, NOW + 9000), False)
        await until_moved(store)
        return resident

    async def story(store, resident, told):
        ended = await store.submit(ONE, b"ended\n")
        await store.record(ended.id.number, DONE, (0, 0), True)
        told.append("ended")
        store.record(resident, (deferred(0),), (0, NOW + 9999), False)
        store._committer.drop()
        await store.submit(ONE, b"after\n")
        told.append("after")
        store._committer.drop()
        await asyncio.sleep(1)
        assert store.journal()[0] == 1

    def check(seen, resident, told):
        bodies = [body for _, body in seen.values()]
        assert seen[resident][1] == b"resident\n" and len(set(bodies)) == len(bodies)
        assert b"ended\n" not in bodies or not told
        assert b"after\n" in bodies or "after" not in told

    every_crash(story, check, prepare, ordered=ordered, whole=whole)


def test_a_start_that_finds_no_room_for_results_has_the_reserve_for_them():
    for seed in range(20):
        stage = Stage(seed, capacity=TOTAL, limits=LIMITS)

        async def story(store, _):
            number = (await store.submit(to(b"a@r", b"b@r"), b"x\n")).id.number
            await store.record(number, (deferred(0), deferred(1)), (0, NOW + 60), False)
            await until_moved(store)
            await store.record(number, (failed(0, b"a@r", b"n" * 5000),), (0, 0), False)
            return number

        number = stage.run(story, close=False)
        stage.crash()
        if b"bounce/%d" % number not in stage.files():
            break
    else:
        pytest.fail("the files always had it before the kill")
    assert reserved(stage)
    leave(stage, 500)
    assert stage.look()[number][0].bounce == b"<a@r>:\n%s\n\n" % (b"n" * 5000)


def test_moves_leave_room_for_the_results_that_make_room_in_the_end(stage):
    """All is deferred, and in qmail's files it takes more than there is."""
    stage.limits = Limits(segment=100_000, reserve=8000, watermark=0.10, numbers=8)

    async def story(store, _):
        numbers = [(await store.submit(ONE, b"x" * 1000)).id.number for _ in range(100)]
        stage.disk.capacity = used(stage) + 60_000
        for number in numbers:
            await store.record(number, (deferred(0),), (0, NOW + 9000), False)
        await asyncio.sleep(600)
        left = [number for number in numbers if not store.load(number).channels]
        assert left and stage.disk.room(b"/")[0] >= 8000 and reserved(stage)
        assert await store.settle() == len(left), "they stay where they are"
        with pytest.raises(TemporaryFailure, match="too little room"):
            await store.hold(left[0], "why")
        for number in numbers:
            await store.record(number, DONE, (0, 0), True, number not in left)
        await asyncio.sleep(60)
        assert list(store.numbers()) == [] and store.journal()[1] < 1000

    stage.run(story)
    assert any("too little room is left to move mail" in told for told in stage.reports)
