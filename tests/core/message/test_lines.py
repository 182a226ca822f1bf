"""A message's lines between wire and storage: any chunking, nothing lost, nothing mended."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqmail.core.message.lines import DataDecoder, DataEncoder, Fitness, Violation, unfit, wire_form
from openqmail.core.values import PermanentFailure

PIECES = st.sampled_from(
    [b"\r", b"\n", b"\r\n", b".", b"..", b"\0", b"a", b"bc", b"\r\n.\r\n", b"x" * 997, b"\xe9"]
)
JUNK = st.lists(PIECES, max_size=30).map(b"".join)
LINES = st.lists(
    st.sampled_from([b"", b".", b"..", b".a", b"a.", b"text", b"\xe9\xff", b"y" * 998]), max_size=20
)
CUTS = st.lists(st.integers(0, 3000), max_size=12)


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *[c for c in cuts if c < len(data)]})
    return [data[a:b] for a, b in pairwise(places)]


def decode(chunks: list[bytes]) -> tuple[bytes, DataDecoder]:
    decoder = DataDecoder()
    return b"".join([decoder.feed(chunk) for chunk in chunks]), decoder


def encode(chunks: list[bytes]) -> bytes:
    encoder = DataEncoder()
    return b"".join([encoder.feed(chunk) for chunk in chunks]) + encoder.finish()


def test_a_message_is_stored_with_line_feeds_and_what_follows_is_given_back() -> None:
    stored, decoder = decode([b"Subject: t\r\n\r\n..dot\r\n.\r\nQUIT\r\n"])
    assert stored == b"Subject: t\n\n.dot\n"
    assert decoder.ended and decoder.rest == b"QUIT\r\n" and decoder.violation is None
    assert decoder.size == len(b"Subject: t\r\n\r\n.dot\r\n")


def test_a_message_may_be_empty() -> None:
    stored, decoder = decode([b".", b"\r", b"\n"])
    assert (stored, decoder.ended, decoder.size) == (b"", True, 0)


def test_the_first_line_may_be_a_stuffed_dot() -> None:
    assert decode([b"..\r\n.\r\n"])[0] == b".\n"


@pytest.mark.parametrize(
    ("wire", "violation"),
    [
        (b"a\rb\r\n.\r\n", Violation.BARE_CR),
        (b"\r\r\n.\r\n", Violation.BARE_CR),
        (b"a\nb\r\n.\r\n", Violation.BARE_LF),
        (b"\n.\r\n", Violation.BARE_LF),
        (b"a\0b\r\n.\r\n", Violation.NUL),
        (b"\0\n\r\n.\r\n", Violation.NUL),
        (b"a\n\0\r\n.\r\n", Violation.BARE_LF),
        (b"x" * 999 + b"\r\n.\r\n", Violation.LONG_LINE),
        (b"x" * 999 + b"\r\nb\nc\r\n.\r\n", Violation.BARE_LF),
        (b"." + b"x" * 998 + b"\r\n.\r\n", None),
        (b"x" * 998 + b"\r\n.\r\n", None),
        (b".." + b"x" * 997 + b"\r\n.\r\n", None),
    ],
)
def test_violations_are_named(wire: bytes, violation: Violation | None) -> None:
    for step in (1, 2, 3, 7, 10_000):
        _, decoder = decode([wire[i : i + step] for i in range(0, len(wire), step)])
        assert decoder.violation is violation


@given(JUNK, CUTS)
@settings(max_examples=200)
def test_chunks_may_end_anywhere(wire: bytes, cuts: list[int]) -> None:
    whole, one = decode([wire])
    pieces, many = decode(cut(wire, cuts))
    assert (one.violation, one.ended, one.rest) == (many.violation, many.ended, many.rest)
    if not one.broken:
        assert (whole, one.size) == (pieces, many.size)


@given(LINES, CUTS, CUTS)
@settings(max_examples=200)
def test_what_is_encoded_is_decoded_to_the_same(
    lines: list[bytes], cuts: list[int], others: list[int]
) -> None:
    stored = b"".join([line + b"\n" for line in lines])
    wire = encode(cut(stored, cuts))
    assert b"\r" not in wire.replace(b"\r\n", b"") and b"\n" not in wire.replace(b"\r\n", b"")
    back, decoder = decode(cut(wire + b"NEXT", others))
    assert back == stored and decoder.ended and decoder.rest == b"NEXT" and decoder.violation is None


def test_a_message_without_final_newline_gets_one() -> None:
    assert encode([b"a"]) == b"a\r\n.\r\n"
    assert encode([b"."]) == b"..\r\n.\r\n"
    assert encode([]) == b".\r\n"
    assert encode([b"a\n", b"", b"."]) == b"a\r\n..\r\n.\r\n"
    assert encode([b"a", b".b\n"]) == b"a.b\r\n.\r\n"


@pytest.mark.parametrize("chunk", [b"a\rb", b"a\r\n", b"\r"])
def test_a_carriage_return_never_goes_out(chunk: bytes) -> None:
    with pytest.raises(PermanentFailure, match="carriage return"):
        DataEncoder().feed(chunk)


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"a\rb\n", "carriage return"),
        (b"a\0b\n", "NUL"),
        (b"\n" + b"x" * 999, "998"),
        (b"a\r\nb", "carriage return"),
    ],
)
def test_what_smtp_cannot_carry_is_said(body: bytes, word: str) -> None:
    reason = unfit(body)
    assert reason is not None and word in reason
    fitness = Fitness()
    assert [fitness.feed(body[i : i + 1]) for i in range(len(body))][-1] is not None


def test_what_smtp_can_carry_is_fit() -> None:
    assert unfit(b"x" * 998 + b"\n" + b"\xe9" * 998) is None
    fitness = Fitness()
    for _ in range(400):
        fitness.feed(b"12345\n")
    assert fitness.reason is None and not fitness.eight_bit
    fitness.feed(b"\xe9\n")
    assert fitness.eight_bit


BODIES = st.lists(
    st.sampled_from([b"\n", b".", b"\n.", b"text", b"x" * 997, b"xx", b"\xe9", b"\r", b"\0"]), max_size=20
).map(b"".join)


@given(BODIES)
@settings(max_examples=200)
def test_a_whole_body_is_judged_and_written_as_its_pieces_are(body: bytes) -> None:
    pieces = [body[at : at + 7] for at in range(0, len(body), 7)]
    fitness = Fitness()
    for piece in pieces:
        fitness.feed(piece)
    assert (unfit(body) is None) == (fitness.reason is None)
    if fitness.reason is None:
        assert wire_form(body) == (encode(pieces), len(body) + body.count(b"\n"))
