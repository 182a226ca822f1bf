"""A message read through edits is the message edited; small and large ones are alike."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqmail.core.hooks import Edits, MessageBody
from openqmail.core.hooks.body import wire, without
from openqmail.core.message.fields import FIELD, Field, HeaderReader
from openqmail.core.values import BytesBody, Envelope, Recipient


class OnDisk:
    """A body that is read in pieces of `size`, as one that is not in memory."""

    data = None

    def __init__(self, whole: bytes, size: int = 7) -> None:
        self.whole, self.size, self._piece = whole, len(whole), size

    def chunks(self) -> Iterator[bytes]:
        for at in range(0, self.size, self._piece):
            yield self.whole[at : at + self._piece]


fields = st.builds(
    lambda name, value, more: name + b":" + value + b"\n" + b"".join(b" " + one + b"\n" for one in more),
    st.sampled_from([b"From", b"Subject", b"X-A", b"x-a", b"Received"]),
    st.binary(max_size=12).map(lambda one: one.translate(None, b"\n\r\0")),
    st.lists(
        st.binary(min_size=1, max_size=5).map(lambda one: one.translate(None, b"\n\r\0") + b"x"), max_size=2
    ),
)
bodies = st.lists(st.sampled_from([b"a\n", b"\n", b".\n", b"long line\n", b"b: c\n"]), max_size=5).map(
    b"".join
)
pieces = st.integers(min_value=1, max_value=20)


@given(st.lists(fields, max_size=6), bodies, pieces)
def test_a_message_in_pieces_has_the_fields_and_the_body_of_the_whole(
    header: list[bytes], body: bytes, size: int
) -> None:
    message = b"".join(header) + b"\n" + body
    reader, found, rest = HeaderReader(), [], b""
    for chunk in [*OnDisk(message, size).chunks(), None]:
        some, more = reader.finish() if chunk is None else reader.feed(chunk)
        found += some
        rest += more
    assert [field.raw for field in found] == header
    assert rest == body


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
@pytest.mark.parametrize(
    ("message", "names", "body"),
    [
        (b"", [], b""),
        (b"\n", [], b""),
        (b"\nhello\n", [], b"hello\n"),
        (b"no field\nhello\n", [], b"no field\nhello\n"),
        (b"A: b\nno field\n\nhello\n", [b"A"], b"no field\n\nhello\n"),
        (b"A: b\n", [b"A"], b""),
        (b"A: b\n c\n", [b"A"], b""),
        (b"no line end", [], b"no line end"),
    ],
)
def test_headers_that_are_none(message: bytes, names: list[bytes], body: bytes, size: int) -> None:
    reader, found, rest = HeaderReader(), [], b""
    for chunk in OnDisk(message, size).chunks():
        some, more = reader.feed(chunk)
        found += some
        rest += more
    some, more = reader.finish()
    assert [field.name for field in found + some] == names
    assert rest + more == body


def test_a_field_without_end_takes_no_memory() -> None:
    reader = HeaderReader()
    found: list[Field] = []
    for chunk in [b"Long: ", *[b"x" * 10_000 + b"\n "] * 100, b"\nNext: 1\n\nbody\n"]:
        some, rest = reader.feed(chunk)
        found += some
        assert len(reader._field) <= FIELD + 2_000
    assert [(one.name, len(one.value)) for one in found] == [(b"Long", FIELD), (b"Next", 2)]
    assert rest == b"body\n"


@given(
    st.lists(fields, max_size=5),
    bodies,
    st.lists(st.sampled_from(["prepend", "remove", "removeone", "removeall", "body"]), max_size=5),
    pieces,
)
def test_edits_of_a_large_message_are_those_of_a_small_one(
    header: list[bytes], body: bytes, wishes: list[str], size: int
) -> None:
    message = b"".join(header) + b"\n" + body
    small: Any = BytesBody(message)
    large: Any = OnDisk(message, size)
    for at, wish in enumerate(wishes):
        for which in ("small", "large"):
            edits = Edits()
            if wish == "prepend":
                edits.prepend(b"New-%d: x\r\n y" % at)
            elif wish == "remove":
                edits.remove(b"X-A")
            elif wish == "removeone":
                edits.remove(b"received", -1)
            elif wish == "removeall":
                for name in (b"From", b"Subject", b"X-A", b"Received"):
                    edits.remove(name)
            else:
                edits.replace_body(lambda at=at: [b"other\r", b"\nbody", b" %d" % at])
            if which == "small":
                small = edits.body(small)
            else:
                large = edits.body(large)
    assert large.data is None
    assert all(large.chunks()), "an empty piece would be its end"
    assert b"".join(large.chunks()) == b"".join(large.chunks()) == small.data
    assert large.size == small.size
    assert MessageBody(large).header() == MessageBody(small).header()


@given(st.lists(fields, max_size=5), bodies, pieces)
def test_the_form_on_the_wire_of_a_large_message_is_that_of_a_small_one(
    header: list[bytes], body: bytes, size: int
) -> None:
    message = b"".join(header) + b"\n" + body + b"end"
    made = wire(BytesBody(message)).data
    assert made == (message + b"\n").replace(b"\n", b"\r\n")
    assert b"".join(wire(OnDisk(message, size)).chunks()) == made


def test_what_is_removed_and_what_stays() -> None:
    edits = Edits()
    edits.remove(b"x-a", 1)
    edits.remove(b"x-a", 7)
    edits.remove(b"SUBJECT")
    edits.prepend(b"Second: 2")
    edits.prepend(b"First: 1\r\n")
    message = b"X-A: 1\nSubject: a\n b\nX-A: 2\nX-A: 3\n\nSubject: stays\n"
    assert edits.body(BytesBody(message)).data == b"First: 1\nSecond: 2\nX-A: 1\nX-A: 3\n\nSubject: stays\n"


def test_a_large_message_that_loses_all_its_fields_keeps_its_body() -> None:
    edits = Edits()
    edits.remove(b"X-A")
    pieces = list(edits.body(OnDisk(b"X-A: 1\n\nhello\n")).chunks())
    assert b"".join(pieces) == b"\nhello\n" and all(pieces)


@pytest.mark.parametrize("first", [b" ; dkim=pass", b"\tx", b"From x", b": x", b"hello"])
@pytest.mark.parametrize("body", [BytesBody, OnDisk])
def test_a_first_line_that_is_no_field_does_not_go_on_where_one_on_top_ends(first: bytes, body: Any) -> None:
    message = first + b"\nX-Virus: yes\n\nhello\n"
    edits = Edits()
    edits.prepend(b"Authentication-Results: a; dkim=none")
    edited = b"".join(edits.body(body(message)).chunks())
    assert edited == b"Authentication-Results: a; dkim=none\n\n" + message
    edits.remove(b"X-Virus")
    assert b"".join(edits.body(body(message)).chunks()) == edited
    edits.replace_body(b"new")
    edited = b"".join(edits.body(body(message)).chunks())
    assert edited == b"Authentication-Results: a; dkim=none\n\nnew\n"


def test_a_message_that_is_all_header_gets_a_body() -> None:
    edits = Edits()
    edits.replace_body(b"hello")
    assert edits.body(BytesBody(b"A: b\n")).data == b"A: b\n\nhello\n"


@pytest.mark.parametrize(
    "field", [b"", b"no field", b"A: b\n\n", b"A: b\nC: d\n", b"A: \0", b"A: b\rc", b" A: b"]
)
def test_what_is_no_field_is_not_put_on_top(field: bytes) -> None:
    with pytest.raises(ValueError, match="not one header field"):
        Edits().prepend(field)


def test_an_envelope_is_edited_and_keeps_what_was_asked_for() -> None:
    before = Envelope(b"s@a", (Recipient(b"r@a"),), smtputf8=True, ret=b"HDRS", envid=b"1")
    edits = Edits()
    assert edits.envelope(before) is before
    edits.sender = b""
    edits.recipients = [Recipient(b"x@b", b"NEVER")]
    after = edits.envelope(before)
    assert after == Envelope(b"", (Recipient(b"x@b", b"NEVER"),), smtputf8=True, ret=b"HDRS", envid=b"1")
    with pytest.raises(ValueError, match="address"):
        edits.recipients = [Recipient(b"a\nb")]
    with pytest.raises(ValueError, match="address"):
        edits.sender = b"a" * 1001


@pytest.mark.parametrize("misspelt", ["recipient", "envelope_sender"])
def test_a_misspelt_wish_is_an_error_and_not_lost(misspelt: str) -> None:
    with pytest.raises(AttributeError):
        setattr(Edits(), misspelt, b"x@y.example")


def test_without_its_first_octets() -> None:
    assert b"".join(without(OnDisk(b"0123456789"), 8).chunks()) == b"89"
    assert without(OnDisk(b"0123456789"), 8).size == 2
    assert without(BytesBody(b"0123"), 1).data == b"123"
