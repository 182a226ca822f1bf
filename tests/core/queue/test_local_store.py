"""The store on a real disk: messages in, results, bodies, segments that come and go."""

import asyncio
import os
import signal
import subprocess
import sys

import pytest
from stage import route

from openqmail.core.queue import Change, Closes, Limits, LocalStore, Progress, read, read_body
from openqmail.core.values import (
    Envelope,
    HomeError,
    Origin,
    Outcome,
    PermanentFailure,
    Recipient,
    TemporaryFailure,
)
from openqmail.core.world import PosixDisk, SystemClock

ONE = Envelope(b"a@example", (Recipient(b"b@example"),))
DONE = (Change(0, Outcome.SUCCESS, b"done\n"),)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "queue").mkdir()
    return os.fsencode(tmp_path / "queue")


def store_on(folder, **more):
    return LocalStore(
        PosixDisk(), SystemClock(), folder, lambda error: pytest.fail(str(error)), route=route, **more
    )


def used(folder, call, **more):
    """Run `call(store)` on an open store, then close it."""

    async def run():
        store = store_on(folder, **more)
        found = list(store.open())
        result = await call(store, found)
        await store.close()
        return result

    return asyncio.run(run())


def segments(folder):
    names = os.listdir(os.path.join(folder, b"journal"))
    return sorted(name for name in names if name.endswith(b".seg"))


def content(store, number):
    return b"".join(store.body(number).chunks())


def test_a_missing_queue_says_how_to_make_one(tmp_path):
    async def run():
        with pytest.raises(HomeError, match=r"nowhere is missing; .* install -d -o "):
            store_on(os.fsencode(tmp_path / "nowhere")).open()

    asyncio.run(run())


def test_everything_of_an_envelope_comes_back_after_a_restart(folder):
    envelope = Envelope(
        b"\xc3\xa4@example",
        (Recipient(b"b@example", b"NEVER", b"rfc822;b@example"), Recipient(b"c@example")),
        Origin(1000, 77),
        True,
        b"HDRS",
        b"id+2B",
    )

    async def submit(store, found):
        assert found == []
        stored = await store.submit(envelope, b"Subject: x\n\ntext\n")
        assert not stored.again and stored.envelope == envelope and stored.size == 17
        assert len(stored.id.key) == 24
        assert store.load(stored.id.number) == stored
        return stored

    async def again(store, found):
        stored = store.load(found[0][0])
        return found, stored, content(store, stored.id.number)

    stored = used(folder, submit)
    found, back, body = used(folder, again)
    assert found == [(stored.id.number, 0)]
    assert back.again and (back.id, back.birth, back.envelope) == (stored.id, stored.birth, envelope)
    assert body == b"Subject: x\n\ntext\n"


def test_progress_counts_attempts_and_keeps_the_last_report(folder):
    two = Envelope(b"a@example", (Recipient(b"b@example"), Recipient(b"c@example")))
    no = b"<b@example>:\nno\n\n"

    async def first(store, _):
        number = (await store.submit(two, b"x\n")).id.number
        both = (Change(0, Outcome.FAILURE, no), Change(1, Outcome.DEFERRAL, b"not now\n"))
        await store.record(number, both, (0, 0), False)
        return store.load(number)

    async def second(store, found):
        number = found[0][0]
        assert store.load(number).progress == before.progress and store.load(number).bounce == no
        await store.record(number, (Change(1, Outcome.DEFERRAL, b"still not\n"),), (0, 9000), False)
        assert await store.settle() == 0
        return store.load(number), content(store, number)

    async def third(store, found):
        return found, store.load(found[0][0])

    before = used(folder, first)
    assert before.progress == (Progress(Outcome.FAILURE, 1, no), Progress(None, 1, b"not now\n"))
    moved, body = used(folder, second)
    found, stored = used(folder, third)
    assert body == b"x\n" and stored.bounce == no and stored.channels == ("remote", "remote")
    assert found == [(stored.id.number, 9000)] and stored.due == (0, 9000)
    assert stored.progress[1] == Progress(None, 2, b"still not\n")
    assert stored.progress[0].outcome is not None
    assert moved.progress == stored.progress == next(read(folder)).progress
    assert moved.id.key == stored.id.key == before.id.key


def test_who_is_done_with_is_not_counted_and_has_no_text_of_an_earlier_attempt(folder):
    many = Envelope(b"a@example", tuple(Recipient(b"%d@other" % at) for at in range(3)))

    async def later(store, found):
        number = (await store.submit(many, b"x\n")).id.number
        await store.record(number, (Change(0, Outcome.SUCCESS, b"ok\n"),), (0, 0), False)
        assert store.totals().recipients == 2
        await store.record(number, (Change(1, Outcome.DEFERRAL, b"not now\n"),), (1, 1), False)
        await store.settle()
        assert store.totals().recipients == 2
        await store.record(number, (Change(1, Outcome.SUCCESS, b"ok\n"),), (1, 1), False, True)
        await store.settle()
        return number

    number = used(folder, later)

    async def again(store, found):
        assert store.totals().recipients == 1
        return [each.text for each in store.load(number).progress]

    assert used(folder, again) == [b"", b"", b""]


def test_an_ended_message_is_gone_its_number_comes_again_and_its_key_never_does(folder):
    async def work(store, found):
        assert found == []
        stored = await store.submit(ONE, b"x\n")
        number = stored.id.number
        await store.record(number, DONE, (0, 0), True)
        for ask in (store.load, store.body, lambda n: store.record(n, DONE, (0, 0), True)):
            with pytest.raises(KeyError):
                ask(number)
        assert list(store.numbers()) == []
        return stored.id

    ids = [used(folder, work) for _ in range(10)]
    assert len({one.number for one in ids}) < 10
    assert len({one.key for one in ids}) == 10


def test_a_number_is_the_inode_of_its_file(folder):
    async def work(store, _):
        small, large = await store.submit(ONE, b"x\n"), store.large()
        await large.write(b"y" * 200_000)
        numbers = [small.id.number, (await store.submit(ONE, large)).id.number]
        assert await store.settle() == 0
        return numbers

    for number in used(folder, work):
        path = os.path.join(folder, b"mess/%d/%d" % (number % 23, number))
        assert os.stat(path).st_ino == number and os.stat(path).st_mode & 0o777 == 0o644


def test_a_bounce_and_the_end_of_its_parent_are_one(folder):
    async def work(store, _):
        parent = (await store.submit(ONE, b"x\n")).id.number
        bounce = await store.submit(
            Envelope(b"", (Recipient(b"a@example"),)), b"sorry\n", Closes(parent, DONE, True)
        )
        assert list(store.numbers()) == [bounce.id.number]
        with pytest.raises(TemporaryFailure):
            await store.submit(ONE, b"twice\n", Closes(parent, DONE, True))
        return bounce.id.number

    async def again(_, found):
        return [number for number, _ in found]

    bounce = used(folder, work)
    assert used(folder, again) == [bounce]


def test_a_bounce_of_mail_in_the_layout_and_the_end_of_its_parent_are_one(folder):
    async def work(store, _):
        parent = (await store.submit(ONE, b"x\n")).id.number
        await store.record(parent, (), (0, 9000), False)
        assert await store.settle() == 0
        bounce = await store.submit(
            Envelope(b"", (Recipient(b"a@example"),)), b"sorry\n", Closes(parent, DONE, True)
        )
        with pytest.raises(KeyError):
            store.load(parent)
        return bounce.id.number

    async def again(_, found):
        return [number for number, _ in found]

    bounce = used(folder, work)
    assert used(folder, again) == [bounce]


def test_a_forward_closes_one_recipient_and_leaves_the_others(folder):
    two = Envelope(b"a@example", (Recipient(b"b@example"), Recipient(b"c@example")))

    async def work(store, _):
        parent = (await store.submit(two, b"x\n")).id.number
        await store.submit(ONE, b"forwarded\n", Closes(parent, DONE, False))
        return parent, store.load(parent).progress

    parent, progress = used(folder, work)
    assert progress == (Progress(Outcome.SUCCESS, 1, b"done\n"), Progress())
    assert [one.progress for one in read(folder) if one.id.number == parent] == [progress]


def test_every_message_of_many_at_once_has_its_own_body(folder):
    async def work(store, _):
        futures = [store.submit(ONE, b"%d\n" % n) for n in range(500)]
        stored = await asyncio.gather(*futures)
        numbers = [one.id.number for one in stored]
        assert sorted(numbers) == sorted(store.numbers()) and len(set(numbers)) == 500
        assert [content(store, n) for n in numbers] == [b"%d\n" % n for n in range(500)]

    used(folder, work)


def test_fresh_bodies_are_kept_in_memory_only_up_to_the_budget_and_are_all_readable(folder):
    async def work(store, _):
        bodies = [bytes([65 + n]) * 600 for n in range(10)]
        numbers = [(await store.submit(ONE, body)).id.number for body in bodies]
        assert [content(store, number) for number in numbers] == bodies

    used(folder, work, limits=Limits(memory=2000))


def test_a_body_beyond_what_a_record_may_hold_is_refused_not_truncated(folder):
    async def work(store, _):
        with pytest.raises(PermanentFailure, match="streamed"):
            await store.submit(ONE, bytes(17 * 1024 * 1024))

    used(folder, work)


# --- segments -------------------------------------------------------------------------------


def test_segments_roll_and_the_oldest_go_when_all_in_them_has_ended(folder):
    async def work(store, _):
        kept = (await store.submit(ONE, b"kept\n")).id.number
        for _ in range(40):
            number = (await store.submit(ONE, b"x" * 900)).id.number
            store.record(number, DONE, (0, 0), True)
        assert len(segments(folder)) > 5, "the kept message pins its segment and all that came after"
        await store.record(kept, DONE, (0, 0), True)
        for _ in range(8):
            number = (await store.submit(ONE, b"x" * 900)).id.number
            await store.record(number, DONE, (0, 0), True)
        assert len(segments(folder)) <= 3

    used(folder, work, limits=Limits(segment=4000))


def test_an_idle_queue_does_not_grow_with_restarts(folder):
    async def nothing(store, found):
        return found

    for _ in range(6):
        assert used(folder, nothing) == []
    assert len(segments(folder)) <= 2
    assert sum(os.path.getsize(os.path.join(folder, b"journal", name)) for name in segments(folder)) < 1000


# --- large bodies -----------------------------------------------------------------------------


def bodies(folder):
    """Files in `mess/` and `pool/` that hold something."""
    found = []
    for kind in (b"mess", b"pool"):
        for above, _, names in os.walk(os.path.join(folder, kind)):
            found += [name for name in names if os.path.getsize(os.path.join(above, name))]
    return found


def test_a_large_body_is_streamed_kept_over_a_restart_and_removed_at_the_end(folder):
    chunks = [bytes([n]) * 50_000 for n in range(20)]

    async def submit(store, _):
        body = store.large()
        for chunk in chunks[:5]:
            await body.write(chunk)
        for chunk in chunks[5:]:
            body.write(chunk)
        stored = await store.submit(ONE, body)
        assert stored.size == 1_000_000
        return stored.id.number

    async def again(store, found):
        assert [number for number, _ in found] == [number]
        body = store.body(number)
        assert body.data is None and body.size == 1_000_000
        for _ in range(2):
            assert b"".join(body.chunks()) == b"".join(chunks)
        await store.record(number, DONE, (0, 0), True)
        await store.settle()

    number = used(folder, submit)
    assert bodies(folder) == [b"%d" % number]
    assert b"".join(read_body(folder, number).chunks()) == b"".join(chunks)
    used(folder, again)
    assert bodies(folder) == []


def test_a_large_body_moves_to_the_layout_and_is_read_from_there(folder):
    async def submit(store, _):
        body = store.large()
        await body.write(b"large\n" * 50_000)
        number = (await store.submit(ONE, body)).id.number
        await store.record(number, (), (0, 9000), False)
        assert await store.settle() == 0
        return number, content(store, number)

    async def again(store, found):
        assert found == [(number, 9000)] and store.load(number).size == 300_000
        read_now = content(store, number)
        await store.record(number, DONE, (0, 0), True)
        await store.settle()
        return read_now

    number, body = used(folder, submit)
    assert body == b"large\n" * 50_000 == used(folder, again)
    assert bodies(folder) == []


def test_a_large_body_given_up_leaves_nothing(folder):
    async def work(store, _):
        body = store.large()
        body.abort()
        other = store.large()
        await other.write(b"x" * 200_000)
        other.abort()
        other.abort()
        with pytest.raises(TemporaryFailure):
            await other.write(b"more")
        with pytest.raises(TemporaryFailure):
            await store.submit(ONE, other)

    used(folder, work)
    assert bodies(folder) == []


def test_what_no_message_claims_is_emptied_at_the_next_start(folder):
    async def nothing(store, found):
        return found

    used(folder, nothing)
    name = os.listdir(os.path.join(folder, b"pool"))[0]
    with open(os.path.join(folder, b"pool", name), "wb") as file:
        file.write(b"half of a body")
    assert used(folder, nothing) == []
    assert bodies(folder) == []


# --- a kill -------------------------------------------------------------------------------------

THIRDS = {str(n) for n in range(0, 100_000, 3)}
"""Of which the end is asked for."""

CHILD = """
import asyncio, sys
from openqmail.core.queue import Change, LocalStore
from openqmail.core.values import Envelope, Outcome, Recipient
from openqmail.core.world import PosixDisk, SystemClock
done = (Change(0, Outcome.SUCCESS, b""),)
route = lambda address: ("remote", address)
async def main():
    store = LocalStore(PosixDisk(), SystemClock(), sys.argv[1].encode(), print, route=route)
    store.open()
    async def client(name):
        for n in range(100000):
            sender = b"%s-%d-%d" % (sys.argv[2].encode(), name, n)
            stored = await store.submit(Envelope(sender, (Recipient(b"b@example"),)), sender * 100)
            print("+", sender.decode(), flush=True)
            if n % 3 == 0:
                await store.record(stored.id.number, done, (0, 0), True)
                print("-", sender.decode(), flush=True)
            elif n % 3 == 1:
                await store.record(stored.id.number, (), (0, 9000), False)
    await asyncio.gather(*(client(name) for name in range(8)))
asyncio.run(main())
"""


def test_what_a_killed_process_acknowledged_is_there(folder):
    accepted, ended, ending = set(), set(), set()
    for run, kill_after in enumerate((40, 600, 7)):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, os.fsdecode(folder), str(run)], stdout=subprocess.PIPE, text=True
        )
        for count, line in enumerate(child.stdout):
            if count == kill_after:
                child.send_signal(signal.SIGKILL)
            if line.endswith("\n"):
                kind, sender = line.split()
                (accepted if kind == "+" else ended).add(sender.encode())
                if sender.split("-")[2] in THIRDS:
                    ending.add(sender.encode())
        child.wait()
        child.stdout.close()

    async def look(store, found):
        seen = [(store.load(number).envelope.sender, content(store, number)) for number, _ in found]
        assert all(body == sender * 100 for sender, body in seen)
        return [sender for sender, _ in seen]

    seen = used(folder, look)
    assert len(seen) == len(set(seen))
    assert len(accepted) > 200 and ended
    assert accepted - ending <= set(seen)
    assert not ended & set(seen)
