"""The reader of replies: one line or many, whole or in pieces, it reads the same."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqmail.core.smtp.replies import MAX_LINE, MalformedReply, ReplyReader
from openqmail.core.values import Reply

TEXTS = st.one_of(
    st.sampled_from(
        [b"", b"2.1.0", b"2.1.0 ", b"2.1.0 ok", b"5.1.1 no", b"3.0.0 go", b"2.1.0  x", b"2.1 x", b"-"]
    ),
    st.binary(max_size=20).filter(lambda text: b"\r" not in text and b"\n" not in text),
)


def read(data: bytes) -> list[Reply]:
    reader = ReplyReader()
    assert reader.feed(data)
    found = []
    while (reply := reader.next()) is not None:
        found.append(reply)
    return found


@given(st.integers(200, 599), TEXTS)
@settings(max_examples=200)
def test_a_line_alone_reads_as_it_does_among_others(code: int, text: bytes) -> None:
    (alone,) = read(b"%d %s\r\n" % (code, text))
    (twice,) = read(b"%d-%s\r\n%d %s\r\n" % (code, text, code, text))
    assert (alone.code, alone.enhanced, alone.lines * 2) == (twice.code, twice.enhanced, twice.lines)


def test_the_longest_line() -> None:
    assert len(read(b"250 " + b"x" * (MAX_LINE - 6) + b"\r\n")) == 1
    with pytest.raises(MalformedReply, match="2048"):
        read(b"250 " + b"x" * (MAX_LINE - 5) + b"\r\n")


@pytest.mark.parametrize(
    ("data", "count", "expected"),
    [
        (b"250 ok\r\n251 ok\r\n354 go\r\n", 3, True),
        (b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n", 4, True),
        (b"250 ok\r\n250 ok\r\n354 go\r\n", 4, False),
        (b"250 ok\r\n250 ok\r\n354 go\r\n250 more\r\n", 3, False),
        (b"250 ok\r\n250 ok\r\n354 go\r\n25", 3, False),
        (b"250 ok\r\n550 no\r\n354 go\r\n", 3, False),
        (b"250 ok\r\n250 ok\r\n250 go\r\n", 3, False),
        (b"250-ok\r\n250 ok\r\n354 go\r\n", 3, False),
        (b"250 ok\n250 ok\r\n354 go\r\n", 3, False),
        (b"250 o\rk\r\n250 ok\r\n354 go\r\n", 3, False),
        (b"250 ok\r\n250 " + b"x" * MAX_LINE + b"\r\n354 go\r\n", 3, False),
    ],
)
def test_a_go_ahead_is_taken_only_when_it_is_all(data: bytes, count: int, expected: bool) -> None:
    reader = ReplyReader()
    reader.feed(data)
    assert reader.go_ahead(count) is expected
    assert reader.empty is expected
