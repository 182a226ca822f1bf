"""Addresses that were silent: the file is qmail's to the byte, and they are left alone and forgotten."""

import asyncio
import contextlib
import fcntl
import os
import socket
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqmail.core.commands.tcpto import clear
from openqmail.core.remote import Timeouts, tcpto
from openqmail.core.values import Outcome

QUEUES = Path(os.environ.get("OPENQMAIL_VECTORS") or Path(__file__).parents[4] / "shared" / "vectors")
RECORDED = QUEUES / "notqmail" / "remote" / "tcpto-after-timeouts.xxd.txt"
A, B, SIX = "192.0.2.1", "192.0.2.2", "2001:db8::1"
NOT_CONNECTED = b"Sorry, I wasn't able to establish an SMTP connection. (#4.4.1)\n"
SHORTEST, LONGEST = 3840, 5824


class Clock:
    def __init__(self, now=1_800_000_000):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def queue(tmp_path):
    (tmp_path / "lock").mkdir()
    return tmp_path


@pytest.fixture
def file(queue):
    return queue / "lock" / "tcpto"


@pytest.fixture
def timeouts(queue, clock):
    made = Timeouts(tcpto.open_file(str(queue)), clock)
    yield made
    made.close()


def twice(timeouts, clock, address):
    timeouts.silent(address)
    clock.now += 120
    timeouts.silent(address)


@pytest.mark.parametrize("address", [A, SIX])
def test_an_address_rests_after_two_silences_and_not_after_one(timeouts, clock, address):
    timeouts.silent(address)
    assert not timeouts.resting(address)
    clock.now += 120
    timeouts.silent(address)
    assert timeouts.resting(address)
    assert not timeouts.resting(B)


@pytest.mark.parametrize("address", [A, SIX])
def test_two_silences_within_two_minutes_are_one(timeouts, clock, address):
    timeouts.silent(address)
    clock.now += 119
    timeouts.silent(address)
    assert not timeouts.resting(address)


@pytest.mark.parametrize("address", [A, SIX])
def test_one_that_answers_is_forgotten(timeouts, clock, address):
    twice(timeouts, clock, address)
    timeouts.answered(address)
    assert not timeouts.resting(address)
    clock.now += 120
    timeouts.silent(address)
    assert not timeouts.resting(address)


def test_the_rest_is_as_long_as_qmails_and_ends_once(queue):
    lengths = set()
    for number in range(30):
        clock = Clock(1_800_000_000 + number)
        timeouts = Timeouts(None, clock)
        twice(timeouts, clock, A)
        start = clock.now
        clock.now = start + SHORTEST - 1
        assert timeouts.resting(A)
        clock.now = start + LONGEST + 64
        assert not timeouts.resting(A)
        # Between the two there is one moment at which it ends, however often one asks.
        states = []
        for second in range(SHORTEST, LONGEST + 65, 16):
            clock.now = start + second
            states.append(timeouts.resting(A))
        assert states == sorted(states, reverse=True)
        lengths.add(sum(states))
    assert len(lengths) > 5, "all come back at once"


def test_a_clock_that_was_set_back_keeps_nothing_at_rest(timeouts, clock):
    twice(timeouts, clock, A)
    clock.now -= 100_000
    assert not timeouts.resting(A)


def test_the_file_is_what_notqmail_writes(timeouts, file, clock):
    if not RECORDED.exists():
        pytest.skip("the recordings are not beside the checkout")
    theirs = b"".join(
        bytes.fromhex(line[10:50].replace(" ", "")) for line in RECORDED.read_text().splitlines()
    )
    when = int.from_bytes(theirs[8:12], "little")
    clock.now = when
    timeouts.silent("127.0.0.9")
    ours = file.read_bytes()
    assert ours[: len(theirs)] == theirs
    assert len(ours) >= 1024 and not any(ours[len(theirs) :])


def test_it_takes_over_what_qmail_wrote_and_qmail_sees_what_it_writes(timeouts, file, clock):
    file.write_bytes(struct.pack("<4sB3xL4x", bytes([192, 0, 2, 1]), 2, clock.now - 60) + bytes(1008))
    assert timeouts.resting(A)
    file.write_bytes(bytes(1024))  # what qmail-tcpok does
    assert not timeouts.resting(A)
    twice(timeouts, clock, B)
    assert file.read_bytes()[:16] == struct.pack("<4sB3xL4x", bytes([192, 0, 2, 2]), 2, clock.now)


def test_the_65th_address_takes_the_place_of_the_least_worth_keeping(timeouts, clock):
    for number in range(64):
        timeouts.silent(f"198.51.100.{number}")
        clock.now += 200
    timeouts.silent("198.51.100.0")  # it is the oldest no longer
    timeouts.silent(A)
    clock.now += 200
    timeouts.silent("198.51.100.0")
    timeouts.silent(A)
    assert timeouts.resting("198.51.100.0") and timeouts.resting(A)
    timeouts.silent("198.51.100.1")
    assert not timeouts.resting("198.51.100.1"), "the oldest was forgotten"


def test_an_address_that_was_silent_often_is_kept_for_the_longer(timeouts, clock):
    """As in qmail each silence counts as much as 1,024 seconds."""
    twice(timeouts, clock, A)
    for number in range(63):
        clock.now += 10
        timeouts.silent(f"198.51.100.{number}")
    clock.now += 10
    timeouts.silent(B)
    assert timeouts.resting(A), "the oldest was forgotten, though it was silent twice"


def test_silences_are_counted_up_to_ten(timeouts, file, clock):
    for _ in range(20):
        timeouts.silent(A)
        timeouts.silent(SIX)
        clock.now += 120
    assert tcpto.silences(str(file.parents[1])) == {
        each: tcpto.Silence(socket.inet_pton(family, each), tcpto.MOST, clock.now - 120)
        for family, each in ((socket.AF_INET, A), (socket.AF_INET6, SIX))
    }


def test_what_was_silent_outlives_the_process_in_both_families(queue, timeouts, clock):
    twice(timeouts, clock, A)
    twice(timeouts, clock, SIX)
    timeouts.close()
    again = Timeouts(tcpto.open_file(str(queue)), clock)
    assert again.resting(A) and again.resting(SIX)
    again.close()


def test_qmails_own_program_leaves_ipv6_alone_and_ours_forgets_it(queue, timeouts, file, clock):
    twice(timeouts, clock, A)
    twice(timeouts, clock, SIX)
    with file.open("r+b") as theirs:
        theirs.write(bytes(1024))
    assert not timeouts.resting(A) and timeouts.resting(SIX)
    (queue / "queue").symlink_to(".")  # so that the queue is in a home
    assert clear(["--home", str(queue)]) == 0
    assert not timeouts.resting(SIX)


def test_a_file_of_qmails_gets_room_for_ipv6_and_keeps_its_records(queue, file, clock):
    record = struct.pack("<4sB3xL4x", bytes([192, 0, 2, 1]), 2, clock.now - 60)
    file.write_bytes(record + bytes(1008))
    file.chmod(0o600)
    timeouts = Timeouts(tcpto.open_file(str(queue)), clock)
    twice(timeouts, clock, SIX)
    assert timeouts.resting(A) and timeouts.resting(SIX)
    assert file.read_bytes()[:1024] == record + bytes(1008)
    assert file.stat().st_mode & 0o777 == 0o600
    timeouts.close()


def test_what_is_given_back_is_not_used_again(queue, clock):
    timeouts = Timeouts(tcpto.open_file(str(queue)), clock)
    timeouts.close()
    timeouts.close()
    for address in (A, SIX):
        twice(timeouts, clock, address)
        assert timeouts.resting(address)
    assert not any((queue / "lock" / "tcpto").read_bytes())


@given(st.lists(st.tuples(st.integers(0, 80), st.booleans(), st.integers(0, 5000)), max_size=200))
def test_the_table_never_grows_and_knows_no_address_twice(told):
    clock = Clock()
    table = tcpto.MemoryTable()
    timeouts = Timeouts(None, clock)
    timeouts._v4 = table
    for number, silent, later in told:
        clock.now += later
        (timeouts.silent if silent else timeouts.answered)(f"10.0.0.{number}")
        records = table.read()
        known = [one.address for one in records if one.address]
        assert len(records) == 64 and len(known) == len(set(known))
        assert all(one.count <= 10 and one.when <= clock.now for one in records)


@given(st.binary(max_size=3200), st.sampled_from([A, B, SIX]))
def test_any_content_of_the_file_is_survived(tmp_path_factory, content, address):
    folder = tmp_path_factory.mktemp("queue")
    (folder / "lock").mkdir()
    (folder / "lock" / "tcpto").write_bytes(content)
    timeouts = Timeouts(tcpto.open_file(str(folder)), Clock())
    timeouts.resting(address)
    timeouts.silent(address)
    timeouts.answered(address)
    assert not timeouts.resting(address)
    assert len((folder / "lock" / "tcpto").read_bytes()) >= 1024
    timeouts.close()


def test_a_missing_file_is_made_with_qmails_mode(queue, file):
    before = os.umask(0o077)
    try:
        descriptor = tcpto.open_file(str(queue))
    finally:
        os.umask(before)
    os.close(descriptor)
    assert file.stat().st_mode & 0o777 == 0o644 and file.read_bytes() == bytes(tcpto.SIZE)


@pytest.mark.parametrize("what", ["link", "folder", "fifo", "nothing around it"])
def test_what_is_no_plain_file_is_not_used_and_memory_serves(queue, file, clock, what):
    other = queue / "other"
    other.write_bytes(b"precious")
    if what == "link":
        file.symlink_to(other)
    elif what == "folder":
        file.mkdir()
    elif what == "fifo":
        os.mkfifo(file)
    else:
        (queue / "lock").rmdir()
    assert tcpto.open_file(str(queue)) is None
    timeouts = Timeouts(None, clock)
    twice(timeouts, clock, A)
    assert timeouts.resting(A)
    assert other.read_bytes() == b"precious"


def test_whoever_holds_the_lock_holds_up_nobody(timeouts, file, clock):
    with file.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        timeouts.silent(A)
    clock.now += 200
    timeouts.silent(A)
    assert not timeouts.resting(A), "one of the two was not counted"


# --- deliveries ---------------------------------------------------------------------------------


def only(results):
    (result,) = results
    return result.outcome, result.text, result.host


def test_a_host_that_does_not_greet_is_left_alone_after_the_second_time(scene, timeouts, clock):
    async def main():
        async with scene.Peer({"": scene.HANG}) as peer:
            given = scene.settings(smtproutes=scene.to(peer), timeoutremote=0.1)
            async with scene.remote(given, timeouts=timeouts) as remote:
                for expected in (1, 2):
                    (result,) = await remote.deliver(scene.job())
                    assert b"connection died" in result.text
                    assert peer.connections == expected
                    clock.now += 200
                assert only(await remote.deliver(scene.job())) == (Outcome.DEFERRAL, NOT_CONNECTED, True)
                assert peer.connections == 2, "it was tried all the same"
                peer.answers[""] = scene.POLITE[""]
                clock.now += LONGEST + 64
                (result,) = await remote.deliver(scene.job())
                assert result.outcome is Outcome.SUCCESS
                clock.now += 200
                timeouts.silent("127.0.0.1")
                assert not timeouts.resting("127.0.0.1"), "it answered, and was not forgotten"

    asyncio.run(asyncio.wait_for(main(), 30))


def test_the_other_host_gets_the_mail_at_once_while_the_first_rests(scene, timeouts, clock):
    async def main():
        async with scene.Peer() as first, scene.Peer(host="127.0.0.2", port=first.port) as second:
            twice(timeouts, clock, "127.0.0.1")
            given = scene.settings(smtproutes=scene.to(first, second))
            async with scene.remote(given, timeouts=timeouts) as remote:
                (result,) = await remote.deliver(scene.job())
            assert result.text.startswith(b"127.0.0.2 accepted")
            assert (first.connections, second.connections) == (0, 1)

    asyncio.run(asyncio.wait_for(main(), 30))


@pytest.mark.parametrize("answer", ["421 busy", "refused"])
def test_an_answer_that_is_no_welcome_is_no_silence(scene, timeouts, clock, answer):
    async def main():
        async with scene.Peer({"": b"421 4.3.2 busy\r\n"}) as peer:
            given = scene.settings(smtproutes=scene.to(peer), timeoutremote=0.5)
            if answer == "refused":
                peer._server.close()
            async with scene.remote(given, timeouts=timeouts) as remote:
                for _ in range(3):
                    await remote.deliver(scene.job())
                    clock.now += 200
                    assert not timeouts.resting("127.0.0.1")

    asyncio.run(asyncio.wait_for(main(), 30))


def test_an_address_that_does_not_connect_is_counted(scene, timeouts, clock):
    """A listener whose queue is full answers nobody."""

    async def main():
        with contextlib.ExitStack() as sockets:
            full = sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
            for _ in range(4):
                waiting = sockets.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(full.getsockname())
            given = scene.settings(
                smtproutes=scene.to(scene.Peer(port=full.getsockname()[1])), timeoutconnect=0.2
            )
            async with scene.remote(given, timeouts=timeouts) as remote:
                for _ in range(2):
                    assert not timeouts.resting("127.0.0.1")
                    assert only(await remote.deliver(scene.job())) == (Outcome.DEFERRAL, NOT_CONNECTED, True)
                    clock.now += 200
                assert timeouts.resting("127.0.0.1")

    asyncio.run(asyncio.wait_for(main(), 30))
