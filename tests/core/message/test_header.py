"""What the scan of a header sees, and that it never looks into the body."""

from hypothesis import given, settings
from hypothesis import strategies as st

from openqmail.core.message import has_line, header_end, hops


def test_header_ends_at_the_first_empty_line() -> None:
    assert header_end(b"A: b\nC: d\n\nbody\n\n") == 10
    assert header_end(b"\nbody\n") == 0
    assert header_end(b"A: b\n") == 5
    assert header_end(b"") == 0


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
