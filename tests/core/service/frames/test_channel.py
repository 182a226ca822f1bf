"""A channel over a real socketpair: order, descriptors, back-pressure, and every kind of end."""

import array
import asyncio
import os
import socket

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st

from openqmail.core.service.frames.channel import FULL, Channel
from openqmail.core.service.frames.codec import DESCRIPTORS, PREFACE, Encoder, FrameError
from openqmail.core.service.loops import new_loop


class Word(msgspec.Struct, frozen=True, array_like=True, tag=1):
    number: int
    data: bytes = b""


class Side:
    """A channel, what it has heard, and how it ended."""

    def __init__(self, connection, **options):
        self.heard = []
        self.descriptors = []
        self.ended = asyncio.get_running_loop().create_future()
        self.event = asyncio.Event()
        self.channel = Channel(connection, Word, self._received, self._lost, **options)

    def _received(self, message, descriptors):
        self.heard.append(message)
        self.descriptors += descriptors
        self.event.set()

    def _lost(self, error):
        self.ended.set_result(error)

    async def until(self, count):
        async with asyncio.timeout(10):
            while len(self.heard) < count:
                self.event.clear()
                await self.event.wait()

    async def end(self):
        return await asyncio.wait_for(self.ended, 10)


def story(work, make=asyncio.new_event_loop):
    """Run it, on a loop that is made so, and see that no descriptor is left."""
    make().close()  # what a first loop opens for the whole process
    before = open_descriptors()
    with asyncio.Runner(loop_factory=make) as runner:
        runner.run(work)
    assert open_descriptors() == before


def open_descriptors():
    return {(name, where) for name in os.listdir("/proc/self/fd") if (where := link(name))}


def link(name):
    try:
        where = os.readlink(f"/proc/self/fd/{name}")
    except OSError:
        return None
    return None if where.endswith("/fd") else where


def pair(**options):
    ours, theirs = socket.socketpair()
    return Side(ours, **options), Side(theirs, **options)


def pipe():
    reading, writing = os.pipe()
    os.close(writing)
    return reading


@given(st.lists(st.binary(max_size=100_000), max_size=20), st.booleans())
@given_settings(max_examples=25)
def test_all_that_is_said_is_heard_once_and_in_order_also_at_the_end(bodies, descriptors):
    async def work():
        one, other = pair(descriptors=descriptors)
        said = [Word(number, body) for number, body in enumerate(bodies)]
        for word in said:
            one.channel.send(word)
        one.channel.close()
        await other.end()
        assert other.heard == said
        assert not one.ended.done(), "who closes is not told"

    asyncio.run(work())


def test_what_a_turn_says_is_one_write():
    async def work():
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        one = Side(ours)
        for number in range(50):
            one.channel.send(Word(number))
        await asyncio.sleep(0)
        encoder = Encoder()
        assert theirs.recv(1 << 16) == PREFACE + b"".join(encoder.frame(Word(number)) for number in range(50))
        one.channel.abort()
        theirs.close()

    story(work())


def test_descriptors_come_with_their_frame_between_others():
    async def work():
        one, other = pair()
        sent = [pipe() for _ in range(3)]
        ids = [os.fstat(number).st_ino for number in sent]
        one.channel.send(Word(0, b"x" * 70_000))
        one.channel.send(Word(1), sent[:1])
        one.channel.send(Word(2))
        one.channel.send(Word(3), sent[1:])
        await other.until(4)
        assert [word.number for word in other.heard] == [0, 1, 2, 3]
        assert [os.fstat(number).st_ino for number in other.descriptors] == ids
        for number in other.descriptors:
            assert not os.get_inheritable(number)
            os.close(number)
        for side in (one, other):
            side.channel.abort()

    story(work())


@pytest.mark.parametrize("how", ["abort", "closed by the other", "said after the end"])
def test_descriptors_that_were_not_sent_are_closed(how):
    async def work():
        one, other = pair()
        other.channel.pause()
        if how == "closed by the other":
            other.channel.abort()
        if how == "said after the end":
            one.channel.abort()
        else:
            one.channel.send(Word(0, bytes(4 << 20)))
        one.channel.send(Word(1), [pipe()])
        if how == "abort":
            await asyncio.sleep(0)
            one.channel.abort()
        elif how == "closed by the other":
            await one.end()
        other.channel.abort()

    story(work())


def test_descriptors_of_a_frame_that_never_becomes_whole_are_closed():
    async def work():
        ours, theirs = socket.socketpair()
        side = Side(ours)
        wire = PREFACE + Encoder().frame(Word(1, b"abc"), 2)
        given_away = [pipe(), pipe()]
        theirs.sendmsg([wire[:-1]], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", given_away))])
        for number in given_away:
            os.close(number)
        theirs.close()
        assert "midst of a frame" in str(await side.end())
        assert side.heard == []

    story(work())


@pytest.mark.parametrize("taken", [True, False])
def test_descriptors_without_a_frame_end_the_connection_or_are_never_taken(taken):
    async def work():
        ours, theirs = socket.socketpair()
        side = Side(ours, descriptors=taken)
        many = [pipe() for _ in range(DESCRIPTORS + 1)]
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", many))]
        theirs.sendmsg([PREFACE + Encoder().frame(Word(1))], rights)
        for number in many:
            os.close(number)
        await side.until(1)
        if taken:
            assert "belong to no frame" in str(await side.end())
        theirs.close()
        side.channel.abort()

    story(work())


@pytest.mark.parametrize("taken", [True, False])
def test_a_frame_whose_descriptors_are_missing_ends_the_connection(taken):
    async def work():
        ours, theirs = socket.socketpair()
        side = Side(ours, descriptors=taken)
        theirs.send(PREFACE + Encoder().frame(Word(1), 1))
        assert "missing" in str(await side.end())
        theirs.close()

    story(work())


@given(st.binary(min_size=1, max_size=200))
@given_settings(max_examples=50)
def test_garbage_ends_its_own_connection_and_says_why(garbage):
    async def work():
        ours, theirs = socket.socketpair()
        side = Side(ours)
        theirs.send(PREFACE + b"\xff" + garbage)
        theirs.close()
        assert isinstance(await side.end(), FrameError)
        assert side.channel.closed

    asyncio.run(work())


def test_a_side_that_does_not_read_is_full_and_all_arrives_when_it_does():
    async def work():
        one, other = pair()
        other.channel.pause()
        for number in range(40):
            one.channel.send(Word(number, bytes(100_000)))
        for _ in range(5):
            await asyncio.sleep(0)
        assert one.channel.full and FULL < 4_000_000
        assert other.heard == []
        other.channel.resume()
        await other.until(40)
        assert [word.number for word in other.heard] == list(range(40))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not one.channel.full
        for side in (one, other):
            side.channel.abort()

    story(work())


def test_last_words_are_heard_although_the_speaker_is_gone_and_we_were_speaking_too():
    async def work():
        ours, theirs = socket.socketpair()
        side = Side(ours)
        theirs.send(PREFACE + Encoder().frame(Word(1)) + Encoder().frame(Word(2)))
        theirs.close()  # with our preface unread
        side.channel.send(Word(0, bytes(1000)))
        await side.end()
        assert side.heard == [Word(1), Word(2)]

    story(work())


@pytest.mark.parametrize("make", [asyncio.new_event_loop, new_loop])
@pytest.mark.parametrize("said", [PREFACE, PREFACE + Encoder().frame(Word(1)) * 40_000])
def test_an_end_with_something_of_ours_unread_is_heard_behind_the_last_words(make, said):
    """The kernel then reports an error, of which uvloop tells once, whatever is left to be read."""

    async def work():
        near, far = socket.socketpair()
        far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        side = Side(near)
        await asyncio.sleep(0)  # our preface lies there
        far.setblocking(False)
        assert far.send(said) == len(said)
        far.close()
        assert isinstance(await side.end(), ConnectionResetError | None)
        assert len(side.heard) == (len(said) - len(PREFACE)) // len(Encoder().frame(Word(1)))

    story(work(), make)


def test_a_close_with_much_to_say_says_it_all_first():
    async def work():
        one, other = pair()
        other.channel.pause()
        one.channel.send(Word(1, bytes(3 << 20)))
        one.channel.close()
        one.channel.close()
        assert not one.channel.closed
        other.channel.resume()
        assert await other.end() is None
        assert [len(word.data) for word in other.heard] == [3 << 20]
        assert one.channel.closed

    story(work())


def test_a_message_that_makes_no_sense_to_us_ends_the_connection():
    async def work():
        def refuse(message, descriptors):
            raise FrameError("senseless")

        ours, theirs = socket.socketpair()
        ended = asyncio.get_running_loop().create_future()
        channel = Channel(ours, Word, refuse, ended.set_result)
        theirs.send(PREFACE + Encoder().frame(Word(1)) * 3)
        assert str(await asyncio.wait_for(ended, 10)) == "senseless"
        assert channel.closed
        theirs.close()

    story(work())


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, new_loop])
def test_what_is_said_now_leaves_before_the_turn_ends_and_once(loop):
    async def work():
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        side = Side(ours)
        encoder = Encoder()
        for number in range(3):
            side.channel.send(Word(number))
        side.channel.say_now(100)  # fewer wait
        with pytest.raises(BlockingIOError):
            theirs.recv(1)
        side.channel.say_now(3)
        assert theirs.recv(1000) == PREFACE + b"".join(encoder.frame(Word(number)) for number in range(3))
        side.channel.send(Word(3))
        side.channel.close()
        assert theirs.recv(1000) == encoder.frame(Word(3))
        assert theirs.recv(1000) == b""
        theirs.close()

    story(work(), loop)
