"""Results of very many recipients at once: more than one batch on the disk may hold."""

import asyncio

import pytest
from stage import NOW, Stage, deferred, failed, succeeded, to, until_moved

from openqmail.core.queue import Limits
from openqmail.core.queue.journal.records import BATCH_SIZE, HEAD_SIZE
from openqmail.core.values import QueueDamaged

COUNT = 200
MANY = to(*[b"u%d@remote.example" % number for number in range(COUNT)])
FAILURES = tuple(failed(at, b"u%d@remote.example" % at, b"x" * 1000) for at in range(COUNT))


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr("openqmail.core.queue.journal.records.MAX_BATCH", 60_000)
    monkeypatch.setattr("openqmail.core.queue.journal.journal.MAX_BATCH", 60_000)
    monkeypatch.setattr("openqmail.core.queue.journal.records.MAX_CHANGES", 8_000, raising=False)
    monkeypatch.setattr("openqmail.core.queue.journal.salvage.MAX_CHANGES", 8_000, raising=False)


@pytest.fixture
def stage():
    return Stage(1, limits=Limits(segment=100_000, reserve=1000, numbers=8))


async def begun(store, where):
    """A message in the journal, or in the layout."""
    number = (await store.submit(MANY, b"hello\n")).id.number
    if where == "layout":
        await store.record(number, tuple(deferred(at) for at in range(COUNT)), (NOW + 60,) * 2, False)
        await until_moved(store)
    return number


@pytest.mark.parametrize("where", ["journal", "layout"])
def test_they_are_read_again_after_a_crash_and_so_is_what_came_later(stage, where):
    async def story(store, _):
        number = await begun(store, where)
        await store.record(number, FAILURES, (0, 0), False, where == "layout")
        return number, (await store.submit(MANY, b"later\n")).id.number

    number, later = stage.run(story, close=False)
    for seed in (None, 1):
        stage.crash(seed)
        seen = stage.look()
        assert seen.keys() == {number, later}
        assert all(one.outcome is not None for one in seen[number][0].progress)
        assert seen[number][0].bounce == b"".join(one.text for one in FAILURES)


@pytest.mark.parametrize("where", ["journal", "layout"])
def test_they_end_the_message_when_all_of_them_are_there(stage, where):
    async def story(store, _):
        number = await begun(store, where)
        await store.record(number, tuple(succeeded(at, b"x" * 1000) for at in range(COUNT)), (0, 0), True)
        assert number not in store.numbers()

    stage.run(story, close=False)
    stage.crash(1)
    assert stage.look() == {}


def test_a_failed_sync_has_them_written_again_in_pieces_that_are_read(stage):
    stage.limits = Limits(segment=1_000_000, reserve=1000, numbers=8)

    async def story(store, _):
        numbers = [(await store.submit(to(b"a@b"), b"x\n")).id.number for _ in range(COUNT)]
        stage.disk.faults.fail_sync(b".seg")
        await asyncio.gather(
            *(store.record(number, (failed(0, b"a@b", b"x" * 1000),), (0, 0), False) for number in numbers)
        )
        return numbers

    numbers = stage.run(story, close=False)
    stage.crash(1)
    seen = stage.look()
    assert seen.keys() == set(numbers) and all(one.bounce for one, _ in seen.values())


def test_they_are_salvaged(stage):
    async def story(store, _):
        await store.submit(to(b"a@b"), b"what will be damaged\n")
        number = await begun(store, "journal")
        await store.record(number, FAILURES, (0, 0), False)
        return number

    number = stage.run(story, close=False)
    stage.crash()
    journal = stage.queue + b"/journal/"
    first = min(name for name in stage.disk.names(journal) if name.endswith(b".seg"))
    stage.disk.overwrite(journal + first, HEAD_SIZE + BATCH_SIZE + 20, b"?")
    with pytest.raises(QueueDamaged):
        stage.look()
    for how in ({"salvage": True}, {}):
        stage.crash()
        seen = stage.look(**how)
        assert seen.keys() == {number}
        assert seen[number][0].bounce == b"".join(one.text for one in FAILURES)
        assert all(one.outcome is not None for one in seen[number][0].progress)
