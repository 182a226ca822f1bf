"""Files that are not what their names say, and names that somebody else has, too: named, left alone, in
nobody's way; no message ends by them, and what they lead to keeps its content."""

import asyncio
import os

import pytest
from stage import DONE, NOW, QUEUE, Stage, content, deferred, succeeded, to, until_moved
from test_arrivals import queue_one
from test_layout_damage import A, B, as_nobody, with_mail

from openqmail.core.queue import SendMutex
from openqmail.core.values import HomeError, OpenqmailError, TemporaryFailure

__all__ = ["as_nobody"]

TWO = to(b"a@here", b"b@remote")
DUE = (NOW + 100, NOW + 200)
WEEK = 7 * 86_400
BEYOND = 64 * 1024 * 1024 + 1


async def a_day(store, found):
    """What is found by a start that lives for a day, sweeps, and ends in peace."""
    await asyncio.sleep(25 * 3600)
    await store.settle()
    return dict(found), list(store.numbers())


def moved_by(stage, count, body=b"x\n"):
    """Deferred mail of ours in the layout: its numbers."""

    async def story(store, _):
        numbers = []
        for _ in range(count):
            if len(body) > 3000:
                handed = store.large()
                await handed.write(body)
            else:
                handed = body
            numbers.append((await store.submit(TWO, handed)).id.number)
            await store.record(numbers[-1], (deferred(0),), DUE, False)
        await until_moved(store)
        return numbers

    return stage.run(story)


def real(tmp_path, *numbers):
    """An empty queue on the real disk, with messages as notqmail has them."""
    queue = os.fsencode(tmp_path / "queue")
    os.mkdir(queue)
    stage = Stage(1, real=queue, split=23)
    stage.look()
    for number in numbers:
        files = stage.layout.files(number)
        for path, data in (
            (files.mess, b"theirs %d\n" % number),
            (files.info, b"Fs%d@remote\0" % number),
            (files.local, b"Ta@here\0"),
            (files.remote, b"Tb@remote\0"),
        ):
            write(path, data)
    return stage


def write(path, data):
    with open(path, "wb") as file:
        file.write(data)


# --- a list that is none ---------------------------------------------------------------------------


def in_the_wrong_folder(stage, path):
    data = stage.disk.contents(path)[0]
    stage.disk.unlink(path)
    part = (int(os.path.basename(os.path.dirname(path))) + 1) % stage.layout.split
    stage.put(
        os.path.join(os.path.dirname(os.path.dirname(path)), b"%d" % part, os.path.basename(path)), data
    )


def a_folder(stage, path):
    stage.disk.unlink(path)
    stage.disk.make(path)


def empty(stage, path):
    stage.disk.unlink(path)
    stage.put(path, b"")


@pytest.mark.parametrize("kind", ["local", "remote"])
@pytest.mark.parametrize("spoil", [in_the_wrong_folder, a_folder, empty])
def test_a_message_with_a_list_that_is_none_waits_and_nothing_of_it_goes(spoil, kind):
    stage = Stage(1)
    with_mail(stage, 5000, 5003)
    spoil(stage, getattr(stage.layout.files(5000), kind))
    before = stage.files()
    due, numbers = stage.run(a_day)
    assert due.keys() == {5003} and numbers == [5003, 5000]
    assert any("5000" in told and f"/{kind}/" in told for told in stage.reports)
    assert any("waits" in told and "5000" in told for told in stage.reports)
    assert stage.files() == before


@pytest.mark.parametrize("kind", ["local", "remote"])
def test_a_list_that_is_a_fifo_does_not_hang_the_start_and_its_message_waits(tmp_path, kind):
    stage = real(tmp_path, 5000, 5023)
    path = getattr(stage.layout.files(5000), kind)
    os.unlink(path)
    os.mkfifo(path)
    before = stage.files()
    due, numbers = stage.run(a_day)
    assert due.keys() == {5023} and numbers == [5023, 5000]
    assert any(path.decode() in told for told in stage.reports)
    assert stage.files() == before and os.path.exists(path)


@pytest.mark.parametrize("kind", ["info", "local", "remote", "todo"])
def test_a_file_of_more_than_64_mib_is_named_and_not_read(tmp_path, kind):
    stage = real(tmp_path, 5000, 5023)
    if kind == "todo":
        files = stage.layout.files(5000)
        for path in (files.info, files.local, files.remote):
            os.unlink(path)
        path = stage.layout.todo(5000)
        write(path, b"u1\0p2\0Fs@remote\0Ta@here\0")
        write(stage.layout.todo(5046), b"u1\0p2\0Fs@remote\0Ta@here\0")
        write(stage.layout.mess(5046), b"theirs\n")
    else:
        path = getattr(stage.layout.files(5000), kind)
    os.truncate(path, BEYOND)

    async def story(store, found):
        came = []
        store.arrivals(came.append)
        await asyncio.sleep(10)
        said = []
        for number in store.numbers():
            try:
                store.load(number)
            except OpenqmailError as error:
                said.append(str(error))
        await store.settle()
        return said, [one.id.number for one in came]

    said, came = stage.run(story)
    assert any(path.decode() in told for told in stage.reports + said)
    assert came == ([5046] if kind == "todo" else [])
    assert os.path.getsize(path) == BEYOND and os.path.exists(stage.layout.mess(5000))


# --- folders and names that are nobody's ---------------------------------------------------------


def test_a_stray_folder_in_mess_is_named_and_the_split_stays_what_it_was():
    stage = Stage(1, split=23)
    with_mail(stage, 5000)
    stage.disk.make(QUEUE + b"/mess/99")

    async def story(store, found):
        assert dict(found).keys() == {5000} and content(store, 5000) == b"theirs 5000\n"
        number = (await store.submit(TWO, b"x\n")).id.number
        await store.record(number, (deferred(0),), DUE, False)
        await until_moved(store, number)
        return number

    number = stage.run(story)
    assert [told for told in stage.reports if "/mess/99 " in told] == stage.reports and stage.reports
    assert b"info/%d/%d" % (number % 23, number) in stage.files()
    assert stage.disk.names(QUEUE + b"/mess/99") == []


@pytest.mark.parametrize("kind", ["hard link", "symbolic link"])
def test_a_reserved_number_that_leads_elsewhere_is_named_not_used_and_nothing_is_written_there(
    tmp_path, kind
):
    stage = real(tmp_path)
    precious = os.fsencode(tmp_path / "precious")
    write(precious, b"precious\n")
    number = os.stat(precious).st_ino
    path = stage.layout.pool(number)
    (os.link if kind == "hard link" else os.symlink)(precious, path)

    async def story(store, _):
        numbers = []
        for _ in range(40):
            numbers.append((await store.submit(TWO, b"x\n")).id.number)
            await store.record(numbers[-1], (deferred(0),), DUE, False)
        await until_moved(store)
        await store.settle()
        return numbers

    assert number not in stage.run(story)
    assert any(path.decode() in told for told in stage.reports)
    assert os.path.lexists(path)
    with open(precious, "rb") as file:
        assert file.read() == b"precious\n"


@pytest.mark.parametrize("how", ["ended", "ended while held", "ended, and killed right then"])
@pytest.mark.parametrize("body", [b"x\n", b"large text\n" * 1000], ids=["small", "large"])
def test_a_backup_by_hard_links_keeps_the_text_of_mail_that_ends(how, body):
    for seed in range(5):
        stage = Stage(seed)
        [number] = moved_by(stage, 1, body)
        stage.disk.make(b"/backup")
        stage.disk.link(stage.layout.mess(number), b"/backup/text")
        stage.disk.sync_folder(b"/backup")

        async def story(store, _, number=number):
            if how == "ended while held":
                await store.hold(number, "why")
            await store.record(number, DONE, (0, 0), True, True)
            if how != "ended, and killed right then":
                await asyncio.sleep(2)

        stage.run(story, close=how != "ended, and killed right then")
        stage.crash()

        async def more(store, _):
            for step in range(30):
                one = (await store.submit(TWO, b"new %d\n" % step)).id.number
                await store.record(one, (deferred(0),), DUE, False)
            await until_moved(store)

        stage.run(more)
        assert stage.disk.contents(b"/backup/text")[0] == body


@pytest.mark.parametrize("kind", ["local", "remote"])
def test_a_text_whose_list_is_still_there_is_not_swept_as_litter(kind):
    stage = Stage(1)
    old = NOW - WEEK
    files = stage.layout.files(6000)
    stage.put(files.mess, b"mail\n", old)
    stage.put(getattr(files, kind), b"Ta@here\0", old)
    stage.put(stage.layout.mess(6001), b"litter\n", old)
    stage.run(a_day)
    assert stage.disk.contents(files.mess)[0] == b"mail\n"
    assert stage.layout.mess(6001).removeprefix(QUEUE + b"/") not in stage.files(), "litter does go"
    assert any("6000" in told for told in stage.reports)


# --- what one message has wrong, the others do not suffer ---------------------------------------------


def test_mail_in_todo_whose_info_is_a_folder_holds_up_none_of_the_next():
    stage = Stage(1)
    for number in (5000, 5001, 5002):
        queue_one(stage, number)
    stage.disk.make(stage.layout.files(5000).info)

    async def story(store, _):
        came = []
        store.arrivals(came.append)
        await asyncio.sleep(10)
        assert {one.id.number for one in came} == {5001, 5002}
        [told] = [one for one in stage.reports if "/todo/5000" in one]
        assert stage.layout.files(5000).info.decode() in told and "mend" in told
        stage.disk.rmdir(stage.layout.files(5000).info)
        await asyncio.sleep(100)
        assert [one.id.number for one in came][2:] == [5000]
        assert content(store, 5000) == b"theirs 5000\n"

    stage.run(story)


@pytest.mark.parametrize("mended", ["while it runs", "before the next start", "after the next start"])
def test_a_result_that_cannot_be_written_holds_up_no_other_and_is_not_lost(mended):
    stage = Stage(1)
    wrong, *others = moved_by(stage, 4)
    path = stage.layout.files(wrong).local
    lists = {number: stage.layout.files(number).local.removeprefix(QUEUE + b"/") for number in others}
    data, due = stage.disk.contents(path)

    def mend():
        stage.disk.rmdir(path)
        stage.put(path, data, due)

    async def story(store, _):
        stage.disk.unlink(path)
        stage.disk.make(path)
        for number in (wrong, *others):
            await store.record(number, (succeeded(0),), (0, 0), False, True)
        await asyncio.sleep(1)
        assert all(stage.files()[name][0] == b"Duser-a@here\0" for name in lists.values())
        assert await store.settle() == 1 and store.unsettled() == 1
        assert any(path.decode() in told and str(wrong) in told for told in stage.reports)
        if mended == "while it runs":
            mend()
            await asyncio.sleep(30)
            assert await store.settle() == 0 and store.unsettled() == 0

    stage.run(story)
    stage.crash()
    if mended == "before the next start":
        mend()
    elif mended == "after the next start":
        seen = stage.look()
        assert wrong not in seen and seen.keys() == set(others)
        mend()
        stage.crash()
    assert open_recipients(stage.look()[wrong][0]) == [b"b@remote"]


@pytest.mark.parametrize("start", [False, True])
def test_a_result_that_cannot_be_written_keeps_no_segment_but_the_newest(start):
    """For how long it may be: it is written anew to a newer one."""
    stage = Stage(1)
    [wrong] = moved_by(stage, 1)
    path = stage.layout.files(wrong).local
    data, due = stage.disk.contents(path)

    async def spoiled(store, _):
        stage.disk.unlink(path)
        stage.disk.make(path)
        await store.record(wrong, (succeeded(0),), (0, 0), False, True)
        if not start:
            await busy(store, ())

    async def busy(store, _):
        for _ in range(5):
            for _ in range(30):
                other = await store.submit(TWO, b"x" * 500)
                await store.record(other.id.number, DONE, (0, 0), True)
            await asyncio.sleep(700)
        assert stage.segments() <= 8, "those since the last look"
        assert store.unsettled() == 1
        if start:
            with pytest.raises(TemporaryFailure):
                store.load(wrong)  # it waits

    stage.run(spoiled, close=start)
    if start:
        stage.run(busy, close=False)
    for seed in (None, 1):
        stage.crash(seed)
        assert wrong not in stage.look()
    stage.disk.rmdir(path)
    stage.put(path, data, due)
    stored, _ = stage.look()[wrong]
    assert [one.outcome is None for one in stored.progress] == [False, True]


def test_a_message_that_cannot_be_moved_holds_up_none_of_the_next():
    """Folders have the names of lists."""
    stage = Stage(1)

    async def story(store, _):
        numbers = [(await store.submit(TWO, b"%d\n" % step)).id.number for step in range(9)]
        odd = [number for number in numbers if number % 3 == 1]
        for number in odd:
            stage.disk.make(stage.layout.files(number).local)
        for number in numbers:
            await store.record(number, (deferred(0),), DUE, False)
        await until_moved(store, *(number for number in numbers if number not in odd))
        assert await store.settle() == len(odd) > 1
        with pytest.raises(TemporaryFailure, match=rf"local/1/{odd[0]}: .*mend it"):
            await store.hold(odd[0], "why")
        await store.hold(next(number for number in numbers if number not in odd), "why")
        return odd

    odd = stage.run(story)
    [told] = stage.reports
    assert f"local/1/{odd[0]}" in told, "one of them is told, for all"
    assert {body for _, body in stage.look().values()} == {b"%d\n" % step for step in range(9)}
    for number in odd:
        stage.disk.rmdir(stage.layout.files(number).local)

    async def again(store, _):
        assert await store.settle() == 0

    stage.run(again)


def test_a_result_that_was_written_anew_and_then_mended_goes_where_it_belongs():
    stage = Stage(1)
    [wrong] = moved_by(stage, 1)
    path = stage.layout.files(wrong).local
    data, due = stage.disk.contents(path)

    async def story(store, _):
        stage.disk.unlink(path)
        stage.disk.make(path)
        await store.record(wrong, (succeeded(0),), (0, 0), False, True)
        for _ in range(40):
            other = await store.submit(TWO, b"x" * 500)
            await store.record(other.id.number, DONE, (0, 0), True)
        await asyncio.sleep(700)
        stage.disk.rmdir(path)
        stage.put(path, data, due)
        await asyncio.sleep(30)
        assert store.unsettled() == 0 and stage.disk.contents(path)[0] == b"D" + data[1:]

    stage.run(story)
    assert stage.segments() == 1
    assert [one.outcome is None for one in stage.look()[wrong][0].progress] == [False, True]


def test_a_list_that_another_user_owns_holds_up_no_other_result(as_nobody):
    name = b"local/21/%d" % A

    def spoil(queue):
        os.chown(os.path.join(queue, name), 0, 0)
        os.chmod(os.path.join(queue, name), 0o644)

    def act(stage):
        async def story(store, _):
            for number in (A, B):
                stored = store.load(number)
                first = next(place for place, one in enumerate(stored.progress) if one.outcome is None)
                await store.record(number, (succeeded(first),), (0, 0), False, True)
            await asyncio.sleep(1)
            return await store.settle(), store.unsettled()

        async def numbers(store, found):
            return {number for number, _ in found}

        before = stage.files()
        counts = stage.run(story)
        after = stage.files()
        changed = {path for path in after.keys() | before.keys() if after.get(path) != before.get(path)}
        return counts, stage.reports, changed, stage.run(numbers), stage.run(numbers)

    counts, reports, changed, *starts = as_nobody(spoil, act)
    assert counts == (1, 1)
    for found in starts:  # its list says that the recipient is still to be tried: it is not gone by
        assert A not in found and B in found
    assert any(name.decode() in told and "ermission denied" in told for told in reports)
    assert any(path.endswith(b"/%d" % B) for path in changed) and name not in changed


def test_a_sendmutex_that_is_a_fifo_is_refused_with_a_sentence(tmp_path):
    stage = real(tmp_path)
    path = os.path.join(stage.queue, b"lock", b"sendmutex")
    if os.path.exists(path):
        os.unlink(path)
    os.mkfifo(path)
    with pytest.raises(HomeError) as caught:
        SendMutex(stage.queue)
    assert path.decode() in str(caught.value) and "not a regular file" in str(caught.value)


def test_a_result_that_waits_for_its_file_is_kept_however_much_comes_after_it():
    """Segments of which nothing is needed any more go; the one with this result is not among them."""
    stage = Stage(1)
    [wrong] = moved_by(stage, 1)
    path = stage.layout.files(wrong).local
    data, due = stage.disk.contents(path)

    async def story(store, _):
        stage.disk.unlink(path)
        stage.disk.make(path)
        await store.record(wrong, (succeeded(0),), (0, 0), False, True)
        await asyncio.sleep(1)  # it was tried, and is not tried again yet
        for _ in range(40):
            number = (await store.submit(TWO, b"x" * 1000)).id.number
            await store.record(number, DONE, (0, 0), True)
        assert stage.segments() > 1

    stage.run(story, close=False)
    stage.disk.rmdir(path)
    stage.put(path, data, due)
    stage.crash()
    assert open_recipients(stage.look()[wrong][0]) == [b"b@remote"]


def test_a_result_that_waited_over_a_restart_outlasts_later_results_of_others():
    """That those are in their files says nothing about it."""
    stage = Stage(1)
    wrong, other = moved_by(stage, 2)
    path = stage.layout.files(wrong).local
    data, due = stage.disk.contents(path)

    async def first(store, _):
        stage.disk.unlink(path)
        stage.disk.make(path)
        await store.record(wrong, (succeeded(0),), (0, 0), False, True)

    async def second(store, found):
        assert wrong not in dict(found)
        await store.record(other, (succeeded(0),), (0, 0), False, True)
        await asyncio.sleep(20)
        assert stage.files()[b"local/%d/%d" % (other % 3, other)][0] == b"Duser-a@here\0"
        await store.submit(TWO, b"and so the mark is in the journal\n")

    for story in (first, second):
        stage.run(story, close=False)
        stage.crash()
    stage.disk.rmdir(path)
    stage.put(path, data, due)
    assert open_recipients(stage.look()[wrong][0]) == [b"b@remote"]


def open_recipients(stored):
    """Those that are still to be delivered to."""
    both = zip(stored.envelope.recipients, stored.progress, strict=True)
    return [recipient.address for recipient, progress in both if progress.outcome is None]


def test_a_queue_inside_the_queue_is_told_with_the_way_into_its_place(tmp_path):
    stage = real(tmp_path)
    for inner in (b"queue/mess", b"queue/info", b"old/mess", b"old/info", b"other"):
        os.makedirs(os.path.join(stage.queue, inner))
    stage.look()
    told = {
        name: line
        for line in stage.reports
        for name in (b"queue", b"old", b"other")
        if line.startswith(os.path.join(stage.queue, name).decode() + " ")
    }
    for name in (b"queue", b"old"):
        assert "looks like another queue" in told[name] and "remove" not in told[name]
    assert "is not a message's" in told[b"other"]
