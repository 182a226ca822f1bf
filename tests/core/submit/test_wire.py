"""The request on run/submit: what goes in comes out, however it is cut; what is no request is named."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqmail.core.submit import wire
from openqmail.core.submit.wire import (
    AddressRefused,
    AnswerDecoder,
    Malformed,
    MessageTooBig,
    RequestDecoder,
    TooManyRecipients,
    WireError,
    netstring,
)

ADDRESS = st.binary(max_size=40).map(lambda text: text.replace(b"\0", b"").replace(b"\n", b""))


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *[place % (len(data) + 1) for place in places]})
    return [data[start:end] for start, end in pairwise(edges)]


def decode(pieces: list[bytes], recipients: int = 100, size: int = 0) -> tuple[list[object], bytes]:
    """The events but chunks, and what the chunks hold."""
    decoder = RequestDecoder(recipients, size)
    events: list[object] = []
    message = b""
    for piece in pieces:
        decoder.receive(piece)
        while (event := decoder.next_event()) is not None:
            if isinstance(event, wire.Chunk):
                message += event.data
            else:
                events.append(event)
    return events, message


def told(events: list[object]) -> list[tuple[object, ...]]:
    return [
        (type(event), *[getattr(event, name) for name in type(event).__slots__])  # type: ignore[attr-defined]
        for event in events
    ]


@given(
    ADDRESS,
    st.lists(ADDRESS.filter(bool), min_size=1, max_size=5),
    st.binary(max_size=300),
    st.lists(st.integers(0, 10_000), max_size=20),
)
def test_a_request_comes_out_as_it_went_in(
    sender: bytes, recipients: list[bytes], message: bytes, places: list[int]
) -> None:
    request = wire.request_head(sender, recipients, len(message)) + message + b","
    events, found = decode(cut(request, places))
    assert told(events) == [
        (wire.Sender, sender),
        *[(wire.Recipient, one) for one in recipients],
        (wire.Message, len(message)),
        (wire.End,),
    ]
    assert found == message


@given(st.lists(st.binary(max_size=30), max_size=10))
def test_garbage_is_refused_by_name_or_waited_for(pieces: list[bytes]) -> None:
    try:
        decode(pieces)
    except WireError as error:
        assert str(error)


@given(st.binary(max_size=60), st.lists(st.integers(0, 100), max_size=5))
def test_what_is_refused_does_not_depend_on_how_it_is_cut(garbage: bytes, places: list[int]) -> None:
    request = b"1:1,5:a@b.c," + garbage

    def outcome(pieces: list[bytes]) -> object:
        try:
            events, message = decode(pieces)
            return told(events), message
        except WireError as error:
            return str(error)

    assert outcome([request]) == outcome(cut(request, places)) == outcome([bytes((one,)) for one in request])


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (b"GET / HTTP/1.1\r\n", Malformed),
        (b"1:2,", Malformed),
        (b"11:openqmail 1,", Malformed),
        (b"01:1,", Malformed),
        (b":", Malformed),
        (b"1:1;", Malformed),
        (b"9999999999999999", Malformed),
        (b"1:1,901:", AddressRefused),
        (b"1:1,3:a\nb,", AddressRefused),
        (b"1:1,0:,3:a\0b,", AddressRefused),
        (b"1:1,0:,0:,", Malformed),
        (b"1:1,0:,1:a,1:b,1:c,", TooManyRecipients),
        (b"1:1,0:,1:a,0:,101:", MessageTooBig),
        (b"1:1,0:,1:a,0:,3:abc;", Malformed),
    ],
)
def test_what_is_no_request_is_named(request_: bytes, error: type[WireError]) -> None:
    with pytest.raises(WireError) as raised:
        decode([request_], recipients=2, size=100)
    assert type(raised.value) is error


def test_nothing_more_comes_after_a_violation() -> None:
    decoder = RequestDecoder(1, 0)
    decoder.receive(b"1:2,")
    with pytest.raises(Malformed):
        decoder.next_event()
    decoder.receive(b"1:1,0:,1:a,0:,0:,")
    assert decoder.next_event() is None


def test_a_message_is_given_as_it_comes_and_not_held() -> None:
    decoder = RequestDecoder(1, 0)
    decoder.receive(wire.request_head(b"", [b"a"], 10**9))
    while decoder.next_event() is not None:
        pass
    for _ in range(10):
        decoder.receive(b"x" * 1000)
        event = decoder.next_event()
        assert isinstance(event, wire.Chunk)
        assert len(event.data) == 1000
        assert decoder.next_event() is None


@given(
    st.sampled_from([b"K", b"Z", b"D"]), st.binary(max_size=100), st.lists(st.integers(0, 200), max_size=5)
)
def test_an_answer_comes_out_as_it_went_in(letter: bytes, text: bytes, places: list[int]) -> None:
    decoder = AnswerDecoder()
    *before, last = cut(wire.answer(letter, text), places)
    assert [decoder.receive(piece) for piece in before] == [None] * len(before)
    assert decoder.receive(last) == letter + text


@pytest.mark.parametrize("bad", [b"0:,", b"1:X,", b"250 ok\r\n", b"99999:", b":", b"3:Kab;"])
def test_what_is_no_answer_is_named(bad: bytes) -> None:
    with pytest.raises(Malformed):
        AnswerDecoder().receive(bad)


def test_an_answer_is_never_too_long_to_be_understood() -> None:
    assert AnswerDecoder().receive(wire.answer(b"D", b"x" * 10_000)) == b"D" + b"x" * 4095
    assert netstring(b"") == b"0:,"
