"""What the scan of a header sees, and that it never looks into the body."""

from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from openqmail.core.message import beginning, has_line, header_end, hops
from openqmail.core.values import BytesBody


def test_header_ends_at_the_first_empty_line() -> None:
    assert header_end(b"A: b\nC: d\n\nbody\n\n") == 10
    assert header_end(b"\nbody\n") == 0
    assert header_end(b"A: b\n") == 5
    assert header_end(b"") == 0


class Pieces:
    """A body on a disk, which counts what was read of it."""

    data = None

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces
        self.size = sum(map(len, pieces))
        self.read = 0

    def chunks(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self.read += 1
            yield piece


def test_the_beginning_of_a_large_message_has_its_whole_header_and_not_its_whole_body() -> None:
    parted = Pieces(b"A: b\nC: ", b"d\n", b"\nbody", b"more", b"still more")
    assert beginning(parted, 100) == b"A: b\nC: d\n\nbody"
    assert parted.read == 3
    without = Pieces(b"\nbody", b"more")
    assert beginning(without, 100) == b"\nbody"
    assert beginning(Pieces(b"A: b\n", b"C: d"), 100) == b"A: b\nC: d"
    assert beginning(BytesBody(b""), 100) == b""


def test_a_header_without_end_is_read_no_further_than_allowed() -> None:
    endless = Pieces(*[b"A: b\n"] * 100)
    assert beginning(endless, 20) == b"A: b\n" * 5
    assert endless.read == 5


def test_hops_counts_received_and_delivered_to_in_any_case() -> None:
    head = b"Received: x\n by y\nRECEIVED: z\ndelivered-to: a\nX-Received: no\n"
    assert hops(head + b"\nReceived: in the body\n") == 3


def test_hops_does_not_count_longer_names_or_folded_text() -> None:
    assert hops(b"Received-SPF: pass\nSubject: a\n received: b\n") == 0


def test_exact_line_is_found_only_in_the_header() -> None:
    line = b"Delivered-To: a@b\n"
    assert has_line(line + b"\nx\n", line)
    assert has_line(b"A: b\n" + line + b"C: d\n\n", line)
    assert not has_line(b"A: b\n\n" + line, line)
    assert not has_line(b"X-" + line + b"\n", line)
    assert not has_line(b"Delivered-To:  a@b\n", line)
    assert not has_line(b"delivered-to: a@b\n", line)
    assert not has_line(b"Delivered-To: a@b", line)


@settings(max_examples=100)
@given(
    st.lists(st.sampled_from([b"Received: x", b"A: b", b"", b" folded", b"Delivered-To: a"]), max_size=12),
    st.binary(max_size=20),
)
def test_hops_agrees_with_a_reading_line_by_line(lines: list[bytes], rest: bytes) -> None:
    expected = 0
    message = b"".join(line + b"\n" for line in lines)
    for line in lines:
        if not line:
            break
        expected += line.startswith((b"Received:", b"Delivered-To:"))
    if b"" in lines:
        message += rest
    assert hops(message) == expected
