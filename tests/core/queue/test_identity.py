"""A number comes again, a key does not: nothing that is said of a message is done to its successor;
and a recipient keeps its results wherever it stands in a list."""

import asyncio
import itertools

import pytest
from stage import DONE, NOW, Stage, content, deferred, failed, succeeded, to, until_moved, until_moving
from test_moves import KINDS

TWO = to(b"a@here", b"b@remote")
DUE = (NOW + 100, NOW + 200)


async def moved(store, envelope=TWO):
    number = (await store.submit(envelope, b"x\n")).id.number
    await store.record(number, (deferred(0),), DUE, False)
    await until_moved(store, number)
    return number


# --- a result in the journal, and another message of that number in the layout -------------------


RESULTS = {
    "a success": ((succeeded(0), deferred(1)), DUE, False),
    "a failure": ((failed(1, b"b@remote"),), (0, 0), False),
    "a time": ((), (NOW + 5000, NOW + 5000), False),
    "the end": ((succeeded(0), succeeded(1)), (0, 0), True),
}


def a_result_that_is_in_the_journal_only(what):
    """A stage, the message's number, and what its files were."""
    for seed in range(50):
        stage = Stage(seed)
        number = stage.run(lambda store, _: moved(store))
        before = stage.files()

        async def story(store, _, number=number):
            changes, due, ended = RESULTS[what]
            await store.record(number, changes, due, ended)

        stage.run(story, close=False)
        stage.crash()
        if stage.files() == before:
            return stage, number, before
    raise AssertionError("the files always had it before the kill")


@pytest.mark.parametrize("what", RESULTS)
def test_a_result_that_the_kill_left_in_the_journal_is_in_the_files_after_a_start(what):
    stage, _, before = a_result_that_is_in_the_journal_only(what)
    stage.look()
    assert stage.files() != before


@pytest.mark.parametrize("whose", ["another qmail's", "ours"])
@pytest.mark.parametrize("what", RESULTS)
def test_a_result_is_not_applied_to_another_message_that_has_the_number_by_now(what, whose):
    stage, number, before = a_result_that_is_in_the_journal_only(what)
    files = stage.layout.files(number)
    data, birth = stage.disk.contents(files.info)
    key = data.partition(b'"key":"')[2][:48]
    stage.disk.unlink(files.info)
    if whose == "ours":
        assert len(key) == 48
        stage.put(files.info, data.replace(key, bytes(reversed(key))), birth)
    else:
        stage.put(files.info, b"Fother@remote\0", birth)
    before = stage.files()
    seen = stage.look()
    assert seen.keys() == {number}
    assert all(one.outcome is None for one in seen[number][0].progress)
    assert seen[number][0].due == DUE and seen[number][0].bounce == b""
    assert stage.files() == before
    stage.crash()

    async def settle(store, _):
        assert await store.settle() == 0

    stage.run(settle)
    assert stage.files() == before


# --- messages that ended while they moved --------------------------------------------------------


async def ends_while_it_moves(store):
    number = (await store.submit(TWO, b"gone\n")).id.number
    await store.record(number, (deferred(0), failed(1, b"b@remote")), DUE, False)
    await until_moving(store, number)
    await store.record(number, (succeeded(0),), (0, 0), True)
    await asyncio.sleep(1)
    return number


@KINDS
@pytest.mark.parametrize("power", [False, True], ids=["kill", "power cut"])
def test_one_that_ended_while_it_moved_takes_no_files_of_its_successor_away(ordered, whole, power):
    for seed in range(5):
        stage = Stage(seed, ordered=ordered, whole=whole)

        async def story(store, _):
            number = await ends_while_it_moves(store)
            for step in range(20):
                sender = b"%d@new" % step
                stored = await store.submit(to(b"n@here", b"m@remote", sender=sender), b"new\n")
                if stored.id.number == number:
                    await store.record(number, (failed(0, b"n@here"), deferred(1)), DUE, False)
                    await until_moved(store, number)
                    return number, sender
            raise AssertionError("the number never came again")

        number, sender = stage.run(story, close=False)
        for _ in range(2):
            stage.crash(seed if power else None)
            stored, text = stage.look()[number]
            assert (stored.envelope.sender, text) == (sender, b"new\n")
            assert stored.bounce == b"<n@here>:\nno\n\n" and stored.due[1] == DUE[1]


def one_that_ended_while_it_moved():
    """A stage as a kill left it, with nothing of the message but its records, and its number."""
    stage = Stage(1)
    number = stage.run(lambda store, _: ends_while_it_moves(store), close=False)
    stage.crash()
    stage.disk.unlink(stage.layout.pool(number))
    return stage, number


def test_a_text_that_a_stranger_has_just_begun_under_the_number_of_one_that_ended_stays():
    stage, number = one_that_ended_while_it_moved()
    mess = stage.layout.mess(number)
    stage.put(mess, b"a stranger's\n")
    for _ in range(2):
        assert stage.look() == {}
        assert stage.disk.contents(mess)[0] == b"a stranger's\n"
        stage.crash(1)


def test_lists_that_a_stranger_has_just_written_under_the_number_of_one_that_ended_stay():
    """Its `info` comes last; while `todo` is there, they are its."""
    stage, number = one_that_ended_while_it_moved()
    files = stage.layout.files(number)
    envelope = b"u5\0p6\0Fstranger@remote\0Tc@here\0Td@remote\0"
    stage.put(files.mess, b"a stranger's\n")
    stage.put(stage.layout.intd(number), envelope)
    stage.put(stage.layout.todo(number), envelope)
    stage.put(files.local, b"Tuser-c@here\0")
    stage.put(files.remote, b"Td@remote\0")
    before = stage.files()
    stage.look()
    assert stage.files() == before


@KINDS
def test_one_that_ended_while_it_moved_does_not_come_back_when_its_records_are_gone(ordered, whole):
    gone = 0
    for seed in range(40):
        stage = Stage(seed, ordered=ordered, whole=whole)

        async def story(store, _, stage=stage, seed=seed):
            before = set(stage.disk.names(stage.queue + b"/journal"))
            await ends_while_it_moves(store)
            for _ in range(seed % 10 * 4):
                number = (await store.submit(to(b"r@remote", sender=b"other"), b"y" * 1500)).id.number
                await store.record(number, DONE, (0, 0), True)
            await asyncio.sleep(seed % 3)
            return before - set(stage.disk.names(stage.queue + b"/journal"))

        gone += bool(stage.run(story, close=False))
        stage.crash(seed)
        assert all(stored.envelope.sender == b"other" for stored, _ in stage.look().values())
        left = [name for name in stage.files() if name.startswith((b"info", b"local", b"remote", b"bounce"))]
        assert left == [], f"seed {seed}"
    assert gone > 5, "the records never went"


# --- positions -----------------------------------------------------------------------------------


MIXED = to(b"a@remote", b"b@here", b"c@remote", b"d@here")
ADDRESSES = [b"a@remote", b"user-b@here", b"c@remote", b"user-d@here"]


def open_ones(stored):
    """The addresses of who is left, as they were accepted or as routed."""
    found = zip(stored.envelope.recipients, stored.progress, strict=True)
    left = [one.address for one, progress in found if progress.outcome is None]
    return {b"user-" + one if one in (b"b@here", b"d@here") else one for one in left}


async def moved_out_under_work(store):
    """Mixed recipients, moved because they pin a segment, while deliveries to all run."""
    number = (await store.submit(MIXED, b"x\n")).id.number
    for _ in range(20):
        other = (await store.submit(MIXED, b"y" * 1000)).id.number
        await store.record(other, DONE, (0, 0), True)
    await asyncio.sleep(1000)
    assert store.load(number).channels, "it moved"
    return number


@pytest.mark.parametrize("order", list(itertools.permutations(range(4), 2)))
def test_results_of_a_message_that_moves_while_it_is_delivered_reach_who_they_are_of(order):
    first, second = order
    stage = Stage(sum(order))

    async def story(store, _):
        number = await moved_out_under_work(store)
        before = {number: content(store, number)}
        await store.record(number, (succeeded(first),), (0, 0), False, False)
        assert open_ones(store.load(number)) == set(ADDRESSES) - {ADDRESSES[first]}
        await store.record(number, (deferred(second, b"by its old place\n"),), DUE, False, False)
        stored = store.load(number)
        texts = {
            one.address: progress.text
            for one, progress in zip(stored.envelope.recipients, stored.progress, strict=True)
        }
        assert texts[ADDRESSES[second]] == b"by its old place\n"
        place = [one.address for one in stored.envelope.recipients].index(ADDRESSES[second])
        await store.record(number, (failed(place, b"it"),), DUE, False, True)
        assert before == {number: content(store, number)}
        return number

    number = stage.run(story, close=False)
    left = set(ADDRESSES) - {ADDRESSES[first], ADDRESSES[second]}
    for _ in range(2):
        stage.crash()
        stored, _ = stage.look()[number]
        assert open_ones(stored) == left and stored.bounce == b"<it>:\nno\n\n"

    async def after(store, _):
        stored = store.load(number)
        addresses = [one.address for one in stored.envelope.recipients]
        for address in sorted(left):
            await store.record(number, (succeeded(addresses.index(address)),), (0, 0), False, True)
            left.discard(address)
            assert open_ones(store.load(number)) == left

    stage.run(after)
    assert open_ones(stage.look()[number][0]) == set()


@pytest.mark.parametrize("position", range(4))
def test_who_loaded_the_moved_message_and_who_works_on_it_by_old_places_do_not_mix(position):
    """A result by the layout's order while results by the accepted order may still come."""
    stage = Stage(position)

    async def story(store, _):
        number = await moved_out_under_work(store)
        addresses = [one.address for one in store.load(number).envelope.recipients]
        await store.record(number, (succeeded(position),), (0, 0), False, True)
        left = set(ADDRESSES) - {addresses[position]}
        assert open_ones(store.load(number)) == left
        other = next(place for place, address in enumerate(ADDRESSES) if address in left)
        await store.record(number, (succeeded(other),), (0, 0), False, False)
        left.discard(ADDRESSES[other])
        assert open_ones(store.load(number)) == left
        return number, left

    number, left = stage.run(story, close=False)
    stage.crash()
    assert open_ones(stage.look()[number][0]) == left


@pytest.mark.parametrize("position", range(4))
def test_before_it_moves_and_after_it_was_deferred_each_result_reaches_its_recipient(position):
    stage = Stage(position)

    async def story(store, _):
        number = (await store.submit(MIXED, b"x\n")).id.number
        changes = tuple(succeeded(one) if one == position else deferred(one) for one in range(4))
        await store.record(number, changes, DUE, False)
        assert open_ones(store.load(number)) == set(ADDRESSES) - {ADDRESSES[position]}
        await until_moved(store, number)
        assert open_ones(store.load(number)) == set(ADDRESSES) - {ADDRESSES[position]}
        return number

    number = stage.run(story, close=False)
    stage.crash()
    assert open_ones(stage.look()[number][0]) == set(ADDRESSES) - {ADDRESSES[position]}
