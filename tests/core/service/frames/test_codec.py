"""Frames as bytes: whole however they are cut, and an end to whoever does not keep to the form."""

import struct
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqmail.core.service.frames.codec import (
    DESCRIPTORS,
    LARGEST,
    PREFACE,
    VERSION,
    Decoder,
    Encoder,
    FrameError,
)


class Word(msgspec.Struct, frozen=True, array_like=True, tag=1):
    id: int
    data: bytes


class Other(msgspec.Struct, frozen=True, array_like=True, tag=2):
    names: tuple[bytes, ...]


WORDS = st.builds(Word, st.integers(0, 2**63), st.binary(max_size=300))
MESSAGES = st.lists(
    st.one_of(WORDS, st.builds(Other, st.lists(st.binary(max_size=9), max_size=5).map(tuple)))
)


def decoder(**options):
    return Decoder(Word | Other, **options)


def all_of(made):
    found = []
    while (one := made.next()) is not None:
        found.append(one)
    return found


def frame(payload, count=0, length=None):
    return struct.pack("!IB", len(payload) if length is None else length, count) + payload


@given(MESSAGES, st.lists(st.integers(0, 4000), max_size=30), st.data())
def test_messages_arrive_whole_and_in_order_however_the_bytes_are_cut(messages, cuts, data):
    encoder = Encoder()
    counts = [data.draw(st.integers(0, DESCRIPTORS)) for _ in messages]
    wire = PREFACE + b"".join(encoder.frame(*one) for one in zip(messages, counts, strict=True))
    made, found, at = decoder(), [], 0
    for cut in [*sorted(min(cut, len(wire)) for cut in cuts), len(wire)]:
        made.feed(wire[at:cut])
        found += all_of(made)
        at = cut
    assert found == list(zip(messages, counts, strict=True))
    assert made.pending == 0


@given(st.binary(max_size=400), st.booleans())
def test_garbage_gives_messages_or_a_frame_error_and_nothing_else(garbage, greeted):
    made = decoder(greeted=greeted)
    made.feed(garbage)
    with suppress(FrameError):
        assert all(isinstance(message, Word | Other) for message, _ in all_of(made))


@given(st.binary(max_size=60))
def test_a_payload_that_is_no_message_is_a_frame_error(payload):
    made = decoder(greeted=True)
    made.feed(frame(payload))
    try:
        expected = msgspec.msgpack.decode(payload, type=Word | Other)
    except (msgspec.DecodeError, UnicodeDecodeError):
        with pytest.raises(FrameError, match="not understood"):
            made.next()
    else:
        assert made.next() == (expected, 0)


def test_another_version_is_refused_before_anything_is_understood():
    made = decoder()
    made.feed(b"OQ" + struct.pack("!H", 7) + Encoder().frame(Word(1, b"")))
    with pytest.raises(FrameError, match=rf"version 7 .* version {VERSION}"):
        made.next()


@pytest.mark.parametrize("beginning", [b"G", b"GET / HTTP/1.0\r\n", b"\x16\x03\x01", b"OX"])
def test_what_speaks_something_else_is_refused_at_its_first_bytes(beginning):
    made = decoder()
    made.feed(beginning)
    with pytest.raises(FrameError, match="does not begin"):
        made.next()


@pytest.mark.parametrize("length, count", [(LARGEST + 1, 0), (2**32 - 1, 0), (3, DESCRIPTORS + 1)])
def test_too_much_is_refused_by_its_head_alone(length, count):
    made = decoder(greeted=True)
    made.feed(frame(b"", count, length))
    with pytest.raises(FrameError, match="too large"):
        made.next()


def test_a_smaller_bound_holds_where_it_is_set():
    made = decoder(greeted=True, largest=100)
    made.feed(Encoder().frame(Word(1, b"x" * 50)))
    assert made.next() == (Word(1, b"x" * 50), 0)
    made.feed(Encoder().frame(Word(1, b"x" * 100))[:5])
    with pytest.raises(FrameError, match="too large"):
        made.next()


def test_what_is_too_large_is_not_sent():
    with pytest.raises(FrameError, match="larger than a frame may be"):
        Encoder().frame(Word(1, bytes(LARGEST)))


@pytest.mark.parametrize("head", [b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\x91" * 200])
def test_lengths_inside_a_payload_are_not_believed(head):
    made = decoder(greeted=True)
    made.feed(frame(b"\x92\x02" + head))
    with pytest.raises(FrameError, match="not understood"):
        made.next()
