"""Numbers are inodes: reserved ahead, durable before they are used, never given twice at a time."""

import asyncio

import pytest
from stage import DONE, NOW, ONE, QUEUE, Stage, content, deferred, to, until_moved

from openqmail.core.queue import Closes, Limits
from openqmail.core.values import QueueFull

POOL = QUEUE + b"/pool"


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr("openqmail.core.queue.pool.MOST", 20)


def pool_of(stage):
    return {int(name): stage.disk.stat(POOL + b"/" + name) for name in stage.disk.names(POOL)}


def test_the_names_in_the_pool_are_their_inodes_and_the_files_are_empty():
    stage = Stage(1)
    stage.look()
    facts = pool_of(stage)
    assert len(facts) == 8
    for number, found in facts.items():
        assert (found.inode, found.size, found.mode & 0o777) == (number, 0, 0o644)


def test_a_pool_that_was_copied_from_another_disk_is_made_anew():
    stage = Stage(1)
    for number in range(5000, 5006):
        stage.put(POOL + b"/%d" % number, b"")
    stage.put(POOL + b"/new-3", b"")
    stage.look(salvage=True)
    assert all(found.inode == number for number, found in pool_of(stage).items())


def test_what_does_not_belong_in_the_pool_is_named_and_left_alone():
    stage = Stage(1)
    stage.put(POOL + b"/strange", b"?")
    stage.disk.make(POOL + b"/77")
    stage.look(salvage=True)
    assert len(stage.reports) == 2 and all(POOL.decode() in told for told in stage.reports)
    assert all("left alone" in told for told in stage.reports)
    assert stage.disk.contents(POOL + b"/strange")[0] == b"?"


def test_when_numbers_run_out_mail_is_refused_until_some_come_free(few):
    stage = Stage(1)

    async def story(store, _):
        taken = [(await store.submit(ONE, b"x\n")).id.number for _ in range(20)]
        assert len(set(taken)) == 20
        with pytest.raises(QueueFull, match="try again later"):
            await store.submit(ONE, b"x\n")
        body = store.large()
        with pytest.raises(QueueFull):
            await body.write(b"y" * 1000)
        await store.record(taken[0], DONE, (0, 0), True)
        await store.record(taken[1], (deferred(0),), (0, NOW + 50), False)
        await until_moved(store, taken[1])
        again = [(await store.submit(ONE, b"x\n")).id.number for _ in range(2)]
        assert not set(again) & set(taken[1:])

    stage.run(story)


def test_when_numbers_run_out_what_is_in_the_journal_moves_out(few):
    stage = Stage(1)

    async def story(store, _):
        for _ in range(20):
            await store.submit(ONE, b"x\n")
        with pytest.raises(QueueFull):
            await store.submit(ONE, b"x\n")
        await until_moved(store)
        for _ in range(5):
            await store.submit(ONE, b"y\n")
        bodies = sorted(content(store, number) for number in store.numbers())
        assert bodies == [b"x\n"] * 20 + [b"y\n"] * 5

    stage.run(story)


def test_when_numbers_run_out_a_bounce_gets_through_all_the_same(few):
    stage = Stage(1)

    async def story(store, _):
        taken = [(await store.submit(ONE, b"x\n")).id.number for _ in range(20)]
        bounce = await store.submit(to(b"s@remote", sender=b""), b"sorry\n", Closes(taken[0], DONE, True))
        assert bounce.id.number in store.numbers() and taken[0] not in store.numbers()

    stage.run(story)


@pytest.mark.parametrize("seed", range(10))
def test_a_number_comes_again_only_after_the_bounce_was_told_whose_record_freed_it(seed):
    stage = Stage(seed, limits=Limits(segment=6000, reserve=1000, memory=2000, numbers=2))

    async def story(store, _):
        parent = (await store.submit(ONE, b"x\n")).id.number
        body, told = store.large(), []
        await body.write(b"y" * 200_000)
        bounce = store.submit(to(b"s@remote", sender=b""), body, Closes(parent, DONE, True))
        bounce.add_done_callback(lambda done: told.append("bounce"))

        async def more():
            while parent not in told:
                told.append((await store.submit(ONE, b"x\n")).id.number)
                if told[-1] != parent:
                    await store.record(told[-1], DONE, (0, 0), True)

        await asyncio.gather(*(more() for _ in range(4)))
        assert told.index("bounce") < told.index(parent)

    stage.run(story)


def test_at_the_end_only_some_reserved_numbers_stay(monkeypatch):
    monkeypatch.setattr("openqmail.core.queue.pool.KEPT", 10)
    stage = Stage(1)

    async def story(store, _):
        numbers = [(await store.submit(ONE, b"x\n")).id.number for _ in range(50)]
        await asyncio.gather(*(store.record(number, DONE, (0, 0), True) for number in numbers))
        assert await store.settle() == 0

    stage.run(story)
    assert len(pool_of(stage)) == 10


def test_after_a_crash_no_number_that_is_in_use_is_free():
    for seed in range(20):
        stage = Stage(seed)

        async def story(store, _):
            for step in range(20):
                stored = await store.submit(ONE, b"%d\n" % step)
                if step % 3 == 0:
                    await store.record(stored.id.number, (deferred(0),), (0, NOW + 50), False)
                if step % 6 == 0:
                    await until_moved(store, stored.id.number)

        stage.cut_at(150 + seed * 7)
        stage.run(lambda store, found, story=story: story(store, found), close=False)
        stage.crash(seed)

        async def more(store, found):
            before = {number: content(store, number) for number in store.numbers()}
            for _ in range(15):
                assert (await store.submit(ONE, b"new\n")).id.number not in before
            assert {number: content(store, number) for number in before} == before

        stage.run(more)


def test_in_a_restored_queue_no_number_is_given_out_that_waits_in_todo():
    stage = Stage(1)
    ours = range(40, 80)  # inodes that are free still, when these files have been made
    stage.disk.make(QUEUE + b"/todo/filler", b"")
    for number in ours:
        for path, data in (
            (stage.layout.mess(number), b"theirs\n"),
            (stage.layout.todo(number), b"u1\0p2\0Ffor%d@example\0Tr@remote\0" % number),
        ):
            stage.put(path, data)
    highest = max(stage.disk.stat(stage.layout.todo(number)).inode for number in ours)
    for number in range(highest, highest + 40):
        for path, data in (
            (stage.layout.mess(number + 80), b"theirs\n"),
            (stage.layout.todo(number + 80), b"u1\0p2\0Ffor%d@example\0Tr@remote\0" % number),
        ):
            stage.put(path, data)

    async def story(store, _):
        for _ in range(60):
            stored = await store.submit(ONE, b"ours\n")
            with pytest.raises(FileNotFoundError):
                stage.disk.stat(stage.layout.mess(stored.id.number))

    stage.run(story)
