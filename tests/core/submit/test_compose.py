"""The header of a new message: as notqmail made it, where we do not depart from it on purpose."""

import time
from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.utils import parseaddr

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqmail.core.message.fields import name_of
from openqmail.core.message.origination import Stamp, fields, header_size
from openqmail.core.submit.addresses import AddressError, Defaults
from openqmail.core.submit.compose import (
    Author,
    Composed,
    HeaderError,
    compose,
    resolved,
)

DEFAULTS = Defaults(b"dh.example.test", b"example.test", b"plus.test")
STAMP = Stamp(time.gmtime(1_795_544_575), b"000123.77.openqmail", b"id.example.test")
ALICE = Author(b"alice@dh.example.test", b"Alice Adams")
DATE = b"Date: 24 Nov 2026 18:22:55 -0000\n"
ID = b"Message-ID: <20261124182255.000123.77.openqmail@id.example.test>\n"
FROM = b'From: "Alice Adams" <alice@dh.example.test>\n'
NOT_SHOWN = b"Cc: recipient list not shown: ;\n"


def made(header: bytes, author: Author = ALICE, named: bool = True) -> Composed:
    assert header_size(header, True) == len(header)
    return compose(fields(header), author, DEFAULTS, STAMP, named)


def test_what_is_missing_is_put_in() -> None:
    assert made(b"").header == DATE + ID + FROM + NOT_SHOWN
    assert made(b"To: b@x.test\nSubject: s\n").header == DATE + ID + FROM + b"To: b@x.test\nSubject: s\n"
    whole = b"DATE: d\nmessage-id: <i@x.test>\nfrom: a@x.test\ncc: b@x.test\n"
    assert made(whole).header == whole


def test_what_is_there_stays_as_its_author_wrote_it() -> None:
    written = b'To : "B, b" <b@x.test> (c),\n\tlist:d@x.test ,  "e f"@x.test;\nX-Odd:  two  blanks \n'
    assert made(written).header.endswith(written)
    assert made(written).recipients == [b"b@x.test", b"d@x.test", b"e f@x.test"]


def test_incomplete_addresses_are_completed_where_they_stand() -> None:
    composed = made(b"To: bob (B), Ann <ann@host>,\n x@h+ , <@r.test:y@z.test>\nFrom: joe\nReply-To: <>\n")
    assert composed.header.endswith(
        b"To: bob@dh.example.test (B), Ann <ann@host.example.test>,\n x@h.plus.test , <y@z.test>\n"
        b"From: joe@dh.example.test\nReply-To: <>\n"
    )
    assert composed.recipients == [
        b"bob@dh.example.test", b"ann@host.example.test", b"x@h.plus.test", b"y@z.test",
    ]  # fmt: skip


def test_blind_copies_leave_no_trace() -> None:
    composed = made(b"To: a@x.test\nBcc: b@x.test,\n c@x.test\nBCC : d@x.test\nSubject: s\n")
    assert composed.recipients == [b"a@x.test", b"b@x.test", b"c@x.test", b"d@x.test"]
    assert composed.header == DATE + ID + FROM + b"To: a@x.test\nSubject: s\n"
    assert b"b@x.test" not in made(b"Bcc: b@x.test (open\n", named=False).header


def test_recipients_come_from_the_header_only_when_asked_for() -> None:
    assert made(b"To: a@x.test\nBcc: b@x.test\n", named=False).recipients == []


def test_the_same_recipient_gets_one_copy() -> None:
    assert made(b"To: a@x.test, b@x.test\nCc: a@x.test\n").recipients == [b"a@x.test", b"b@x.test"]


def test_a_resent_message_goes_to_its_new_recipients_and_keeps_its_old_fields() -> None:
    old = b"From: a@x.test\nTo: b@x.test\n"
    composed = made(old + b"Resent-To: c@y.test\nResent-Bcc: d@y.test\n")
    assert composed.recipients == [b"c@y.test", b"d@y.test"]
    assert composed.header == (
        b"Resent-" + DATE + b"Resent-" + ID + b"Resent-" + FROM + old + b"Resent-To: c@y.test\n"
    )
    assert b"Resent-Cc: recipient list not shown: ;\n" in made(old + b"Resent-Bcc: d@y.test\n").header


def test_return_path_names_the_sender_and_is_taken_out() -> None:
    for value, sender in ((b"<r@x.test>", b"r@x.test"), (b"<>", b""), (b"bob", b"bob@dh.example.test")):
        composed = made(b"Return-Path: %b\nTo: b@x.test\n" % value)
        assert composed.return_path == sender
        assert b"Return-Path" not in composed.header
    assert made(b"Return-Path: <r@x.test\n").return_path is None
    assert made(b"To: b@x.test\n").return_path is None
    assert b"Content-Length" not in made(b"Content-Length: 5\n").header


@pytest.mark.parametrize("field", [b"To: a@x.test (open", b"Cc: <", b"Bcc: a b@x.test c@@", b"To: <>"])
def test_recipients_that_cannot_be_read_are_named(field: bytes) -> None:
    with pytest.raises(HeaderError, match=f"the field {field[:2].decode()}"):
        made(field + b"\n")
    assert made(field + b"\n", named=False).recipients == []


def test_a_sender_field_that_cannot_be_read_stays() -> None:
    assert b"\nFrom: a@x.test (open\n" in made(b"From: a@x.test (open\nTo: b@x.test\n").header


@pytest.mark.parametrize(
    ("message", "header"),
    [
        (b"To: a\n\nbody\n", b"To: a\n"),
        (b"To: a\r\n\r\nbody\r\n", b"To: a\r\n"),
        (b"To: a\nno field at all\n\n", b"To: a\n"),
        (b"To: a\n b\n\tc\n\n", b"To: a\n b\n\tc\n"),
        (b" begins folded\n\n", b""),
        (b"\nbody: is not a field\n", b""),
        (b"From joe Mon Jan 1 10:00:00\nTo: a\n\n", b"From joe Mon Jan 1 10:00:00\nTo: a\n"),
        (b"From : joe\n\n", b"From : joe\n"),
        (b"To: a", b"To: a"),
        (b"", b""),
    ],
)
def test_where_a_header_ends(message: bytes, header: bytes) -> None:
    assert header_size(message, True) == len(header)


@pytest.mark.parametrize(
    ("line", "whole"),
    [
        (b"N" * 998 + b" " * 998 + b": x\n", True),
        (b"N" * 999 + b": x\n", False),
        (b"N" + b" " * 999 + b": x\n", False),
    ],
)
def test_what_is_no_field_to_hooks_is_none_to_who_completes_a_header(line: bytes, whole: bool) -> None:
    assert (name_of(line) is not None) is whole
    message = b"To: a\n" + line + b"X-Secret: b\n\nhello\n"
    assert header_size(message, True) == (message.index(b"\n\n") + 1 if whole else 6)


def test_a_header_that_is_not_all_there_is_waited_for() -> None:
    assert header_size(b"To: a\nSubject: s", False) is None
    assert header_size(b"To: a\n", False) is None
    assert header_size(b"To: a\n\n", False) == 6


def test_an_mbox_line_becomes_a_field() -> None:
    assert (
        b"\nMBOX-Line: From joe Mon Jan 1\nTo: a@x.test\n"
        in made(b"From joe Mon Jan 1\nTo: a@x.test\n").header
    )


@pytest.mark.parametrize(
    ("author", "field"),
    [
        (Author(b"a@x.test", b""), b"a@x.test"),
        (Author(b"a@x.test", b'Quo"te\\ (A), B\n'), b'"Quo\\"te\\\\ (A), B " <a@x.test>'),
        (Author(b"a b@x.test", b"A"), b'"A" <"a b"@x.test>'),
        (Author(b"a..b@x.test", b""), b'"a..b"@x.test'),
        (Author(b"a@x.test", "Jörg".encode()), b"=?utf-8?B?SsO2cmc=?= <a@x.test>"),
    ],
)
def test_who_writes(author: Author, field: bytes) -> None:
    assert b"\nFrom: " + field + b"\n" in made(b"", author).header


@given(st.text(min_size=1, max_size=120))
def test_any_name_is_read_back_as_it_was(name: str) -> None:
    """By the parser of another house; what cannot be printed is a blank."""
    header = made(b"", Author(b"a@x.test", name.encode("utf-8", "replace"))).header
    assert all(len(line) <= 998 for line in header.split(b"\n"))
    field = message_from_bytes(header + b"\n", policy=policy.compat32)["From"]
    shown = "".join(one if one.isprintable() else " " for one in name.encode("utf-8", "replace").decode())
    phrase, address = parseaddr(field.replace("\n", ""))
    assert address == "a@x.test"
    if name.isascii():
        assert phrase == shown
    else:
        assert str(make_header(decode_header(field.rpartition(" <")[0]))) == shown


@given(st.lists(st.text("abT:o@<>,;. \t\r", max_size=20).map(str.encode), max_size=6), st.booleans())
def test_any_header_comes_out_parseable_or_is_refused(lines: list[bytes], named: bool) -> None:
    message = b"\n".join(lines) + b"\n"
    size = header_size(message, True)
    assert size is not None
    try:
        composed = compose(fields(message[:size]), ALICE, DEFAULTS, STAMP, named)
    except HeaderError:
        assert named
        return
    assert header_size(composed.header + b"\n", True) == len(composed.header)
    again = compose(fields(composed.header), ALICE, DEFAULTS, STAMP, False)
    assert again.header == composed.header, "nothing is missing any more"


def test_a_recipient_of_the_command_line() -> None:
    assert resolved(b"bob", DEFAULTS) == b"bob@dh.example.test"
    assert resolved(b"<bob@x.test>", DEFAULTS) == b"bob@x.test"
    assert resolved(b"<>", DEFAULTS) == resolved(b"", DEFAULTS) == b""
    with pytest.raises(AddressError):
        resolved(b"bob@", DEFAULTS)
