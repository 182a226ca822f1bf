"""Held mail: out of netqmail's sight, whole, and back with the progress that it had."""

import asyncio
import itertools

import pytest
from stage import NOW, QUEUE, Stage, content, deferred, failed, succeeded, to, until_moved, within
from test_moves import KINDS, every_crash

from openqmail.core.values import TemporaryFailure

TWO = to(b"a@here", b"b@remote")
DUE = (NOW + 100, 0)


async def moved(store):
    number = (await store.submit(TWO, b"x\n")).id.number
    await store.record(number, (deferred(0), failed(1, b"b@remote")), DUE, False)
    await until_moved(store)
    return number


def same(stored):
    """All that a hold leaves as it is."""
    return stored.id, stored.birth, stored.envelope, stored.progress, stored.bounce, stored.due


def test_a_held_message_is_listed_with_its_reason_is_not_due_and_comes_back_as_it_was():
    stage = Stage(1)

    async def hold(store, _):
        number = await moved(store)
        before = store.load(number)
        await store.hold(number, "looks like a loop: häh?")
        held = store.load(number)
        assert held.held == "looks like a loop: häh?" and same(held) == same(before)
        assert content(store, number) == b"x\n" and list(store.numbers()) == [number]
        assert store.totals().held == 1 and store.totals().deferred == 0
        return before

    before = stage.run(hold)
    number = before.id.number
    assert {name.split(b"/")[0] for name in stage.files()} == {b"held", b"lock"}, "netqmail sees nothing"

    async def release(store, found):
        assert found == [] and store.load(number).held == "looks like a loop: häh?"
        await store.release(number)
        assert same(store.load(number)) == same(before) and store.load(number).held is None

    stage.run(release)
    assert not any(name.startswith(b"held") for name in stage.files())
    assert QUEUE + b"/held" and stage.disk.names(QUEUE + b"/held") == []
    stored, body = stage.look()[number]
    assert same(stored) == same(before) and body == b"x\n"


def test_what_has_just_been_accepted_can_be_held():
    stage = Stage(1)

    async def story(store, _):
        number = (await store.submit(TWO, b"x\n")).id.number
        body = store.large()
        await body.write(b"large\n" * 1000)
        large = (await store.submit(TWO, body)).id.number
        await asyncio.gather(store.hold(number, ""), store.hold(large, "big"))
        return number, large

    number, large = stage.run(story)
    seen = stage.look()
    assert seen[number][0].held == "" and seen[number][1] == b"x\n"
    assert seen[large][0].held == "big" and seen[large][1] == b"large\n" * 1000


def test_a_message_is_held_and_released_while_results_of_other_mail_never_stop_coming():
    stage = Stage(1)

    async def story(store, _):
        number, other = await moved(store), await moved(store)

        async def results():
            for step in range(1_000_000):
                store.record(other, (), (NOW + step, 0), False)
                await asyncio.sleep(0.005)

        flood = asyncio.ensure_future(results())
        await asyncio.sleep(0.1)
        for verb in (lambda: store.hold(number, "why"), lambda: store.release(number)):
            store.record(number, (deferred(0),), (NOW + 500, 0), False)
            await within(2, verb())
        flood.cancel()

    stage.run(story)


def test_holding_what_is_not_there_is_an_error():
    stage = Stage(1)

    async def story(store, _):
        for verb in (lambda: store.hold(77, "why"), lambda: store.release(77)):
            with pytest.raises(KeyError):
                await within(60, verb())

    stage.run(story)


def test_a_reason_can_be_changed_and_releasing_twice_is_no_harm():
    stage = Stage(1)

    async def story(store, _):
        number = await moved(store)
        before = store.load(number)
        await store.hold(number, "one")
        await store.hold(number, "two")
        assert store.load(number).held == "two"
        await store.release(number)
        await store.release(number)
        assert same(store.load(number)) == same(before)

    stage.run(story)


def test_a_held_message_can_be_deleted_and_nothing_of_it_stays():
    stage = Stage(1)

    async def story(store, _):
        number = await moved(store)
        await store.hold(number, "why")
        await store.record(number, (), (0, 0), True)
        assert await store.settle() == 0
        assert list(store.numbers()) == []

    stage.run(story)
    assert stage.files().keys() == {b"lock/sendmutex", b"lock/tcpto"}
    assert stage.disk.names(QUEUE + b"/held") == []


def test_a_held_message_keeps_its_number_to_itself():
    stage = Stage(1)

    async def story(store, _):
        number = await moved(store)
        await store.hold(number, "why")
        for _ in range(40):
            assert (await store.submit(TWO, b"y\n")).id.number != number
        await store.release(number)
        assert content(store, number) == b"x\n"

    stage.run(story)


@KINDS
def test_wherever_it_is_cut_a_message_is_held_or_it_is_not_and_is_whole(ordered, whole):
    async def prepare(store, _):
        number = await moved(store)
        return same(store.load(number))

    async def story(store, before, told):
        number = before[0].number
        await store.hold(number, "why")
        told.append("held")
        await store.release(number)
        told.append("released")
        await store.hold(number, "again")
        told.append("again")
        await store.record(number, (succeeded(0),), (0, 0), False)
        await store.release(number)
        told.append("done")

    def check(seen, before, told):
        [(stored, body)] = seen.values()
        assert body == b"x\n"
        assert (
            stored.held
            in ((None, "why"), ("why", None), (None, "again"), ("again", None), (None,))[len(told)]
        )
        if len(told) < 3:
            assert same(stored) == before
        if len(told) == 4:
            assert stored.progress[0].outcome is not None

    every_crash(story, check, prepare, ordered=ordered, whole=whole)


@pytest.mark.parametrize("whole", [True, False])
def test_after_a_failed_sync_a_hold_that_is_asked_for_again_is_durable(whole):
    for seed, verb in itertools.product(range(6), ("hold", "release")):
        stage = Stage(seed, whole=whole)

        async def story(store, _, stage=stage, verb=verb):
            number = await moved(store)
            if verb == "release":
                await store.hold(number, "why")
            stage.disk.faults.fail_sync(b"/" if whole else b"/held/%d" % number)
            with pytest.raises(TemporaryFailure, match="try again"):
                await (store.hold(number, "why") if verb == "hold" else store.release(number))
            await (store.hold(number, "why") if verb == "hold" else store.release(number))
            return number

        number = stage.run(story, close=False)
        stage.crash(seed)
        assert stage.look()[number][0].held == ("why" if verb == "hold" else None)


def test_what_does_not_belong_among_the_held_is_named_and_left_alone():
    stage = Stage(1)
    stage.put(QUEUE + b"/held/strange", b"?")
    stage.look()
    [told] = stage.reports
    assert "/held/strange" in told and "left alone" in told
    assert stage.disk.contents(QUEUE + b"/held/strange")[0] == b"?"


def test_a_strangers_file_beside_a_held_message_is_named_and_keeps_nothing_back():
    """As editors leave one of a text that was looked at."""
    stage = Stage(1)

    async def story(store, _):
        number = await moved(store)
        await store.hold(number, "why")
        return number

    number = stage.run(story)
    backup = QUEUE + b"/held/%d/mess~" % number
    stage.put(backup, b"?")

    async def release(store, _):
        await store.release(number)
        assert store.load(number).held is None and content(store, number) == b"x\n"

    stage.run(release)
    assert stage.look()[number][1] == b"x\n"
    assert len(stage.reports) == 2 and all("mess~ is not a held message's" in told for told in stage.reports)
    assert stage.disk.contents(backup)[0] == b"?"


def test_holding_a_message_that_ends_meanwhile_is_told():
    stage = Stage(1)

    async def story(store, _):
        number = (await store.submit(TWO, b"x\n")).id.number
        holding = store.hold(number, "why")
        store.record(number, (), (0, 0), True)
        with pytest.raises(KeyError):
            await within(600, holding)

    stage.run(story)
