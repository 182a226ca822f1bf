"""A queue that was copied file by file to another disk: its names are no inodes there, or a stranger's."""

import asyncio
import os
import shutil
from random import Random

import pytest
from stage import DONE, LATER, NOW, QUEUE, Stage, content, to, until_moved
from test_arrivals import queue_one

from openqmail.core.values import TemporaryFailure
from openqmail.core.world.simulated import SimulatedDisk

ONE = to(b"r@remote.example")
LARGE = b"large text\n" * 1000


def copy_to_another_disk(stage, numbers, *, pool=True):
    """`cp -a`: contents, modes and times; of the inodes that are free there, `numbers` come first.
    `pool`: with its empty files."""
    other = SimulatedDisk(Random(99), stage.clock)
    fillers = [b"/was-there/%d" % number for number in range(100)]
    for path in fillers:
        other.make(path, b"")

    def copy(folder):
        other.make(folder)
        for name, is_folder in stage.disk.scan(folder):
            path = os.path.join(folder, name)
            if is_folder:
                copy(path)
            elif pool or b"/pool/" not in path:
                facts = stage.disk.stat(path)
                other.make(path, stage.disk.contents(path)[0], facts.mode & 0o777)
                other.touch(path, facts.mtime)

    copy(QUEUE)
    for path in fillers:
        if other.stat(path).inode in numbers:
            other.unlink(path)
    stage.disk = other


async def large(store, text):
    body = store.large()
    await body.write(text)
    return (await store.submit(ONE, body)).id.number


async def some_of_each(store, _):
    """Mail in the journal, small and large, deferred in the layout, and held: number -> text."""
    texts = {}
    for step in range(12):
        text = b"old %d\n" % step
        number = (await store.submit(ONE, text)).id.number
        texts[number] = text
        if step % 4 == 1:
            await store.record(number, LATER, (0, NOW + 100), False)
            await until_moved(store, number)
        elif step % 4 == 2:
            await store.hold(number, "why")
    texts[await large(store, LARGE)] = LARGE
    moved = await large(store, LARGE + b"moved\n")
    texts[moved] = LARGE + b"moved\n"
    await store.record(moved, LATER, (0, NOW + 100), False)
    await until_moved(store, moved)
    return texts


async def many_more(store, texts, what):
    for step in range(60):
        text = b"%s %d\n" % (what, step)
        number = (await store.submit(ONE, text)).id.number
        assert number not in texts, "a number was given out twice"
        texts[number] = text
        if step % 5 == 0:
            await store.record(number, LATER, (0, NOW + 100), False)
        elif step % 5 == 1:
            await store.record(number, DONE, (0, 0), True)
            del texts[number]
    await asyncio.sleep(2)
    assert {number: content(store, number) for number in store.numbers()} == texts


def texts_of(stage):
    return {number: text for number, (_, text) in stage.look().items()}


@pytest.mark.parametrize("pool", [True, False], ids=["with its pool", "without its pool"])
@pytest.mark.parametrize("seed", range(6))
def test_in_a_copied_queue_every_message_keeps_its_text_and_its_number(seed, pool):
    stage = Stage(seed)
    texts = stage.run(some_of_each, close=False)
    stage.crash()
    copy_to_another_disk(stage, texts, pool=pool)
    stage.run(lambda store, _: many_more(store, texts, b"new"), close=False)
    stage.crash()
    assert texts_of(stage) == texts
    stage.run(lambda store, _: many_more(store, texts, b"newer"))
    stage.crash(seed)
    assert texts_of(stage) == texts


def test_a_queue_that_was_copied_after_a_clean_stop_is_whole_and_numbers_stay_single():
    stage = Stage(1)

    async def story(store, found):
        texts = await some_of_each(store, found)
        assert await store.settle() == 0
        return texts

    texts = stage.run(story)
    copy_to_another_disk(stage, texts)
    stage.run(lambda store, _: many_more(store, texts, b"new"))
    stage.crash(5)
    assert texts_of(stage) == texts


def test_a_queue_copied_on_a_real_disk_goes_on_there(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    stage = Stage(1, real=os.fsencode(old), split=23)
    texts = stage.run(some_of_each, close=False)
    shutil.copytree(old, new)
    copied = Stage(2, real=os.fsencode(new), split=23)
    copied.run(lambda store, _: many_more(store, texts, b"new"), close=False)
    again = Stage(3, real=os.fsencode(new), split=23)
    again.run(lambda store, _: many_more(store, texts, b"newer"))
    assert texts_of(again) == texts


async def held(store):
    number = (await store.submit(ONE, b"ours\n")).id.number
    await store.hold(number, "why")
    return number


async def journalled(store):
    return (await store.submit(ONE, b"ours\n")).id.number


@pytest.mark.parametrize("pool", [True, False], ids=["with its pool", "without its pool"])
@pytest.mark.parametrize(
    ("lies", "comes"),
    [(held, "while we run"), (journalled, "while we run"), (journalled, "before the start")],
)
def test_a_stranger_with_the_number_of_one_of_ours_waits_until_that_has_ended(lies, comes, pool):
    stage = Stage(1)
    number = stage.run(lambda store, _: lies(store), close=False)
    stage.crash()
    copy_to_another_disk(stage, {number}, pool=pool)
    if comes == "before the start":
        queue_one(stage, number)

    async def story(store, _):
        came = []
        store.arrivals(came.append)
        if comes != "before the start":
            assert not store.load(number).channels or lies is held
            try:
                stage.disk.stat(stage.layout.mess(number))
            except FileNotFoundError:
                queue_one(stage, number)
            else:
                return False  # ours has its file by now: no stranger can come by the number
        store.look()
        await asyncio.sleep(30)
        assert came == [] and content(store, number) == b"ours\n"
        [told] = [one for one in stage.reports if "todo" in one]
        assert str(number) in told and "waits" in told
        await store.record(number, DONE, (0, 0), True, lies is held)
        await asyncio.sleep(200)
        [arrived] = came
        assert arrived.id.number == number and content(store, number) == b"theirs %d\n" % number
        taken = {(await store.submit(ONE, b"new\n")).id.number for _ in range(40)}
        assert number not in taken and content(store, number) == b"theirs %d\n" % number
        return True

    if stage.run(story):
        stage.crash()
        assert texts_of(stage)[number] == b"theirs %d\n" % number
        assert b"todo/%d" % number not in stage.files()


def leave_a_text(stage, number):
    """A qmail-queue died."""
    stage.put(stage.layout.mess(number), b"half")


@pytest.mark.parametrize("leave", [queue_one, leave_a_text])
@pytest.mark.parametrize("cut", [False, True])
def test_a_held_message_whose_number_came_again_gets_another_at_a_start_and_can_be_released(leave, cut):
    stage = Stage(1)
    number = stage.run(lambda store, _: held(store), close=False)
    stage.crash()
    copy_to_another_disk(stage, {number})

    async def refused(store, _):
        leave(stage, number)
        with pytest.raises(TemporaryFailure, match=rf"mess/\d+/{number} is another message's; restart"):
            await store.release(number)
        await asyncio.sleep(10)
        assert store.load(number).held == "why" and content(store, number) == b"ours\n"

    stage.run(refused)
    if cut:
        stage.look()
        stage.crash(3)

    async def released(store, found):
        came = []
        store.arrivals(came.append)
        await asyncio.sleep(30)
        [new] = [one for one in store.numbers() if one != number]
        assert any(f"held message {number} is now {new}" in told for told in stage.reports)
        assert (
            store.load(new).held == "why" and new == stage.disk.stat(stage.layout.held_files(new).mess).inode
        )
        await store.release(new)
        assert content(store, new) == b"ours\n" and store.load(new).held is None
        assert [one.id.number for one in came] == ([number] if leave is queue_one else [])
        return new

    new = stage.run(released)
    stage.crash(4)
    theirs = {number: b"theirs %d\n" % number} if leave is queue_one else {}
    assert texts_of(stage) == {new: b"ours\n"} | theirs


@pytest.mark.parametrize("seed", range(4))
def test_when_the_old_ones_have_ended_no_two_new_ones_get_one_of_their_numbers(seed):
    stage = Stage(seed)
    texts = stage.run(some_of_each, close=False)
    stage.crash()
    copy_to_another_disk(stage, texts)

    async def story(store, _):
        for step, number in enumerate(texts):
            if step % 2:
                await asyncio.sleep(1)
            await store.record(number, DONE, (0, 0), True, bool(store.load(number).channels))
        await asyncio.sleep(5)
        new = {}
        for step in range(120):
            text = b"new %d\n" % step
            number = (await store.submit(ONE, text)).id.number
            assert number not in new, "a number was given out twice"
            new[number] = text
        assert {number: content(store, number) for number in store.numbers()} == new
        return new

    new = stage.run(story, close=False)
    stage.crash()
    assert texts_of(stage) == new


def test_soon_after_the_start_of_a_copied_queue_no_stranger_can_come_by_a_number_of_ours():
    """qmail-queue links its file to the name of its inode in `mess/`, where ours has one by then."""
    stage = Stage(1)
    texts = stage.run(some_of_each, close=False)
    stage.crash()
    copy_to_another_disk(stage, texts)

    async def story(store, _):
        await asyncio.sleep(5)
        for number, text in texts.items():
            held = store.load(number).held is not None
            assert held or stage.disk.contents(stage.layout.mess(number))[0] == text

    stage.run(story)


@pytest.mark.parametrize("theirs", [b"other text\n" * 1000, LARGE])
def test_a_text_is_not_taken_for_that_of_a_message_that_has_ended_by_its_number_and_size(theirs):
    """A qmail-queue that writes its text just then has no other file yet; ours was left by a crash."""
    assert len(theirs) == len(LARGE)
    stage = Stage(1)

    async def story(store, _):
        number = await large(store, LARGE)
        await store.record(number, DONE, (0, 0), True)
        return number

    number = stage.run(story, close=False)
    stage.crash()
    mess, pool = stage.layout.mess(number), stage.layout.pool(number)
    for path in (mess, pool):
        if path in everything(stage):
            stage.disk.unlink(path)
    stage.put(mess, theirs)
    stage.look()
    assert (mess in everything(stage)) == (theirs != LARGE)


def everything(stage):
    return {os.path.join(QUEUE, name) for name in stage.files(but=(b"journal",))}
