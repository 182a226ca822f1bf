"""A header says the same however it is cut, and nothing of it passes for body."""

import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqmail.core.hooks import MessageBody
from openqmail.core.message import fields as module
from openqmail.core.message.fields import FIELD, Field, HeaderReader
from openqmail.core.message.fresh import READ, PlainHeader
from openqmail.core.values import BytesBody

ALPHABET = [b"A", b"b", b":", b" ", b"\t", b"\n", b"\n", b"\r", b"\0", b"\xff", b"From ", b"B: c\n", b"\n d"]
messages = st.lists(st.sampled_from(ALPHABET), max_size=25).map(b"".join)
long_runs = st.sampled_from([b"x" * 997, b"y" * 998, b"z" * 999, b" " * 998, b" " * 999, b"x" * 1500])
messages_with_long_lines = st.lists(st.sampled_from(ALPHABET) | long_runs, max_size=12).map(b"".join)


def cut(message: bytes, places: Iterable[int]) -> list[bytes]:
    at = sorted({0, len(message), *(place % (len(message) + 1) for place in places)})
    return [message[begin:end] for begin, end in pairwise(at)]


def read(pieces: Iterable[bytes]) -> tuple[list[Field], bytes]:
    reader, found, body = HeaderReader(), list[Field](), b""
    for piece in pieces:
        some, more = reader.feed(piece)
        found += some
        body += more
    some, more = reader.finish()
    return found + some, body + more


def passed_on(pieces: Iterable[bytes]) -> bytes:
    header = PlainHeader(read=True)
    return b"".join([header.feed(piece) for piece in pieces]) + header.end()


@given(messages | messages_with_long_lines, st.lists(st.integers(min_value=0), max_size=12))
def test_however_it_is_cut_a_message_has_the_same_fields_and_body(message: bytes, places: list[int]) -> None:
    assert read(cut(message, places)) == read([message])
    assert passed_on(cut(message, places)) == passed_on([message])


@given(messages)
def test_each_octet_may_come_alone(message: bytes) -> None:
    alone = [message[at : at + 1] for at in range(len(message))]
    assert read(alone) == read([message])
    assert passed_on(alone) == passed_on([message])


@given(messages | messages_with_long_lines)
def test_a_hook_sees_one_header_as_it_comes_and_when_it_is_whole(message: bytes) -> None:
    kept = passed_on([message])
    found, body = read([kept])
    header = MessageBody(BytesBody(kept)).header()
    assert read([header]) == (found, b"")
    assert kept == header + (b"\n" + body if kept != header else b"")


@pytest.mark.parametrize("line", [b"a" * 900, b""])
@pytest.mark.parametrize("places", [[], [70_000], list(range(0, 80_000, 901 + 1))])
def test_what_follows_a_very_long_field_is_still_header(line: bytes, places: list[int]) -> None:
    folded = b"X: a\n" + (b" " + line + b"\n") * (80_000 // (len(line) + 2))
    for at_its_end in (places, [*places, len(folded)]):
        found, body = read(cut(folded + b"Subject: evil\nFrom: b@c\n\nbody\n", at_its_end))
        assert [(one.name, len(one.value)) for one in found] == [(b"X", FIELD), (b"Subject", 5), (b"From", 4)]
        assert body == b"body\n"


def test_what_follows_a_very_long_line_is_still_header() -> None:
    line = b"X: " + b"a" * 200_000 + b"\n"
    for places in ([], [100, 70_000], [len(line) - 1], [len(line)]):
        found, body = read(cut(line + b" b\nSubject: evil\n\nbody\n", places))
        assert [(one.name, len(one.value)) for one in found] == [(b"X", FIELD), (b"Subject", 5)]
        assert body == b"body\n"


class Counted:
    """A pattern, and how many octets it was to look at."""

    octets = 0

    def __init__(self, pattern: "re.Pattern[bytes]") -> None:
        self.pattern = pattern

    def _count(self, text: bytes, at: int) -> None:
        self.octets += len(text) - at

    def search(self, text: bytes, at: int = 0) -> Any:
        self._count(text, at)
        return self.pattern.search(text, at)

    def match(self, text: bytes, at: int = 0) -> Any:
        self._count(text, at)
        return self.pattern.match(text, at)

    def findall(self, text: bytes, at: int = 0) -> Any:
        self._count(text, at)
        return self.pattern.findall(text, at)


@pytest.mark.parametrize("piece", [b" \n", b" x", b"x", b"Y: z\n"])
def test_a_header_in_very_small_pieces_is_read_once(piece: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    patterns = []
    for name in ("_OTHER", "_FOLDED", "_NAME"):
        patterns.append(Counted(getattr(module, name)))
        monkeypatch.setattr(module, name, patterns[-1])
    reader = HeaderReader()
    reader.feed(b"X: a\n" if piece != b"x" else b"X: a")
    pieces = 60_000 // len(piece)
    for _ in range(pieces):
        reader.feed(piece)
    read_again = sum(one.octets for one in patterns) / (pieces * len(piece))
    assert read_again < 10, "each octet is looked at a few times, not once a piece"


def test_of_a_header_that_hooks_cannot_read_whole_nothing_goes_on() -> None:
    line = b"X: " + b"a" * 900 + b"\n"
    header = PlainHeader(read=True)
    kept = sum(len(header.feed(line)) for _ in range(READ // len(line)))
    assert kept == READ // len(line) * len(line) and not header.too_large
    assert header.feed(line) == b"" and header.too_large
    assert header.feed(b"\nbody\n") + header.end() == b""
