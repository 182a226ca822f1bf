"""A clean end: what fails then is tried again, and what stays undone is told."""

import pytest
from stage import DONE, Stage, succeeded, to
from test_held import moved

ONE = to(b"r@remote.example")


async def end_of_what_lies_in_files(store):
    number = await moved(store)
    store.record(number, (), (0, 0), True)
    return number


async def result_of_what_lies_in_files(store):
    number = await moved(store)
    store.record(number, (succeeded(0),), (0, 0), False, True)
    return number


async def end_of_a_large_one(store):
    body = store.large()
    await body.write(b"large\n" * 1000)
    number = (await store.submit(ONE, body)).id.number
    await store.record(number, DONE, (0, 0), True)
    return number


KINDS = pytest.mark.parametrize(
    "act", [end_of_what_lies_in_files, result_of_what_lies_in_files, end_of_a_large_one]
)


def names(stage, number):
    """Files of a message, wherever they lie."""
    return {name for name in stage.files() if name.endswith(b"/%d" % number)}


@KINDS
@pytest.mark.parametrize("whole", [True, False])
def test_what_fails_at_the_end_is_tried_again(act, whole):
    stage = Stage(1, whole=whole)

    async def story(store, _):
        number = await act(store)
        stage.disk.faults.fail_sync(b"/" if whole else b"/bounce" if "end" in act.__name__ else b"/local/0")
        return number, await store.settle()

    number, left = stage.run(story)
    assert left == 0
    if act is not result_of_what_lies_in_files:
        assert not names(stage, number)


@KINDS
def test_what_cannot_be_written_at_the_end_is_counted_and_the_next_start_does_it(act):
    stage = Stage(1, whole=False)

    async def story(store, _):
        number = await act(store)
        for suffix in (b"/bounce", b"/local/%d" % (number % 3), b"/local/%d/%d" % (number % 3, number)):
            stage.disk.faults.fail_sync(suffix, times=1000)
        return number, await store.settle(), store.unsettled()

    number, *left = stage.run(story)
    assert left == [1, 1]
    stage.crash()

    async def again(store, _):
        return await store.settle()

    assert stage.run(again) == 0
    stage.crash(1)
    if act is result_of_what_lies_in_files:
        assert stage.files()[b"local/%d/%d" % (number % 3, number)][0].startswith(b"D")
    else:
        assert names(stage, number) <= {b"mess/%d/%d" % (number % 3, number)}, "its text may wait to be swept"


def test_the_text_of_what_had_ended_in_the_journal_only_goes_at_the_next_start():
    async def story(store, _):
        number = await moved(store)
        await store.record(number, (), (0, 0), True)
        return number

    tried = 0
    for seed in range(20):
        stage = Stage(seed)
        number = stage.run(story, close=False)
        stage.crash()
        if b"info/%d/%d" % (number % 3, number) in names(stage, number):
            tried += 1
            stage.look()
            assert not names(stage, number)
    assert tried, "in no history was the process killed before the files were gone"
