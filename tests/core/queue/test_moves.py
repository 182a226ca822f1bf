"""Out of the journal, into qmail's layout: at any moment a message is there once, and whole."""

import asyncio

import pytest
from stage import DONE, NOW, QUEUE, Stage, content, deferred, failed, succeeded, to, until_moved, until_moving

from openqmail.core.queue import Closes

TWO = to(b"a@here", b"b@remote")
DUE = (NOW + 100, NOW + 200)
KINDS = pytest.mark.parametrize(("ordered", "whole"), [(True, True), (False, True), (False, False)])
LARGE = b"large\n" * 1000


def every_crash(story, check, prepare=None, **how):
    """Play `story` again and again, cut in its first, second, ... call, and `check` what is found
    after a kill, after a power cut, and after a power cut that follows a kill and a start.

    `prepare`: what was done before, and could be ended in peace."""
    call, cut = 0, True
    kinds = ("kill", "power", "both")
    while cut:
        call += 1
        usual = how.get("ordered", True) and how.get("whole", True)
        for kind in ("kill", kinds[1 + call % 2]) if usual else (kinds[call % 3],):
            stage = Stage(call, **how)
            known = stage.run(prepare) if prepare else None
            told = []
            stage.cut_at(call)
            stage.run(lambda store, found, known=known, told=told: story(store, known, told))
            cut = stage.is_cut
            stage.crash(call if kind == "power" else None)
            seen = stage.look()
            check(seen, known, told)
            if kind == "both":
                stage.crash(call)
                assert stage.look() == seen, f"call {call}: a second start, after another cut, changed it"
    assert call > 5, "the story was never cut"


async def submit(store, body=b"x\n", envelope=TWO):
    if len(body) > 3000:
        handed = store.large()
        await handed.write(body)
    else:
        handed = body
    return (await store.submit(envelope, handed)).id.number


@KINDS
@pytest.mark.parametrize("body", [b"small\n", LARGE], ids=["small", "large"])
def test_a_message_is_there_exactly_once_wherever_its_move_is_cut(ordered, whole, body):
    async def prepare(store, _):
        return await submit(store, body)

    async def story(store, number, told):
        await store.record(number, (deferred(0), failed(1, b"b@remote")), DUE, False)
        told.append("deferred")
        await until_moved(store)
        told.append("moved")

    def check(seen, number, told):
        [(stored, there)] = seen.values()
        assert stored.id.number == number and there == body
        if told:
            assert stored.due[0] == DUE[0] and stored.bounce == b"<b@remote>:\nno\n\n"
            assert stored.envelope.recipients[0].address in (b"a@here", b"user-a@here")
            assert stored.progress[0].outcome is None and stored.progress[0].text == b"later\n"
        if "moved" in told:
            assert stored.channels

    every_crash(story, check, prepare, ordered=ordered, whole=whole)


@KINDS
def test_a_result_that_comes_while_the_message_moves_is_not_lost(ordered, whole):
    async def story(store, _, told):
        number = await submit(store)
        await store.record(number, (deferred(0), deferred(1)), DUE, False)
        await until_moving(store, number)
        await store.record(number, (succeeded(0),), DUE, False)
        told.append(number)
        await until_moved(store)
        stored = store.load(number)
        assert stored.channels == ("remote",)

    def check(seen, _, told):
        if told:
            [(stored, there)] = seen.values()
            left = [
                one.address
                for one, progress in zip(stored.envelope.recipients, stored.progress, strict=True)
                if progress.outcome is None
            ]
            assert left == [b"b@remote"] and there == b"x\n"

    every_crash(story, check, ordered=ordered, whole=whole)


@pytest.mark.parametrize("body", [b"small\n", LARGE], ids=["small", "large"])
def test_a_message_that_ends_while_it_moves_does_not_come_back(body):
    async def prepare(store, _):
        return await submit(store, body)

    async def story(store, number, told):
        await store.record(number, (deferred(0), deferred(1)), DUE, False)
        await until_moving(store, number)
        await store.record(number, (succeeded(0), succeeded(1)), (0, 0), True)
        told.append(number)
        await asyncio.sleep(1)
        assert list(store.numbers()) == []
        other = await submit(store, b"other\n", to(b"b@remote", sender=b"other@example"))
        told.append(other)

    def check(seen, number, told):
        senders = {stored.envelope.sender: there for stored, there in seen.values()}
        if told:
            assert b"s@example" not in senders
        if len(told) == 2:
            assert senders == {b"other@example": b"other\n"}

    every_crash(story, check, prepare)


@KINDS
def test_a_message_that_ended_in_the_layout_does_not_come_back_when_its_number_does(ordered, whole):
    async def prepare(store, _):
        numbers = [await submit(store) for _ in range(2)]
        for number in numbers:
            await store.record(number, (deferred(0),), DUE, False)
        await until_moved(store)
        return numbers

    async def story(store, numbers, told):
        await store.record(numbers[0], (succeeded(0), succeeded(1)), (0, 0), True)
        told.append("ended")
        await asyncio.sleep(1)
        for step in range(12):
            number = await submit(store, b"new %d\n" % step, to(b"n@remote", sender=b"%d@example" % step))
            told.append((b"%d@example" % step, b"new %d\n" % step))
            if number == numbers[0]:
                await store.record(number, (deferred(0),), DUE, False)
                await until_moved(store, number)
                return
        raise AssertionError("the number never came again")

    def check(seen, numbers, told):
        found = {stored.envelope.sender: there for stored, there in seen.values()}
        stored, there = seen[numbers[1]]
        assert stored.due == DUE and there == b"x\n"
        old = [stored for stored, _ in seen.values() if stored.envelope.sender == b"s@example"]
        assert len(old) == 1 if told else len(old) <= 2
        for sender, body in told[1:]:
            assert found[sender] == body

    every_crash(story, check, prepare, ordered=ordered, whole=whole)


@KINDS
def test_a_failed_sync_during_a_move_loses_nothing(ordered, whole):
    async def prepare(store, _):
        return [await submit(store), await submit(store, LARGE)]

    async def story(store, numbers, told):
        for number in numbers:
            await store.record(number, (deferred(0), failed(1, b"b@remote")), DUE, False)
        told.append("deferred")
        stage_of(store).faults.fail_sync(b"/" if whole else b"", reached=ordered)
        await until_moved(store)
        told.append("moved")

    def stage_of(store):
        return store._disk

    def check(seen, numbers, told):
        assert seen.keys() == set(numbers)
        assert {there for _, there in seen.values()} == {b"x\n", LARGE}
        if told:
            assert all(stored.due[0] == DUE[0] for stored, _ in seen.values())
            assert all(stored.bounce == b"<b@remote>:\nno\n\n" for stored, _ in seen.values())

    every_crash(story, check, prepare, ordered=ordered, whole=whole)


def test_what_a_failed_move_was_about_is_told_once_and_done_again():
    stage = Stage(1)

    async def story(store, _):
        number = await submit(store)
        await store.record(number, (deferred(0),), DUE, False)
        stage.disk.faults.fail_sync(b"/", 1)
        await until_moved(store)
        return number

    stage.run(story)
    [told] = stage.reports
    assert "cannot be moved" in told and "will try again" in told and QUEUE.decode() in told
    assert len(stage.look()) == 1


def test_a_message_that_is_worked_on_keeps_its_recipients_positions_when_it_is_moved_out():
    """What pins an old segment moves while deliveries run: their results are told by old positions."""
    stage = Stage(1)
    envelope = to(b"a@remote", b"b@here", b"c@remote", b"d@here")

    async def story(store, _):
        number = await submit(store, envelope=envelope)
        for _ in range(20):
            other = await submit(store, b"y" * 1000)
            await store.record(other, DONE, (0, 0), True)
        await asyncio.sleep(1000)
        assert store.load(number).channels
        await store.record(number, (succeeded(0), failed(3, b"d@here")), (0, 0), False)
        stored = store.load(number)
        done = {
            one.address: progress.outcome is not None
            for one, progress in zip(stored.envelope.recipients, stored.progress, strict=True)
        }
        assert done == {b"a@remote": True, b"user-b@here": False, b"c@remote": False, b"user-d@here": True}
        await store.record(number, (succeeded(1), succeeded(2)), (0, 0), True)

    stage.run(story)
    assert stage.look() == {}


def test_mail_that_pins_an_old_segment_moves_out_and_the_segment_goes():
    stage = Stage(1)

    async def story(store, _):
        pinned = await submit(store, b"pinned\n")
        for _ in range(20):
            number = await submit(store, b"y" * 1000)
            await store.record(number, DONE, (0, 0), True)
        assert stage.segments() > 2
        await asyncio.sleep(1000)
        assert store.load(pinned).channels == ("local", "remote")
        for _ in range(20):
            number = await submit(store, b"y" * 1000)
            await store.record(number, DONE, (0, 0), True)
        assert stage.segments() <= 2
        assert content(store, pinned) == b"pinned\n"

    stage.run(story)


def test_a_copied_queue_whose_names_are_no_inodes_moves_mail_all_the_same():
    stage = Stage(1)

    async def first(store, _):
        return await submit(store, b"x\n")

    number = stage.run(first)
    stage.disk.unlink(stage.layout.pool(number))  # as a copy that left empty files out

    async def second(store, _):
        await store.record(number, (deferred(0),), DUE, False)
        await until_moved(store)
        return content(store, number)

    assert stage.run(second) == b"x\n"
    assert stage.look()[number][1] == b"x\n"


def test_a_bounce_that_ends_its_parent_while_that_one_moves():
    stage = Stage(1)

    async def story(store, _):
        numbers = [await submit(store) for _ in range(2)]
        for _ in range(10):
            number = numbers[0]
            await store.record(number, (deferred(0), deferred(1)), DUE, False)
            await until_moving(store, number)
            closing = store.submit(to(b"s@example", sender=b""), b"bounce\n", Closes(number, DONE, True))
            numbers.append((await closing).id.number)
            await asyncio.sleep(1)
            assert number not in store.numbers()
            numbers[0] = await submit(store)
        assert all(content(store, one) in (b"x\n", b"bounce\n") for one in store.numbers())

    stage.run(story)


@pytest.mark.parametrize("ordered", [True, False])
def test_lists_of_what_ended_while_it_moved_go_though_its_info_went_before_them(ordered):
    async def story(store, _):
        number = (await store.submit(to(b"a@here", b"b@remote"), b"x\n")).id.number
        await store.record(number, (), (NOW + 100, NOW + 200), False)
        await until_moving(store, number)
        await store.record(number, (succeeded(0), succeeded(1)), (0, 0), True)
        cut.append(stage.disk.faults.calls)
        await asyncio.sleep(1)

    half = 0
    for step in range(40):
        cut = []
        stage = Stage(1, ordered=ordered)
        stage.run(story, close=False)
        last = cut[0]
        stage = Stage(1, ordered=ordered)
        stage.cut_at(last + 1 + step)
        stage.run(story, close=False)
        stage.crash(None if ordered else step)
        kinds = {name.partition(b"/")[0] for name in stage.files()}
        half += bool(kinds & {b"local", b"remote"}) and b"info" not in kinds
        assert not stage.look()
        assert not {name for name in stage.files() if name.startswith((b"local", b"remote", b"bounce/"))}
    assert half, "in no history was the info alone gone"
