"""Torn tails are cut; damage before that stops the start, and salvage keeps what verifies."""

import asyncio
import os

import pytest
from stage import NOW, ONE, QUEUE, Stage, deferred, route, succeeded, to, until_moved

from openqmail.core.queue import Change, Limits, LocalStore, read, read_body
from openqmail.core.queue.journal.records import HEAD_SIZE, Moved, encode_record
from openqmail.core.values import Envelope, Outcome, QueueDamaged, Recipient
from openqmail.core.world import PosixDisk, SystemClock

LATER = (Change(0, Outcome.DEFERRAL, b"later\n"),)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "queue").mkdir()
    return os.fsencode(tmp_path / "queue")


async def opened(folder, **more):
    store = LocalStore(
        PosixDisk(), SystemClock(), folder, lambda error: pytest.fail(str(error)), route=route, **more
    )
    return store, [number for number, _ in store.open()]


def fill(folder, count=10, large=False, **more):
    """`count` messages in the journal, each in a batch of its own."""

    async def run():
        store, _ = await opened(folder, **more)
        for n in range(count):
            body = b"%d " % n * 100
            handed = body
            if large:
                handed = store.large()
                handed.write(body)
            stored = await store.submit(Envelope(b"s%d" % n, (Recipient(b"r@example"),)), handed)
            store.record(stored.id.number, LATER, (0, 0), False)
        await store.close()

    asyncio.run(run())


def look(folder, **more):
    async def run():
        store, numbers = await opened(folder, **more)
        seen = {n: (store.load(n), b"".join(store.body(n).chunks())) for n in numbers}
        await store.close()
        return seen

    return asyncio.run(run())


def files(folder):
    journal = os.path.join(folder, b"journal")
    return [os.path.join(journal, name) for name in sorted(os.listdir(journal)) if name.endswith(b".seg")]


def large_bodies(folder):
    mess = os.path.join(folder, b"mess")
    return [os.path.join(above, name) for above, _, names in os.walk(mess) for name in names]


def change(path, offset, data=None):
    with open(path, "r+b") as file:
        file.seek(offset)
        old = file.read(1)
        file.seek(offset)
        file.write(data if data is not None else bytes([old[0] ^ 0x10]))


def cut(path, size):
    with open(path, "r+b") as file:
        file.truncate(size)


def test_a_flipped_bit_anywhere_in_what_was_synced_stops_the_start(folder):
    fill(folder)
    (path,) = files(folder)
    size = os.path.getsize(path)
    synced = size - 72  # the last batch says that all before it is synced
    for offset in [0, 20, HEAD_SIZE - 1, HEAD_SIZE, *range(HEAD_SIZE + 3, synced, 397), synced - 1]:
        change(path, offset)
        with pytest.raises(QueueDamaged) as caught:
            list(read(folder))
        assert os.fsdecode(path) in str(caught.value)
        assert f"openqmail --home {os.fsdecode(os.path.dirname(folder))} run --salvage" in str(caught.value)
        with pytest.raises(QueueDamaged):
            look(folder)
        assert files(folder) == [path], "a refused start leaves everything as it is"
        change(path, offset)
    assert len(list(read(folder))) == 10


def test_a_torn_tail_is_cut_and_the_rest_is_there(folder):
    fill(folder)
    (path,) = files(folder)
    with open(path, "ab") as file:
        file.write(b"\xf1oqB" + b"half of a batch that nobody was promised" * 30)
    seen = look(folder)
    assert len(seen) == 10
    assert look(folder).keys() == seen.keys()


def test_a_file_cut_short_within_what_was_synced_is_damage_once_a_later_segment_tells(folder):
    fill(folder)
    (path,) = files(folder)
    look(folder)
    cut(path, os.path.getsize(path) // 2)
    with pytest.raises(QueueDamaged, match="known to be on the disk"):
        list(read(folder))


def test_salvage_keeps_what_verifies_says_what_it_did_and_sets_the_file_aside(folder):
    fill(folder)
    (path,) = files(folder)
    whole = {stored.id: stored for stored in read(folder)}
    change(path, os.path.getsize(path) // 2)
    reports = []
    seen = look(folder, salvage=True, report=reports.append)
    assert 8 <= len(seen) < 10
    for stored, body in seen.values():
        before = whole[stored.id]
        assert (stored.envelope, stored.birth) == (before.envelope, before.birth)
        assert body == b"%b " % stored.envelope.sender[1:] * 100
    assert len(reports) == 1 and "damaged at byte" in reports[0]
    assert os.listdir(os.path.join(folder, b"journal", b"damaged")) == [os.path.basename(path)]
    assert look(folder) == seen, "afterwards it starts as ever"


def test_salvage_when_the_head_of_the_only_segment_is_gone(folder):
    fill(folder)
    change(files(folder)[0], 3)
    reports = []
    assert look(folder, salvage=True, report=reports.append) == {}
    assert reports and look(folder) == {}


def test_after_a_salvage_that_had_nothing_to_keep_it_starts_as_ever(folder):
    """As with a journal that holds the results of deferred mail only."""
    fill(folder, 1)
    change(files(folder)[0], 300)
    with pytest.raises(QueueDamaged):
        look(folder)
    assert look(folder, salvage=True) == {}
    assert look(folder) == {}
    fill(folder, 1)
    assert len(look(folder)) == 1


@pytest.mark.parametrize("act", ["result", "end", "hold"])
def test_salvage_that_misses_the_word_of_a_move_goes_by_what_came_after_it(act):
    stage = Stage(1)

    async def story(store, _):
        one = (await store.submit(to(b"a@here", b"b@remote"), b"x\n")).id
        await store.submit(ONE, b"which keeps the segment\n")
        await store.record(one.number, (deferred(1),), (NOW + 100, NOW + 100), False)
        await until_moved(store, one.number)
        if act == "result":
            await store.record(one.number, (succeeded(0),), (0, NOW + 100), False, True)
        elif act == "end":
            await store.record(one.number, (), (0, 0), True)
        else:
            await store.hold(one.number, "why")
        await asyncio.sleep(1)
        await store.submit(ONE, b"the last\n")
        return one

    one = stage.run(story, close=False)
    stage.crash()
    [path] = [QUEUE + b"/journal/" + name for name in stage.disk.names(QUEUE + b"/journal") if b"seg" in name]
    at = stage.disk.contents(path)[0].index(encode_record(Moved(one.number, one.key)))
    stage.disk.flip(path, at + 12)
    with pytest.raises(QueueDamaged):
        stage.look()
    seen = stage.look(salvage=True)
    assert len(seen) == (2 if act == "end" else 3)
    if act == "result":
        assert seen[one.number][0].progress[0].outcome is Outcome.SUCCESS
    elif act == "hold":
        assert seen[one.number][0].held == "why"


def test_salvage_of_one_segment_of_many_keeps_the_others(folder):
    fill(folder, 30, limits=Limits(segment=3000))
    many = files(folder)
    assert len(many) > 4
    change(many[2], 5)
    with pytest.raises(QueueDamaged):
        look(folder)
    reports = []
    seen = look(folder, salvage=True, report=reports.append)
    assert 20 < len(seen) < 30 and len(reports) == 1
    assert look(folder) == seen


def test_a_missing_segment_is_not_passed_over_in_silence(folder):
    fill(folder, 30, limits=Limits(segment=3000))
    os.unlink(files(folder)[2])
    with pytest.raises(QueueDamaged, match="is missing"):
        look(folder)
    assert 20 < len(look(folder, salvage=True)) < 30


@pytest.mark.parametrize("harm", ["missing", "short"])
def test_a_large_body_that_is_not_whole_is_never_delivered(folder, harm):
    fill(folder, 2, large=True)
    path = large_bodies(folder)[0]
    if harm == "missing":
        os.unlink(path)
    else:
        cut(path, 5)
    with pytest.raises(QueueDamaged, match="the body of message"):
        look(folder)
    reports = []
    assert len(look(folder, salvage=True, report=reports.append)) == 1
    assert reports and len(look(folder)) == 1


def test_a_body_that_looks_like_the_journal_forges_nothing(folder):
    """A stranger sends the bytes of a segment as a message, and the tail behind it tears."""
    fill(folder, 5)
    (path,) = files(folder)
    with open(path, "rb") as file:
        copied = file.read()

    async def run():
        store, _ = await opened(folder)
        await store.submit(Envelope(b"evil", (Recipient(b"r@example"),)), copied[HEAD_SIZE:])
        await store.close()

    asyncio.run(run())
    newest = files(folder)[-1]
    cut(newest, os.path.getsize(newest) - 72)  # the closing batch
    change(newest, os.path.getsize(newest) - 1)  # and the end of the message itself
    assert {stored.envelope.sender for stored in read(folder)} == {b"s%d" % n for n in range(5)}


def test_a_large_body_that_was_changed_on_the_disk_is_never_read_whole(folder):
    fill(folder, count=1, large=True)
    [path] = large_bodies(folder)
    change(path, 100)
    [stored] = read(folder)
    with pytest.raises(QueueDamaged, match="damaged"):
        list(read_body(folder, stored.id.number).chunks())


@pytest.mark.parametrize("whole_folder", [True, False])
def test_a_journal_that_is_gone_stops_the_start(folder, whole_folder):
    fill(folder, 3)
    journal = os.path.join(folder, b"journal")
    for name in os.listdir(journal):
        os.unlink(os.path.join(journal, name))
    if whole_folder:
        os.rmdir(journal)
    with pytest.raises(QueueDamaged, match=r"no segment.*--salvage"):
        list(read(folder))
    with pytest.raises(QueueDamaged, match=r"no segment.*--salvage"):
        look(folder)
    look(folder, salvage=True)
