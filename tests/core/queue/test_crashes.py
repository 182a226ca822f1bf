"""Crash anywhere: what was acknowledged is there, what was ended stays ended."""

import asyncio
import contextlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stage import (
    DONE,
    LATER,
    NOW,
    ONE,
    QUEUE,
    Stage,
    content,
    failed,
    succeeded,
    to,
    until_moved,
    until_moving,
)

from openqmail.core.queue import Closes, read
from openqmail.core.values import TemporaryFailure
from openqmail.core.world.simulated import SimulatedDisk

CUTS = pytest.mark.parametrize("ordered", [True, False])


class History:
    """What a client of the store was told; messages are known by their senders."""

    def __init__(self):
        self.accepted = {}  # sender -> number, body, key
        self.ending = set()  # whose end was asked for
        self.ended = set()  # whose end was acknowledged
        self.maybe = set()  # whose submission was never answered
        self.due = {}  # sender -> due acknowledged last
        # Of deferred mail that may be moving.  None of it ends just then: see
        # test_a_message_that_ends_while_it_moves_does_not_come_back.
        self.moves = set()


async def live(store, seed, history, steps=60):
    """Submit, defer, fail, bounce and end at random until the disk stops."""
    chance = random.Random(seed)

    async def one(step):
        sender = b"s%d-%d@example" % (seed, step)
        body = bytes([97 + step % 26]) * chance.choice([0, 10, 300, 900]) + b"\n"
        parent = None
        waiting = [other for other in history.accepted if other not in history.ending | history.moves]
        if waiting and chance.random() < 0.3:
            parent = chance.choice(waiting)
            history.ending.add(parent)
        handed = body
        if chance.random() < 0.2:
            handed = store.large()
            await handed.write(body)
        history.maybe.add(sender)
        closes = Closes(history.accepted[parent][0], DONE, True) if parent else None
        stored = await store.submit(to(b"a@here", b"b@remote", sender=sender), handed, closes)
        number = stored.id.number
        if parent:
            history.ended.add(parent)
        history.maybe.discard(sender)
        history.accepted[sender] = number, body, stored.id.key
        if chance.random() < 0.6:
            due = 1 + step, 1000 + step
            changes = LATER if chance.random() < 0.5 else (failed(1, b"b@remote"), *LATER)
            history.moves.add(sender)
            await store.record(number, changes, due, False)
            history.due[sender] = due
            if chance.random() < 0.7:
                await until_moved(store, number)
                history.moves.discard(sender)
        if chance.random() < 0.4 and sender not in history.ending | history.moves:
            history.ending.add(sender)
            await store.record(number, DONE, (0, 0), True)
            history.ended.add(sender)

    async def some(worker):
        for step in range(worker, steps, 4):
            await one(step)

    await asyncio.gather(*(some(worker) for worker in range(4)))


def check(history, seen):
    found = {}
    for stored, body in seen.values():
        sender = stored.envelope.sender
        assert sender not in found, "a message is there twice"
        found[sender] = stored, body
    assert not history.ended & found.keys(), "an ended message came back"
    assert found.keys() <= history.accepted.keys() | history.maybe
    for sender, (_, body, key) in history.accepted.items():
        if sender in history.ending and sender not in found:
            continue
        assert sender in found, "an accepted message is lost"
        stored, there = found[sender]
        assert there == body and stored.id.key == key and stored.again
        if sender in history.due:
            assert stored.due[0] == history.due[sender][0]


def summary(seen):
    return {number: (stored, body) for number, (stored, body) in seen.items()}


@settings(max_examples=150)
@given(
    seed=st.integers(0, 1 << 30),
    stop=st.integers(1, 900),
    power=st.booleans(),
    ordered=st.booleans(),
    whole=st.booleans(),
)
def test_no_accepted_message_is_lost_and_no_ended_one_comes_back_wherever_it_stops(
    seed, stop, power, ordered, whole
):
    stage, history = Stage(seed, ordered=ordered, whole=whole), History()
    stage.cut_at(stop)
    stage.run(lambda store, _: live(store, seed, history), close=False)
    stage.crash(seed if power else None)
    seen = stage.look()
    check(history, seen)
    stage.crash(seed)
    assert summary(stage.look()) == summary(seen), "a second recovery changed something"


@settings(max_examples=60)
@given(seed=st.integers(0, 1 << 30), again=st.integers(1, 120), power=st.booleans(), ordered=st.booleans())
def test_a_crash_during_recovery_changes_nothing(seed, again, power, ordered):
    stage, history = Stage(seed, ordered=ordered), History()
    stage.cut_at(600)
    stage.run(lambda store, _: live(store, seed, history), close=False)
    stage.crash(seed)
    stage.cut_at(again)
    stage.look()
    stage.crash(seed + 1 if power else None)
    check(history, stage.look())


@settings(max_examples=40)
@given(seed=st.integers(0, 1 << 30), stop=st.integers(1, 300), ordered=st.booleans())
def test_a_crash_during_a_clean_stop_changes_nothing(seed, stop, ordered):
    stage, history = Stage(seed, ordered=ordered), History()

    async def story(store, _):
        await live(store, seed, history, steps=30)
        stage.cut_at(stop)
        assert await store.settle() == 0

    stage.run(story)
    stage.crash(seed)
    check(history, stage.look())


@settings(max_examples=40)
@given(seed=st.integers(0, 1 << 30), fail=st.sets(st.integers(0, 59), max_size=4), reached=st.booleans())
def test_a_failed_sync_refuses_its_submissions_and_loses_no_result(seed, fail, reached):
    """Nothing of the batch is accepted, and none of it is delivered after a restart."""
    stage = Stage(seed, whole=False)  # else the pool is told of it, too, and refuses one more
    accepted, ended, refused = {}, set(), set()

    async def story(store, _):
        for step in range(60):
            sender = b"s%d@example" % step
            ending = None
            if accepted and step % 3 == 0:
                number = list(accepted)[step % len(accepted)]
                ended.add(accepted.pop(number))
                ending = store.record(number, DONE, (0, 0), True)
            if step in fail:
                stage.disk.faults.fail_sync(b".seg", reached=reached)
            try:
                stored = await store.submit(to(b"r@remote", sender=sender), b"x\n")
                accepted[stored.id.number] = sender
            except TemporaryFailure:
                refused.add(sender)
            if ending:
                await ending

    stage.run(story, close=False)
    assert refused == {b"s%d@example" % step for step in fail} and not stage.fatal
    stage.crash(seed)
    assert {n: stored.envelope.sender for n, (stored, _) in stage.look().items()} == accepted


def test_when_a_new_segment_cannot_be_made_either_the_process_is_told_to_end():
    stage = Stage(1)

    async def story(store, _):
        stored = await store.submit(to(b"r@remote"), b"kept\n")
        stage.disk.faults.fail_sync(b".seg", 1000)
        ending = store.record(stored.id.number, DONE, (0, 0), True)
        with pytest.raises(TemporaryFailure, match="cannot be written"):
            await store.submit(to(b"r@remote"), b"lost\n")
        with pytest.raises(TemporaryFailure):
            await ending
        assert len(stage.fatal) == 1
        with pytest.raises(TemporaryFailure):
            await store.submit(to(b"r@remote"), b"too late\n")
        return stored.id.number

    number = stage.run(story)
    for seed in range(10):
        before = stage.disk
        stage.crash(seed)
        assert stage.look()[number][1] == b"kept\n"
        stage.disk = before


def test_when_all_is_lost_a_large_body_stays_for_the_record_that_may_claim_it():
    stage = Stage(1)

    async def story(store, _):
        body = store.large()
        await body.write(b"large\n")
        stage.disk.faults.fail_sync(b".seg", 1000, reached=True)
        with pytest.raises(TemporaryFailure):
            await store.submit(to(b"r@remote"), body)

    stage.run(story)
    before = stage.disk
    for seed in (None, *range(10)):
        stage.disk = before
        stage.crash(seed)
        for _, body in stage.look().values():
            assert body == b"large\n"


def test_listing_a_stopped_queue_changes_nothing_on_the_disk():
    stage, history = Stage(7), History()
    stage.run(lambda store, _: live(store, 7, history))
    before = stage.files(but=())
    counts = stage.disk.faults.counts.copy()
    listed = {stored.id.number: stored for stored in read(QUEUE, stage.disk)}
    done = stage.disk.faults.counts - counts
    assert done.keys() <= {"open", "read", "stat", "scan", "names"}
    assert stage.files(but=()) == before
    assert {number: stored for number, (stored, _) in stage.look().items()} == listed and listed


@settings(max_examples=30)
@given(seed=st.integers(0, 1 << 30), stop=st.integers(100, 900))
def test_listing_after_a_crash_shows_what_the_next_start_finds(seed, stop):
    stage = Stage(seed)
    stage.cut_at(stop)
    stage.run(lambda store, _: live(store, seed, History()), close=False)
    stage.crash(seed)
    listed = {stored.id.number: stored for stored in read(QUEUE, stage.disk)}
    found = {number: stored for number, (stored, _) in stage.look().items()}
    assert listed.keys() == found.keys()
    for number, stored in found.items():
        other = listed[number]
        assert (other.id, other.envelope, other.due, other.bounce) == (
            stored.id,
            stored.envelope,
            stored.due,
            stored.bounce,
        )
        assert [one.outcome is None for one in other.progress] == [
            one.outcome is None for one in stored.progress
        ]


@pytest.mark.parametrize("whole", [True, False])
def test_no_two_messages_have_one_number_at_a_time(whole):
    stage = Stage(3, whole=whole)

    async def story(store, _):
        there, seen = {}, set()
        for step in range(300):
            stored = await store.submit(to(b"r@remote"), b"%d\n" % step)
            assert stored.id.number not in there and stored.id.key not in seen
            there[stored.id.number] = b"%d\n" % step
            seen.add(stored.id.key)
            if step % 4 == 0:
                await store.record(stored.id.number, (), (0, 9000), False)
            if step % 3:
                number = next(iter(there))
                del there[number]
                await store.record(number, DONE, (0, 0), True)
        assert {number: content(store, number) for number in store.numbers()} == there
        return there

    there = stage.run(story)
    stage.crash(3)
    assert {number: body for number, (_, body) in stage.look().items()} == there


def test_an_idle_store_ends_nothing_and_loses_nothing_in_a_week():
    stage = Stage(1)

    async def story(store, _):
        numbers = [(await store.submit(to(b"r@remote"), b"x\n")).id.number for _ in range(3)]
        await asyncio.sleep(7 * 86_400)
        assert set(store.numbers()) == set(numbers)
        assert stage.segments() <= 3, "what pins an old segment has moved out"

    with contextlib.suppress(TimeoutError):
        stage.run(story)
    assert len(stage.look()) == 3


@pytest.mark.parametrize("ended", [True, False])
def test_a_power_cut_while_a_start_looks_at_what_a_kill_left_loses_nothing(ended):
    """What a killed process wrote and did not sync reads well, and may yet be lost."""
    for call in range(1, 90):
        stage = Stage(call, ordered=call % 2 == 0)

        async def story(store, _):
            body = store.large()
            await body.write(b"large\n" * 500)
            number = (await store.submit(to(b"r@remote"), body)).id.number
            if ended:
                store.record(number, DONE, (0, 0), True)
            else:
                store.record(number, LATER, (0, 9000), False)
            await asyncio.sleep(0.03)
            return number

        number = stage.run(story, close=False)
        stage.crash()
        stage.cut_at(call)
        stage.look()
        stage.crash(call)
        seen = stage.look()
        if not ended or number in seen:
            assert seen[number][1] == b"large\n" * 500


def test_what_a_killed_process_removed_of_an_ended_message_does_not_come_back(monkeypatch):
    """It was gone when the next one looked, and not yet durably so (no file system to sync as a whole)."""
    monkeypatch.setattr(SimulatedDisk, "filesystem", lambda disk, folder: None)
    for seed in range(60):
        stage = Stage(seed, ordered=False)

        async def story(store, _, stage=stage, seed=seed):
            number = (await store.submit(ONE, b"x\n")).id.number
            await store.record(number, LATER, (NOW + 100, NOW + 100), False)
            await until_moving(store, number)
            await store.record(number, DONE, (0, 0), True)
            while number in store.numbers():
                await asyncio.sleep(0.0001)
            stage.cut_at(3 + seed % 4)
            await asyncio.sleep(5)

        stage.run(story, close=False)
        stage.crash()
        assert stage.look() == {}
        stage.crash(seed)
        assert stage.look() == {}


@pytest.mark.parametrize("reached", [False, True])
def test_what_a_failed_sync_left_to_be_read_is_there_after_a_power_cut_once_a_start_has_read_it(reached):
    """The process was killed before it could write it anew: the next one reads it, and acts on it."""
    read_well = 0
    for call in range(1, 12):
        for seed in range(3):
            stage = Stage(seed)

            async def story(store, _, stage=stage, call=call):
                number = (await store.submit(ONE, b"x\n")).id.number
                await store.submit(ONE, b"which keeps the segment\n")
                stage.disk.faults.fail_sync(b".seg", reached=reached)
                stage.cut_at(call)
                await store.record(number, DONE, (0, 0), True)
                await asyncio.sleep(1)

            stage.run(story, close=False)
            stage.crash()
            seen = stage.look()
            read_well += len(seen) == 1
            stage.crash(seed)
            assert stage.look().keys() == seen.keys(), f"call {call}: what was read is gone"
    assert read_well, "it was never there to be read"


def written_by_a_move_that_was_killed(seed, **how):
    """A stage with a message whose files in the layout are durable, and the record `moved` is not."""
    stage = Stage(seed, ordered=False, **how)

    async def story(store, _):
        number = (await store.submit(to(b"a@here", b"b@remote"), b"x\n")).id.number
        await store.record(number, LATER, (NOW + 100, NOW + 100), False)
        while not stage.disk.names(stage.layout.files(number).info.rpartition(b"/")[0]):
            await asyncio.sleep(0.0001)
        return number

    number = stage.run(story, close=False)
    stage.crash()
    return stage, number


def test_what_a_killed_start_took_back_of_a_move_does_not_come_back():
    """The next one finds nothing to be taken back, and that is not durable yet."""
    taken, call, cut = 0, 0, True
    while cut:
        call += 1
        stage, number = written_by_a_move_that_was_killed(call, whole=False)
        info = stage.layout.files(number).info.removeprefix(QUEUE + b"/")
        before = info in stage.files()
        stage.cut_at(call)
        stage.look()
        cut = stage.is_cut
        stage.crash()
        taken += before and info not in stage.files()

        async def end(store, _, number=number):
            await store.record(number, (succeeded(0), succeeded(1)), (0, 0), True)

        stage.run(end, close=False)
        stage.crash(call)
        assert stage.look() == {} and info not in stage.files(), f"call {call}: what had ended came back"
    assert taken, "no start was killed after it had taken something back"


def test_which_segments_there_are_is_durable_before_a_start_acts_on_it():
    """A killed process had begun one that leaves a move out, and another process took that back."""
    for seed in range(40):
        stage = Stage(seed, ordered=False, whole=False)

        async def story(store, _, stage=stage):
            number = (await store.submit(to(b"a@here", b"b@remote"), b"x\n")).id.number
            await store.record(number, LATER, (NOW + 100, NOW + 100), False)
            while number not in store._departures._unrecorded:
                await asyncio.sleep(0.0001)
            stage.disk.faults.fail_sync(b".seg", reached=True)
            cut_in(stage, "sync_folder", QUEUE + b"/journal")
            await asyncio.sleep(1)

        stage.run(story, close=False)
        assert stage.is_cut
        stage.crash()
        cut_in(stage, "create", QUEUE + b"/journal/")
        stage.look()
        assert stage.is_cut
        stage.crash(seed)
        assert [body for _, body in stage.look().values()] == [b"x\n"], f"seed {seed}: it is lost"


def cut_in(stage, call, path):
    """The power goes in the next such call for a path that begins so."""
    usual = getattr(stage.disk, call)

    def cut(where, *more):
        if where.startswith(path):
            stage.cut_at(1)
        return usual(where, *more)

    setattr(stage.disk, call, cut)
