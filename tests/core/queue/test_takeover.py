"""A stopped queue of notqmail is taken over as it is, and what we leave is what it would have left."""

import asyncio
import os

import pytest
from recordings import AT, STATES, recorded_route, unpack
from stage import Stage, content, deferred, succeeded, to, until_moved

from openqmail.core.dsn.qmail import report
from openqmail.core.queue import Change, read
from openqmail.core.queue.layout.forms import decode_info
from openqmail.core.values import Outcome

A, B = 1705080, 1705092
CANNOT = b"127.0.0.2 does not like recipient.\nRemote host said: 550 5.1.1 no such user here\n"
CANNOT += b"Giving up on 127.0.0.2.\n"
BIRTH = 1_795_544_078
FIRST = (
    b"sender@remote.test",
    {
        b"alice@example.test": ("local", True),
        b"bob@example.test": ("local", False),
        b"ok@remote.test": ("remote", True),
        b"defer1@remote.test": ("remote", False),
        b"defer2@remote.test": ("remote", False),
    },
    BIRTH,
    255,
)
SECOND = (
    b"sender@remote.test",
    {
        b"fail1@remote.test": ("remote", True),
        b"fail2@remote.test": ("remote", True),
        b"defer3@remote.test": ("remote", False),
    },
    BIRTH + 1,
    255,
)
RESIDENTS = {
    "preprocessed": {A: FIRST},
    "bounce-pending": {A: FIRST, B: SECOND},
    "stopped": {A: FIRST, B: SECOND},
    "double-bounce": {1705086: (b"#@[]", {b"postmaster@mail.example.test": ("local", False)}, None, 1387)},
    "tcpto-one": {1705085: (b"alice@example.test", {b"a@bh.test": ("remote", False)}, None, 255)},
    "tcpto-two": {1705085: (b"alice@example.test", {b"a@bh.test": ("remote", False)}, None, 255)},
}
ARRIVALS = {
    "todo-one": [1705060],
    "todo-three": [1705060, 1705065, 1705067],
    "s4-crash-in-preprocessing": [1705118],
}


@pytest.fixture
def take(vectors, tmp_path):
    """`take(state)`: a stage on that recorded queue."""

    def taken(state):
        return Stage(1, real=unpack(vectors, state, tmp_path), split=23, now=AT, route=recorded_route)

    return taken


def theirs(files):
    return {name: data for name, (data, _) in files.items() if not name.startswith(b"lock/")}


async def arrived(store, count):
    """The first `count` messages that come in by `todo/`."""
    found, done = [], asyncio.get_running_loop().create_future()

    def arrives(stored):
        found.append(stored)
        if len(found) == count:
            done.set_result(None)

    store.arrivals(arrives)
    await asyncio.wait_for(done, 60)
    return sorted(found, key=lambda stored: stored.id.number)


@pytest.mark.parametrize("state", STATES)
def test_every_recorded_queue_opens_with_what_is_in_it_and_nothing_is_changed(take, state):
    stage = take(state)
    before = stage.files()
    seen = stage.look()
    assert stage.reports == []
    assert stage.files() == before
    expected = RESIDENTS.get(state, {})
    assert seen.keys() == expected.keys()
    for number, (stored, body) in seen.items():
        sender, recipients, birth, size = expected[number]
        assert stored.envelope.sender == sender
        assert {
            one.address: (channel, progress.outcome is not None)
            for one, channel, progress in zip(
                stored.envelope.recipients, stored.channels, stored.progress, strict=True
            )
        } == recipients
        assert len(body) == size == stored.size
        assert body == before[b"mess/%d/%d" % (number % 23, number)][0]
        part = b"%d/%d" % (number % 23, number)
        assert stored.birth == before[b"info/" + part][1] and birth in (None, stored.birth)
        assert stored.bounce == before.get(b"bounce/%d" % number, (b"",))[0]
        assert stored.due == tuple(before.get(kind + part, (b"", 0))[1] for kind in (b"local/", b"remote/"))
    waiting = {int(os.path.basename(path)) for path in before if path.startswith(b"todo/")}
    assert {stored.id.number for stored in read(stage.queue)} == expected.keys() | waiting


def test_the_key_of_a_message_that_was_taken_over_is_the_same_at_every_start(take):
    stage = take("stopped")
    keys = [{number: stored.id.key for number, (stored, _) in stage.look().items()} for _ in range(2)]
    assert keys[0] == keys[1] and len(set(keys[0].values())) == 2


@pytest.mark.parametrize("state", sorted(ARRIVALS))
def test_what_lies_in_todo_arrives_once_and_is_what_notqmail_would_have_made(take, state):
    stage = take(state)
    before = stage.files()

    async def story(store, found):
        assert found == []
        came = await arrived(store, len(ARRIVALS[state]))
        assert [stored.id.number for stored in came] == ARRIVALS[state]
        for stored in came:
            same = store.load(stored.id.number)
            assert same == stored and len(content(store, stored.id.number)) == stored.size
        await asyncio.sleep(100)
        assert await store.settle() == 0
        return came

    came = stage.run(story)
    after = theirs(stage.files())
    for stored in came:
        number = stored.id.number
        part = b"%d/%d" % (number % 23, number)
        wanted = before[b"todo/%d" % number][0].split(b"\0")[2:-1]
        sender, recipients = wanted[0][1:], [one[1:] for one in wanted[1:]]
        local = b"".join(b"T%s\0" % one for one in recipients if one.endswith(b"example.test"))
        remote = b"".join(b"T%s\0" % one for one in recipients if not one.endswith(b"example.test"))
        info = after.pop(b"info/" + part)
        assert info.split(b"\0")[0] == b"F" + sender and decode_info(info)[1].birth == stored.birth >= AT
        assert after.pop(b"local/" + part, b"") == local
        assert after.pop(b"remote/" + part, b"") == remote
        assert after.pop(b"mess/" + part) == before[b"mess/" + part][0]
        assert stored.envelope.origin.uid in (8001, 8002) and stored.envelope.sender == sender
        if state == "s4-crash-in-preprocessing":
            assert before[b"local/" + part][0] == local, "as notqmail had begun it"
            assert before[b"info/" + part][0] == info[: len(sender) + 2]
    assert after == {}
    assert stage.look().keys() == set(ARRIVALS[state])


def test_without_someone_to_tell_what_lies_in_todo_stays_there(take):
    stage = take("todo-three")
    before = stage.files()
    assert stage.look() == {} and stage.files() == before


@pytest.mark.parametrize("state", [one for one in STATES if one[:2] in ("s1", "s2", "s3")])
def test_what_died_half_written_is_no_mail_and_goes_when_it_is_old(take, state):
    stage = take(state)
    half = theirs(stage.files())

    async def wait(hours):
        await asyncio.sleep(hours * 3600)

    stage.run(lambda store, found: wait(49))
    assert theirs(stage.files()) == half, "a writer may be at work for a day, and the clock may be set"
    stage.run(lambda store, found: wait(26))
    assert theirs(stage.files()) == {}
    assert any("writers that died" in told for told in stage.reports)
    assert stage.look() == {}


def test_a_message_of_notqmails_goes_on_here_and_its_info_stays_byte_for_byte(take):
    stage = take("stopped")
    before = stage.files()

    async def story(store, found):
        assert dict(found) == {A: BIRTH + 100, B: BIRTH + 401}
        await store.record(A, (deferred(1, b"busy\n"), succeeded(3), deferred(4)), (AT + 7, AT + 8), False)
        await store.record(B, (succeeded(2),), (0, 0), True)
        assert await store.settle() == 0

    stage.run(story)
    after = stage.files()
    gone = {b"info/10/%d" % B, b"remote/10/%d" % B, b"mess/10/%d" % B, b"bounce/%d" % B}
    assert before.keys() - after.keys() == gone
    assert after[b"info/21/%d" % A] == before[b"info/21/%d" % A]
    assert after[b"local/21/%d" % A] == (before[b"local/21/%d" % A][0], AT + 7)
    wanted = before[b"remote/21/%d" % A][0].replace(b"Tdefer1", b"Ddefer1")
    assert after[b"remote/21/%d" % A] == (wanted, AT + 8)


def test_our_queue_after_the_same_history_is_byte_for_byte_notqmails(vectors, tmp_path):
    """What was submitted, delivered, deferred and failed in the recording, done here."""
    recorded = Stage(1, real=unpack(vectors, "stopped", tmp_path), split=23).files()
    text = [recorded[b"mess/21/%d" % A][0], recorded[b"mess/10/%d" % B][0]]
    stage = Stage(1, split=23, now=BIRTH, route=recorded_route)
    later = b"127.0.0.2 does not like recipient.\nRemote host said: 450 4.2.0 try again later\n"

    def fails(position, address, why):
        return Change(position, Outcome.FAILURE, report(address, why))

    async def story(store, _):
        first = await store.submit(to(*FIRST[1], sender=FIRST[0]), text[0])
        number = first.id.number
        await asyncio.sleep(1)
        addresses = [b"nouser@example.test", *SECOND[1]]
        second = (await store.submit(to(*addresses, sender=SECOND[0]), text[1])).id.number
        for change in (succeeded(0), deferred(3, later), deferred(4, later), succeeded(2)):
            await store.record(number, (change,), (0, 0), False)
        await store.record(number, (deferred(1, b"cannot now\n"),), (BIRTH + 100, BIRTH + 400), False)
        nobody = b"Sorry, no mailbox here by that name. (#5.1.1)\n"
        for place, why in ((0, nobody), (1, CANNOT), (2, CANNOT)):
            await store.record(second, (fails(place, addresses[place], why),), (0, 0), False)
        await store.record(second, (deferred(3, later),), (0, BIRTH + 401), False)
        await until_moved(store)
        assert await store.settle() == 0
        return {number: A, second: B}

    numbers = stage.run(story)
    ours = {}
    for name, (data, mtime) in stage.files().items():
        kind, number = name.split(b"/")[0], name.split(b"/")[-1]
        if kind == b"lock":
            ours[name] = data, None
            continue
        number = numbers[int(number)]
        renamed = b"bounce/%d" % number if kind == b"bounce" else b"%s/%d/%d" % (kind, number % 23, number)
        known = data[: data.index(b"\0") + 1] if kind == b"info" else data
        ours[renamed] = known, None if kind in (b"mess", b"bounce") else mtime
    expected = {
        name: (data, None if name.split(b"/")[0] in (b"mess", b"bounce", b"lock") else mtime)
        for name, (data, mtime) in recorded.items()
    }
    assert ours == expected


def test_the_modes_of_our_files_are_qmails(vectors, tmp_path):
    theirs_ = unpack(vectors, "stopped", tmp_path)
    ours = tmp_path / "ours" / "queue"
    ours.mkdir(parents=True)
    stage = Stage(1, real=os.fsencode(ours), split=23, route=recorded_route)

    async def story(store, _):
        number = (await store.submit(to(b"a@example.test", b"b@remote.test"), b"x\n")).id.number
        changes = (Change(1, Outcome.FAILURE, report(b"b@remote.test", b"no\n")),)
        await store.record(number, changes, (AT, AT), False)
        await until_moved(store)
        more = (await store.submit(to(b"b@remote.test"), b"x\n")).id.number
        await store.record(more, (), (0, AT), False)
        assert await store.settle() == 0

    stage.run(story)

    def modes(queue):
        found = {}
        for folder, _, names in os.walk(queue):
            for name in names:
                kind = os.fsdecode(os.path.relpath(folder, queue)).split("/")[0]
                if kind not in ("pool", "journal"):
                    where = os.fsdecode(name) if kind == "lock" else ""
                    found.setdefault(f"{kind}/{where}", set()).add(
                        os.lstat(os.path.join(folder, name)).st_mode
                    )
        return found

    wanted = modes(theirs_)
    del wanted["lock/trigger"]  # who reads it makes it
    assert modes(os.fsencode(ours)) == wanted


def test_a_queue_in_use_by_notqmail_has_its_own_lock_files_left_as_they_are(take):
    stage = take("tcpto-two")
    before = stage.disk.contents(stage.queue + b"/lock/tcpto")
    assert any(before[0])
    stage.look()
    assert stage.disk.contents(stage.queue + b"/lock/tcpto") == before
