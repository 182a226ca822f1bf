"""Replies on the wire (RFC 5321 section 4.2)."""

from hypothesis import given
from hypothesis import strategies as st

from openqmail.core.values import Reply


def test_one_line_with_an_enhanced_code() -> None:
    assert Reply(250, b"2.1.0", (b"ok",)).encode() == b"250 2.1.0 ok\r\n"


def test_every_line_but_the_last_has_a_dash() -> None:
    assert Reply(250, b"", (b"me", b"SIZE", b"HELP")).encode() == b"250-me\r\n250-SIZE\r\n250 HELP\r\n"


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=4), st.sampled_from([b"", b"5.1.1"]))
def test_no_text_can_end_a_line_early(lines: list[bytes], enhanced: bytes) -> None:
    wire = Reply(550, enhanced, tuple(lines)).encode()
    assert wire.count(b"\n") == wire.count(b"\r") == wire.count(b"\r\n") == len(lines)
    assert all(0x20 <= code < 0x7F or code in b"\r\n" for code in wire)
    assert all(line.startswith(b"550") for line in wire.split(b"\r\n")[:-1])


def test_only_5xx_is_permanent() -> None:
    assert Reply(550).permanent
    assert not Reply(250).permanent and not Reply(451).permanent
