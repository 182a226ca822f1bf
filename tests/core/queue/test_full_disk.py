"""A full disk: mail is refused, results and bounces are not, and service resumes by itself."""

import asyncio
import errno

import pytest
from unreliable_disk import UnreliableDisk

from openqmail.core.queue import Change, Limits, LocalStore
from openqmail.core.values import Envelope, Outcome, QueueFull, Recipient
from openqmail.core.world import SimulatedClock

ONE = Envelope(b"a@example", (Recipient(b"b@example"),))
DONE = (Change(0, Outcome.SUCCESS, b"done\n"),)
TOTAL = 1 << 24


@pytest.fixture
def disk():
    return UnreliableDisk(total=TOTAL)


def store_on(disk, clock=None, watermark=0.10, report=lambda sentence: None):
    limits = Limits(segment=100_000, reserve=8000, watermark=watermark)
    return LocalStore(
        disk,
        clock or SimulatedClock(),
        b"/queue",
        lambda error: pytest.fail(str(error)),
        limits=limits,
        report=report,
    )


def test_below_the_watermark_mail_is_refused_and_bounces_are_not(disk):
    told = []

    async def run():
        clock = SimulatedClock()
        store = store_on(disk, clock, report=told.append)
        store.open()
        parent = (await store.submit(ONE, b"x\n")).id.number
        disk.capacity = disk.used() + TOTAL // 20
        clock.advance(2)
        with pytest.raises(QueueFull):
            await store.submit(ONE, b"x\n")
        with pytest.raises(QueueFull):
            await store.large().write(b"x" * 1000)
        await store.submit(ONE, b"bounce\n", (parent, DONE, True))
        disk.capacity = TOTAL
        clock.advance(2)
        await store.submit(ONE, b"again\n")
        await store.close()

    asyncio.run(run())
    assert len(told) == 2, "once when it is full, once when it is not any more"
    assert "refused (452)" in told[0] and "taken again" in told[1]


def test_with_no_byte_left_the_reserve_serves_results_and_bounces_and_is_made_again(disk):
    async def run():
        store = store_on(disk, watermark=0)
        store.open()
        numbers = [(await store.submit(ONE, b"x\n")).id.number for _ in range(3)]
        assert b"reserve" in disk.now[b"/queue/journal"]
        disk.capacity = disk.used()
        with pytest.raises(QueueFull):
            await store.submit(ONE, b"x" * 9000)
        assert b"reserve" not in disk.now[b"/queue/journal"]
        await store.record(numbers[0], DONE, 0, True)
        bounce = await store.submit(ONE, b"bounce\n", (numbers[1], DONE, True))
        disk.capacity = TOTAL
        more = await store.submit(ONE, b"again\n")
        assert b"reserve" in disk.now[b"/queue/journal"]
        await store.close()
        again = store_on(disk.after_power_cut(1))
        assert [n for n, _ in again.open()] == [numbers[2], bounce.id.number, more.id.number]
        await again.close()

    asyncio.run(run())


def test_results_that_find_no_room_at_all_wait_for_it(disk, monkeypatch):
    monkeypatch.setattr("openqmail.core.queue.commit.RETRY_AFTER", 0.002)

    async def run():
        store = store_on(disk, watermark=0)
        store.open()
        numbers = [(await store.submit(ONE, b"x\n")).id.number for _ in range(3)]
        disk.capacity = 0
        ending = [store.record(number, DONE, 0, True) for number in numbers]
        for _ in range(3):
            with pytest.raises(QueueFull):
                await store.submit(ONE, b"x\n")
        with pytest.raises(QueueFull):
            await store.submit(ONE, b"x\n" * 9000)
        assert not any(future.done() for future in ending)
        disk.capacity = TOTAL
        await asyncio.gather(*ending)
        await store.close()
        again = store_on(disk.after_power_cut(1))
        assert list(again.open()) == []
        await again.close()

    asyncio.run(run())


def test_half_a_batch_that_found_no_room_does_not_stand_before_what_comes_next(disk):
    async def run():
        store = store_on(disk, watermark=0)
        store.open()
        first = (await store.submit(ONE, b"first\n")).id.number
        disk.capacity = disk.used() + 700
        with pytest.raises(QueueFull):
            await store.submit(ONE, b"x" * 5000)
        second = (await store.submit(ONE, b"second\n")).id.number
        again = store_on(disk.after_kill())
        assert [n for n, _ in again.open()] == [first, second]
        await again.close()
        await store.close()

    asyncio.run(run())


def test_a_new_segment_that_found_no_room_does_not_come_back_to_cut_the_old_one(disk):
    async def run():
        store = store_on(disk, watermark=0)
        store.open()
        number = (await store.submit(ONE, b"x" * 60_000)).id.number
        disk.failing_syncs, disk.sync_error = 1, errno.ENOSPC
        with pytest.raises(QueueFull):
            await store.submit(ONE, b"x" * 60_000)
        kept = (await store.submit(ONE, b"kept\n")).id.number
        await store.record(number, DONE, 0, True)
        for after in (disk.after_kill(), disk.after_power_cut(1)):
            again = store_on(after)
            assert [n for n, _ in again.open()] == [kept]
            await again.close()
        await store.close()

    asyncio.run(run())


def test_a_large_body_that_finds_no_room_is_refused_and_leaves_nothing(disk):
    async def run():
        store = store_on(disk, watermark=0)
        store.open()
        body = store.large()
        await body.write(b"x" * 1000)
        disk.capacity = disk.used() + 100
        with pytest.raises(QueueFull):
            await body.write(b"x" * 1000)
        with pytest.raises(QueueFull):
            await store.submit(ONE, body)
        await store.close()
        assert disk.now[b"/queue/journal/large"] == {}

    asyncio.run(run())
