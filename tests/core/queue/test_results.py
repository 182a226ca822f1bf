"""What became of recipients of mail in the layout: in qmail's files once, durable, and for good."""

import asyncio

import pytest
from stage import NOW, QUEUE, Stage, deferred, failed, succeeded, to, until_moved
from test_moves import KINDS, every_crash

from openqmail.core.queue import Closes, Progress
from openqmail.core.queue.layout.forms import decode_info, whole_info
from openqmail.core.values import Outcome

FOUR = to(b"a@here", b"b@here", b"c@remote", b"d@remote")
DUE = (NOW + 100, NOW + 200)
NO = b"<user-a@here>:\nno\n\n"


async def moved(store, envelope=FOUR):
    number = (await store.submit(envelope, b"x\n")).id.number
    await store.record(number, (), DUE, False)
    await until_moved(store)
    return number


def without_a_journal(stage, seed):
    """What the files alone say after a power cut."""
    stage.crash(seed)
    for name in stage.disk.names(QUEUE + b"/journal"):
        stage.disk.unlink(QUEUE + b"/journal/" + name)
    return stage.look(salvage=True)  # which is what a lost journal wants


def test_a_recipient_is_marked_done_in_place_and_the_time_of_the_next_attempt_stays():
    stage = Stage(1)

    async def story(store, _):
        number = await moved(store)
        await store.record(number, (succeeded(1), failed(2, b"c@remote")), (0, 0), False)
        await asyncio.sleep(50)
        return number

    number = stage.run(story)
    files, part = stage.files(), b"%d/%d" % (number % 3, number)
    assert files[b"local/" + part] == (b"Tuser-a@here\0Duser-b@here\0", DUE[0])
    assert files[b"remote/" + part] == (b"Dc@remote\0Td@remote\0", DUE[1])
    assert files[b"bounce/%d" % number][0] == b"<c@remote>:\nno\n\n"
    assert files[b"info/" + part][1] == NOW


def test_the_next_attempt_is_the_mtime_of_its_channels_list_alone():
    stage = Stage(1)

    async def story(store, _):
        number = await moved(store)
        await store.record(number, (deferred(0),), (NOW + 777, 0), False)
        await asyncio.sleep(50)
        assert store.load(number).due == (NOW + 777, DUE[1])
        return number

    number = stage.run(story)
    files, part = stage.files(), b"%d/%d" % (number % 3, number)
    assert (files[b"local/" + part][1], files[b"remote/" + part][1]) == (NOW + 777, DUE[1])
    assert stage.look()[number][0].due == (NOW + 777, DUE[1])


def test_attempts_and_the_last_report_come_back_after_a_restart():
    stage = Stage(1)

    async def first(store, _):
        number = await moved(store)
        for text in (b"first\n", b"second \xe4\n"):
            await store.record(number, (deferred(0, text), deferred(3, b"r\n" * 400)), DUE, False)
            await asyncio.sleep(1)
        return number, store.load(number).progress

    number, before = stage.run(first)
    assert before[0] == Progress(None, 2, b"second \xe4\n") and before[1] == Progress()
    stored = stage.look()[number][0]
    assert stored.progress[:3] == before[:3]
    assert stored.progress[3] == Progress(None, 2, (b"r\n" * 400)[:256]), "of a long report the beginning"
    info, mtime = stage.files()[b"info/%d/%d" % (number % 3, number)]
    assert mtime == NOW and decode_info(info)[1].tried["l0"] == (2, "second \xe4\n")


def test_what_is_not_in_the_files_yet_shows_all_the_same():
    stage = Stage(1)

    async def story(store, _):
        number = await moved(store)
        recording = store.record(number, (failed(0, b"user-a@here"), succeeded(3)), (0, 0), False)
        stored = store.load(number)
        assert [one.outcome for one in stored.progress] == [Outcome.FAILURE, None, None, Outcome.SUCCESS]
        assert stored.bounce == NO
        await recording
        await asyncio.sleep(1)
        assert store.load(number).bounce == NO

    stage.run(story)


@KINDS
def test_results_are_in_the_files_once_wherever_it_is_cut(ordered, whole):
    async def prepare(store, _):
        return await moved(store)

    async def story(store, number, told):
        await store.record(number, (failed(0, b"user-a@here"), succeeded(1), deferred(2)), DUE, False)
        told.append(1)
        await asyncio.sleep(1)
        await store.record(number, (failed(2, b"c@remote"),), (0, 0), False)
        told.append(2)
        await asyncio.sleep(1)

    def check(seen, number, told):
        [(stored, body)] = seen.values()
        assert stored.id.number == number and body == b"x\n"
        done = [
            recipient.address
            for recipient, one in zip(stored.envelope.recipients, stored.progress, strict=True)
            if one.outcome is None
        ]
        bounces = [b"", NO, NO + b"<c@remote>:\nno\n\n"]
        assert stored.bounce in bounces[len(told) :]
        assert len(stored.envelope.recipients) == 4
        assert len(done) in ((4, 2), (2, 1), (1,))[len(told)]

    every_crash(story, check, prepare, ordered=ordered, whole=whole)


@KINDS
@pytest.mark.parametrize("large", [False, True])
def test_a_bounce_and_the_end_of_its_parent_in_the_layout_are_one_wherever_it_is_cut(ordered, whole, large):
    async def prepare(store, _):
        return await moved(store)

    async def story(store, number, told):
        closes = Closes(number, (failed(0, b"user-a@here"),), True)
        body = b"sorry\n"
        if large:
            body = store.large(closes=True)
            await body.write(b"sorry\n")
        bounce = await store.submit(to(b"s@remote", sender=b""), body, closes)
        told.append(bounce.id.number)
        await asyncio.sleep(1)
        await store.record(bounce.id.number, (), (0, NOW + 50), False)
        await until_moved(store)

    def check(seen, number, told):
        [(stored, body)] = seen.values()
        assert (stored.envelope.sender, body) in ((b"s@example", b"x\n"), (b"", b"sorry\n"))
        if told:
            assert seen.keys() == set(told) and body == b"sorry\n"

    every_crash(story, check, prepare, ordered=ordered, whole=whole)


def test_an_end_that_waits_for_the_name_of_a_large_body_is_not_passed_over_with_a_later_result(monkeypatch):
    """The name comes late, as the threads for large bodies sync those of others."""
    for after in (0.5, 1.5, 3.5):  # before the later result, after it was applied, after the name came
        stage = Stage(1)

        async def story(store, _, stage=stage, after=after):
            parent = await moved(store, to(b"a@here", sender=b"parent@example"))
            other = await moved(store, to(b"b@remote", sender=b"other@example"))
            do = store._intake._workers.do

            def slow(then, call, *arguments):
                if call == stage.disk.rename:
                    asyncio.get_running_loop().call_later(2, do, then, call, *arguments)
                else:
                    do(then, call, *arguments)

            monkeypatch.setattr(store._intake._workers, "do", slow)
            body = store.large(closes=True)
            await body.write(b"forward\n" * 100)
            store.submit(
                to(b"c@remote", sender=b"forward@example"), body, Closes(parent, (succeeded(0),), True)
            )
            await asyncio.sleep(0.5)
            if after > 0.5:
                await store.record(other, (deferred(0),), (0, NOW + 999), False)
            await asyncio.sleep(after - 0.5)

        stage.run(story, close=False)
        stage.crash()
        senders = {stored.envelope.sender for stored, _ in stage.look().values()}
        assert senders == {b"forward@example", b"other@example"}


@pytest.mark.parametrize("reached", [False, True])
@pytest.mark.parametrize("whole", [False, True])
def test_after_a_failed_sync_results_are_written_anew_and_then_are_durable(whole, reached):
    """What a failed sync was to write looks as if it were on the disk, and is not."""

    async def story(store, _):
        number = await moved(store)
        gone = await moved(store, to(b"e@remote", sender=b"gone@example"))
        store._disk.faults.fail_sync(b"/" if whole else b"/remote/%d" % (number % 3), reached=reached)
        store._disk.faults.fail_sync(b"/" if whole else b"/local/%d/%d" % (number % 3, number))
        for one in (failed(0, b"user-a@here"), succeeded(1)):
            store.record(number, (one,), (0, 0), False)
        store.record(gone, (succeeded(0),), (0, 0), True)
        await asyncio.sleep(30)
        return number

    for seed in range(12):
        stage = Stage(seed, whole=whole)
        number = stage.run(story, close=False)
        assert any("results cannot be written" in told for told in stage.reports)
        # The journal has let go of them: only the files have them now.
        seen = without_a_journal(stage, seed)
        assert seen.keys() == {number}
        stored, _ = seen[number]
        assert stored.bounce == NO
        assert [one.outcome is None for one in stored.progress] == [False, False, True, True]


@pytest.mark.parametrize("reached", [False, True])
@pytest.mark.parametrize("whole", [False, True])
def test_after_a_failed_sync_attempts_are_written_anew_and_none_of_another_message_is_forgotten(
    whole, reached
):
    async def story(store, _):
        number, other = await moved(store), await moved(store)
        info = b"/info/%d/%d" % (number % 3, number)
        for _ in range(2):
            store._disk.faults.fail_sync(b"/" if whole else info, reached=reached)
        await store.record(number, (deferred(2, b"first\n"),), (0, NOW + 300), False)
        while not stage.reports:
            await asyncio.sleep(0.1)
        await store.record(other, (deferred(3, b"no\n"),), (0, NOW + 300), False)
        await asyncio.sleep(30)
        await store.record(number, (deferred(2, b"second\n"),), (0, NOW + 400), False)
        assert await store.settle() == 0
        return number, other

    for seed in range(12):
        stage = Stage(seed, whole=whole)
        number, other = stage.run(story)
        assert any("results cannot be written" in told for told in stage.reports)
        seen = without_a_journal(stage, seed)
        assert seen[number][0].progress[2] == Progress(None, 2, b"second\n")
        assert seen[other][0].progress[3] == Progress(None, 1, b"no\n")


def test_what_a_power_cut_tore_off_an_attempt_hides_none_that_follow():
    async def unlucky(store, _):
        number = await moved(store)
        await store.settle()
        store._disk.faults.fail_sync(b"/info/%d/%d" % (number % 3, number), reached=True)
        await store.record(number, (deferred(2, b"first\n" * 40),), (0, NOW + 300), False)
        await asyncio.sleep(1)
        return number

    async def later(store, _):
        await store.record(number, (deferred(2, b"second\n"),), (0, NOW + 400), False)
        assert await store.settle() == 0

    torn = 0
    for seed in range(12):
        stage = Stage(seed, whole=False)
        number = stage.run(unlucky, close=False)
        name = b"info/%d/%d" % (number % 3, number)
        stage.crash(seed)
        data = stage.files()[name][0]
        torn += whole_info(data) != data
        stage.run(later)
        assert without_a_journal(stage, seed)[number][0].progress[2].text == b"second\n"
    assert torn, "in no history was it torn"


def test_two_recipients_of_one_name_have_a_paragraph_each():
    stage = Stage(1)
    envelope = to(b"a@remote", b"a@remote", b"a@remote")

    async def story(store, _):
        number = await moved(store, envelope)
        changes = (failed(0, b"a@remote"), failed(1, b"a@remote"))
        recording = store.record(number, changes, (0, 0), False)
        assert store.load(number).bounce.count(b"<a@remote>") == 2
        await recording
        await asyncio.sleep(1)
        return number

    number = stage.run(story)
    assert stage.files()[b"bounce/%d" % number][0] == b"<a@remote>:\nno\n\n" * 2


def test_of_a_message_that_has_ended_nothing_stays():
    stage = Stage(1)

    async def story(store, _):
        for step in range(30):
            number = await moved(store, to(b"a@here", b"b@remote", sender=b"%d@example" % step))
            await store.record(number, (failed(0, b"user-a@here"),), (0, 0), False)
            await store.record(number, (succeeded(1),), (0, 0), True)
        assert await store.settle() == 0

    stage.run(story)
    assert stage.files().keys() == {b"lock/sendmutex", b"lock/tcpto"}
    assert not any(data for data, _ in stage.files(QUEUE + b"/pool").values())


def test_a_list_in_which_all_are_done_is_removed_at_the_end_as_qmail_does():
    stage = Stage(1)

    async def story(store, _):
        number = await moved(store)
        await store.record(number, (succeeded(0), succeeded(1), deferred(2)), (0, NOW + 300), False)
        assert await store.settle() == 0
        return number

    number = stage.run(story)
    assert b"local/%d/%d" % (number % 3, number) not in stage.files()
    stored = stage.look()[number][0]
    assert [one.address for one in stored.envelope.recipients] == [b"c@remote", b"d@remote"]
    assert stored.due == (0, NOW + 300) and stored.progress[0].attempts == 1
