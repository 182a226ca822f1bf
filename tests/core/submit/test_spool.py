"""A message from standard input: text with CRLF becomes text, anything else stays, however large."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqmail.core.submit import spool as module
from openqmail.core.submit.spool import SMALL, Spool, pieces


def content(spool: Spool, skip: int = 0) -> bytes:
    return b"".join(spool.chunks(skip))


@given(st.lists(st.text("ab\r\n", max_size=12).map(str.encode), max_size=6), st.booleans(), st.integers(0, 5))
def test_what_is_stored(parts: list[bytes], tiny: bool, skip: int) -> None:
    whole = b"".join(parts)
    mixed = b"\r" in whole.replace(b"\r\n", b"") or b"\n" in whole.replace(b"\r\n", b"")
    stored = whole if mixed else whole.replace(b"\r\n", b"\n")
    if stored and not stored.endswith(b"\n"):
        stored += b"\n"
    with pytest.MonkeyPatch.context() as patch:
        if tiny:  # so that it goes through a file
            patch.setattr(module, "SMALL", 3)
            patch.setattr(module, "CHUNK", 2)
        spool = Spool(parts)
        assert content(spool, min(skip, len(spool.start))) == stored[min(skip, len(spool.start)) :]
        assert content(spool) == stored
        assert spool.size == len(stored)
        assert stored.startswith(spool.start)
        assert spool.whole == (spool.start == stored)


def test_a_large_message_is_not_held_in_memory() -> None:
    line = b"x" * 98 + b"\r\n"
    spool = Spool([line * 1000] * 30)
    assert spool.size == 30 * 1000 * 99
    assert len(spool.start) <= SMALL + 100_000
    assert all(len(chunk) <= module.CHUNK for chunk in spool.chunks(17))
    assert content(spool, 17) == (b"x" * 98 + b"\n")[17:] + (b"x" * 98 + b"\n") * 29999


@pytest.mark.parametrize(
    ("given_", "dot", "taken"),
    [
        (b"a\n.\nb\n", True, b"a\n"),
        (b"a\r\n.\r\nb\r\n", True, b"a\n"),
        (b".\n", True, b""),
        (b"a\n.", True, b"a\n"),
        (b"a\n.b\n..\n", True, b"a\n.b\n..\n"),
        (b"a\n.\nb\n", False, b"a\n.\nb\n"),
    ],
)
def test_a_lone_dot_ends_a_message_unless_told_otherwise(given_: bytes, dot: bool, taken: bytes) -> None:
    assert content(Spool(pieces(io.BytesIO(given_), dot))) == taken


def test_a_dot_in_a_very_long_line_ends_nothing() -> None:
    long = b"x" * module.CHUNK + b".\nend\n"
    assert content(Spool(pieces(io.BytesIO(long), True))) == long
