"""Mail whose `local` and `remote` are both gone: ours waits, as its recipients are lost; a qmail's ends."""

import asyncio

import pytest
from stage import NOW, QUEUE, Stage, deferred, succeeded, to, until_moved
from test_arrivals import queue_one
from test_layout_damage import with_mail
from test_moves import KINDS
from test_odd_files import a_day, moved_by

from openqmail.core.queue import Closes, read, read_body
from openqmail.core.values import TemporaryFailure

TWO = to(b"a@here", b"b@remote")
DUE = (NOW + 100, NOW + 200)


def lose_its_lists(stage, number):
    """Their contents and times."""
    files, lost = stage.layout.files(number), {}
    for path in (files.local, files.remote):
        lost[path] = stage.disk.contents(path)
        stage.disk.unlink(path)
    return lost


def tried(stage):
    return moved_by(stage, 1)[0]


def untried(stage):
    """It was in the journal at a clean stop."""

    async def story(store, _):
        number = (await store.submit(TWO, b"x\n")).id.number
        await store.settle()
        return number

    return stage.run(story)


def taken_in(stage):
    """A qmail-queue brought it while we ran."""
    queue_one(stage, 5000)

    async def story(store, _):
        store.arrivals(lambda stored: None)
        await asyncio.sleep(1)
        await store.settle()
        return 5000

    return stage.run(story)


@pytest.mark.parametrize("come", [tried, untried, taken_in])
def test_a_message_of_ours_without_its_lists_is_named_and_kept_and_goes_on_when_they_are_back(come):
    stage = Stage(1)
    number = come(stage)
    lost = lose_its_lists(stage, number)
    before = stage.files()
    stage.reports.clear()
    for _ in range(2):
        due, numbers = stage.run(a_day)
        assert due == {} and numbers == [number]
        [told] = stage.reports
        info = stage.layout.files(number).info.decode()
        assert told.startswith(f"{info} says that somebody was to be tried") and "put them back" in told
        assert stage.files() == before
        stage.reports.clear()
    missed = []
    assert list(read(QUEUE, stage.disk, lambda *what: missed.append(what))) == []
    [(missing, why)] = missed
    assert missing == number and told == f"{why}; message {number} waits"
    with pytest.raises(TemporaryFailure, match="put them back"):
        read_body(QUEUE, number, stage.disk)
    for path, (data, due) in lost.items():
        stage.put(path, data, due)
    stored, _ = stage.look()[number]
    assert len(stored.envelope.recipients) == 2 and stage.reports == []


def test_such_a_message_is_left_alone_by_every_verb_and_its_number_by_everybody():
    stage = Stage(1)
    number = tried(stage)
    lose_its_lists(stage, number)
    stage.disk.unlink(stage.layout.mess(number))  # so that its inode is anybody's
    before = stage.files()

    async def story(store, _):
        for act in (store.load, store.body):
            with pytest.raises(TemporaryFailure):
                act(number)
        with pytest.raises(KeyError):
            store.record(number, (), (0, 0), True)
        for _ in range(40):
            one = (await store.submit(TWO, b"new\n")).id.number
            assert one != number
            await store.record(one, (), (0, 0), True)

    stage.run(story)
    assert stage.files() == before


def test_held_mail_without_its_lists_is_kept_too():
    stage = Stage(1)
    number = tried(stage)
    stage.run(lambda store, _: store.hold(number, "why"))
    files = stage.layout.held_files(number)
    stage.disk.unlink(files.local)
    stage.disk.unlink(files.remote)
    before = stage.files()
    due, numbers = stage.run(a_day)
    assert due == {} and numbers == [number] and stage.files() == before
    assert any(files.info.decode() in told for told in stage.reports)


def test_a_message_of_another_qmail_ends_as_there_and_the_log_names_it():
    stage = Stage(1)
    with_mail(stage, 5000)
    files = stage.layout.files(5000)
    for path in (files.local, files.remote, files.bounce):
        stage.disk.unlink(path)

    async def story(store, found):
        assert dict(found).keys() == {5000} and store.load(5000).envelope.recipients == ()
        await store.record(5000, (), (0, 0), True)
        await store.settle()

    stage.run(story)
    [told] = stage.reports
    assert files.info.decode() in told and "message 5000 ends" in told
    assert stage.files().keys() == {b"lock/sendmutex", b"lock/tcpto"}


def test_an_info_of_ours_that_is_damaged_as_well_is_kept():
    stage = Stage(1)
    number = tried(stage)
    lose_its_lists(stage, number)
    info = stage.layout.files(number).info
    stage.disk.overwrite(info, stage.disk.contents(info)[0].index(b"\0X") + 2, b"?")
    assert stage.look() == {}
    assert any(f"message {number} waits" in told for told in stage.reports)


# --- what we leave ourselves is never taken for that ------------------------------------------------


def test_who_was_delivered_to_before_a_clean_stop_is_not_missed_after_it():
    """The end of the message did not come to be recorded any more."""
    stage = Stage(1)
    number = tried(stage)

    async def story(store, _):
        await store.record(number, (succeeded(0), succeeded(1)), (0, 0), False, True)
        await store.settle()

    stage.run(story)

    async def after(store, found):
        assert [one for one, _ in found] == [number]
        await store.record(number, (), (0, 0), True)
        await store.settle()

    stage.run(after)
    assert stage.reports == [] and stage.files().keys() == {b"lock/sendmutex", b"lock/tcpto"}


@KINDS
@pytest.mark.parametrize("how", ["ended", "forwarded", "held"])
def test_a_message_that_ends_is_never_taken_for_one_that_lost_its_lists(how, ordered, whole):
    """Wherever it is cut: neither by a start, nor by who looks while none runs."""

    async def prepare(store, _):
        number = (await store.submit(TWO, b"x\n")).id.number
        await store.record(number, (deferred(0), deferred(1)), DUE, False)
        await until_moved(store)
        if how == "held":
            await store.hold(number, "why")
        return number

    async def story(store, number):
        if how == "forwarded":
            both = succeeded(0), succeeded(1)
            await store.submit(TWO, b"x\n", Closes(number, both, False, True))
        await store.record(number, (), (0, 0), True)
        await asyncio.sleep(2)
        await store.settle()

    call, cut = 0, True
    while cut:
        call += 1
        stage = Stage(call, ordered=ordered, whole=whole)
        number = stage.run(prepare)
        stage.cut_at(call)
        stage.run(lambda store, _, number=number: story(store, number))
        cut = stage.is_cut
        stage.crash(call if call % 2 else None)
        missed = []
        list(read(QUEUE, stage.disk, lambda *what, missed=missed: missed.append(what)))
        if how != "held":
            assert missed == []
        stage.look()
        assert stage.reports == []
    assert call > 5, "the story was never cut"
