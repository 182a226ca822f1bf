"""What a foreign qmail-queue puts into `todo/`: taken in once, durable, wherever it is cut; and litter."""

import asyncio

import pytest
from stage import NOW, QUEUE, Stage, content, route, to, within
from test_moves import KINDS, every_crash

from openqmail.core.queue import Limits
from openqmail.core.values import TemporaryFailure

NUMBERS = (5000, 5001, 5002)
TODO = b"u7\0p8\0Fs%d@remote\0Ta@here\0Tb@remote\0"


def queue_one(stage, number, mtime=None):
    """As a qmail-queue does."""
    stage.put(stage.layout.mess(number), b"theirs %d\n" % number, mtime)
    stage.put(stage.layout.intd(number), TODO % number, mtime)
    stage.disk.link(stage.layout.intd(number), stage.layout.todo(number))
    stage.disk.sync_folder(QUEUE + b"/todo")


def test_what_comes_in_while_we_run_is_told_once_when_someone_looks():
    stage = Stage(1)

    async def story(store, _):
        came = []
        store.arrivals(came.append)
        await asyncio.sleep(1)
        assert came == []
        queue_one(stage, 5000)
        store.look()
        await asyncio.sleep(1)
        [stored] = came
        store.look()
        await asyncio.sleep(1)
        assert len(came) == 1 and stored.id.number == 5000
        assert [one.address for one in stored.envelope.recipients] == [route(b"a@here")[1], b"b@remote"]
        assert stored.channels == ("local", "remote") and stored.envelope.origin.uid == 7
        assert content(store, 5000) == b"theirs 5000\n"
        await store.record(5000, (), (0, 0), True)
        await store.settle()

    stage.run(story)
    assert stage.files().keys() == {b"lock/sendmutex", b"lock/tcpto"}


def test_without_the_bell_it_is_found_within_a_minute():
    stage = Stage(1)

    async def story(store, _):
        came = asyncio.get_running_loop().create_future()
        store.arrivals(came.set_result)
        await asyncio.sleep(1)
        queue_one(stage, 5000)
        await within(60, came)

    stage.run(story)


@KINDS
def test_it_is_taken_in_once_and_whole_wherever_it_is_cut(ordered, whole):
    told_of = {}

    async def prepare(store, _):
        for number in NUMBERS:
            stage = StageOf(store)
            queue_one(stage, number)

    async def story(store, _, told):
        store.arrivals(told.append)
        await asyncio.sleep(2)
        assert sorted(stored.id.number for stored in told) == list(NUMBERS)
        await store.record(NUMBERS[0], (), (0, 0), True)
        told_of[id(told)] = True
        await asyncio.sleep(2)

    def check(seen, _, told):
        for stored in told:
            if stored.id.number == NUMBERS[0]:
                continue
            again, body = seen[stored.id.number]
            assert body == b"theirs %d\n" % stored.id.number
            assert again.id == stored.id and again.envelope == stored.envelope
        if told_of.pop(id(told), False):
            assert NUMBERS[0] not in seen

    class StageOf:
        def __init__(self, store):
            self.disk, self.layout = store._disk, store._layout
            self.put = lambda *arguments: Stage.put(self, *arguments)

    every_crash(story, check, prepare, ordered=ordered, whole=whole)


def test_after_a_cut_the_rest_arrives_and_nothing_is_lost_or_doubled():
    for call in range(1, 90, 2):
        stage = Stage(call)
        for number in NUMBERS:
            queue_one(stage, number)
        first = []

        async def story(store, found, told=first):
            for number, _ in found:
                told.append(store.load(number))
            store.arrivals(told.append)
            await asyncio.sleep(3)

        stage.cut_at(call)
        stage.run(story)
        stage.crash(call if call % 4 == 1 else None)
        second = []
        stage.run(lambda store, found, second=second: story(store, found, second))
        assert sorted(stored.id.number for stored in second) == list(NUMBERS)
        keys = {stored.id.number: stored.id.key for stored in second}
        assert all(keys[stored.id.number] == stored.id.key for stored in first)
        assert [body for _, (_, body) in sorted(stage.look().items())] == [
            b"theirs %d\n" % n for n in NUMBERS
        ]


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("nth", range(1, 7))
def test_a_failed_sync_delays_it_and_loses_nothing(whole, nth):
    stage = Stage(nth, whole=whole)
    for number in NUMBERS:
        queue_one(stage, number)

    async def story(store, _):
        came = []
        if whole:
            stage.disk.faults.fail_sync(b"/", min(nth, 2))
        else:
            kinds = (
                b"/info/%d" % (5000 % 3),
                b"/todo",
                b"/intd",
                b"/local/0/5001",
                b"/info/1/5002",
                b"/bounce",
            )
            stage.disk.faults.fail_sync(kinds[nth - 1])
        store.arrivals(came.append)
        await asyncio.sleep(40)
        assert sorted(stored.id.number for stored in came) == list(NUMBERS)
        return {stored.id for stored in came}

    ids = stage.run(story, close=False)
    assert any("cannot be taken in" in told for told in stage.reports)
    stage.crash(nth)
    assert {stored.id for stored, _ in stage.look().values()} == ids


@pytest.mark.parametrize(
    ("break_it", "why"),
    [
        (lambda stage: stage.disk.unlink(stage.layout.mess(5001)), "missing"),
        (lambda stage: stage.disk.truncate(stage.layout.todo(5001), 9), "cannot be read"),
        (lambda stage: stage.disk.make(QUEUE + b"/todo/strange", b"?"), "not a message"),
    ],
    ids=["no text", "torn", "strange"],
)
def test_what_cannot_be_taken_in_is_told_once_left_alone_and_in_nobodys_way(break_it, why):
    stage = Stage(1)
    for number in NUMBERS:
        queue_one(stage, number)
    break_it(stage)
    broken = {name for name in stage.disk.names(QUEUE + b"/todo") if name not in (b"5000", b"5002")}

    async def story(store, _):
        came = []
        store.arrivals(came.append)
        await asyncio.sleep(200)
        assert {5000, 5002} <= {stored.id.number for stored in came}

    stage.run(story)
    told = [one for one in stage.reports if why in one]
    assert len(told) == 1 and "/todo/" in told[0] and "left alone" in told[0]
    assert set(stage.disk.names(QUEUE + b"/todo")) <= broken


@pytest.mark.parametrize("jump", [-86_400, 86_400])
def test_a_clock_that_jumps_a_day_removes_nothing_that_is_under_way(jump):
    """Writers at work for up to a day, and mail that waits, whatever the clock says."""
    stage = Stage(1, limits=Limits(segment=6000, reserve=1000, sweep_every=60.0, numbers=8))
    for path in (b"/pid/77.1700000000.1", b"/intd/6000", b"/mess/0/6000", b"/mess/1/6001"):
        stage.put(QUEUE + path, b"half", NOW - 20 * 3600)

    async def story(store, _):
        number = (await store.submit(to(b"a@here"), b"x\n")).id.number
        await store.record(number, (), (NOW + 50, 0), False)
        await asyncio.sleep(1)
        held = (await store.submit(to(b"a@here"), b"x\n")).id.number
        await store.hold(held, "why")
        stage.clock._now += jump
        await asyncio.sleep(300)
        new = await store.submit(to(b"a@here"), b"y\n")
        assert new.birth == int(stage.clock.now())
        return {number, held, new.id.number}

    numbers = stage.run(story)
    seen = stage.look()
    assert seen.keys() == numbers and stage.reports == []
    assert sorted(one.due for one, _ in seen.values())[-1] == (NOW + 50, 0), (
        "a next attempt stays where it was"
    )
    assert sum(name.endswith((b"6000", b"6001", b".1")) for name in stage.files()) == 4


def test_a_large_body_that_is_given_up_is_told_to_who_wants_to_read_it():
    stage = Stage(1)

    async def story(store, _):
        large = store.large()
        await large.write(b"x" * 1000)
        read = large.so_far()
        large.abort()  # the disk is at work for it
        with pytest.raises(TemporaryFailure):
            await within(60, read)

    stage.run(story)


def test_litter_goes_after_days_and_what_is_mail_stays():
    stage = Stage(1)
    old = NOW - 70 * 3600
    for path in (b"/pid/77.1700000000.1", b"/intd/6000", b"/mess/0/6000", b"/mess/1/6001"):
        stage.put(QUEUE + path, b"half", old)
    queue_one(stage, 5000, old)
    stage.put(stage.layout.mess(6002), b"mail\n", old)
    stage.put(stage.layout.files(6002).info, b"Fs@remote\0", old)
    stage.put(stage.layout.files(6002).remote, b"Ta@remote\0", old)

    async def story(store, _):
        held = (await store.submit(to(b"a@here"), b"x\n")).id.number
        await store.hold(held, "")
        large = store.large()
        await large.write(b"large\n" * 1000)
        number = (await store.submit(to(b"a@here"), large)).id.number
        await asyncio.sleep(25 * 3600)
        assert content(store, number) == b"large\n" * 1000
        return {held, number, 6002}

    numbers = stage.run(story)
    seen = stage.look()
    assert seen.keys() == numbers
    files = stage.files()
    assert not any(name.endswith((b"6000", b"6001", b".1")) for name in files)
    assert {b"todo/5000", b"intd/5000", b"mess/2/5000"} <= files.keys(), "nobody was there to take it in"
    assert ["4 files of writers that died" in told for told in stage.reports] == [True]
