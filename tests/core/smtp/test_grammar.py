"""Addresses between SMTP's form and the plain one."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqmail.core.smtp.grammar import AddressError, forward_path, quote, reverse_path, wire_domain

LONG_LABEL = b"a" * 63
GOOD = [
    (b"<a@b>", b"a@b"),
    (b"<Joe@X.TEST>", b"Joe@X.TEST"),
    (b"<a.b+c=d/e@mail-1.x.test>", b"a.b+c=d/e@mail-1.x.test"),
    (b"<!#$%&'*+-/=?^_`{|}~@x>", b"!#$%&'*+-/=?^_`{|}~@x"),
    (b'<"a b"@x.test>', b"a b@x.test"),
    (b'<"a\\"b\\\\"@x.test>', b'a"b\\@x.test'),
    (b'<"x@other.test"@x.test>', b"x@other.test@x.test"),
    (b'<""@x.test>', b"@x.test"),
    (b'<"<a>"@x.test>', b"<a>@x.test"),
    (b'<"\\a"@x.test>', b"a@x.test"),
    (b"<@a,@b.c:s@x.test>", b"s@x.test"),
    (b"<@[10.0.0.1]:s@x.test>", b"s@x.test"),
    (b"<s@[10.0.0.1]>", b"s@[10.0.0.1]"),
    (b"<s@[IPv6:2001:db8::1]>", b"s@[IPv6:2001:db8::1]"),
    (b"<s@[ipv6:::]>", b"s@[ipv6:::]"),
    (b"<x@1.2>", b"x@1.2"),
    (b"<" + b"l" * 65 + b"@x.test>", b"l" * 65 + b"@x.test"),
    (b"<x@" + LONG_LABEL + b".test>", b"x@" + LONG_LABEL + b".test"),
    ("<jürgen@x.test>".encode(), "jürgen@x.test".encode()),
    ("<a@bücher.example>".encode(), "a@bücher.example".encode()),
    ('<"ü ö"@x>'.encode(), "ü ö@x".encode()),
]
BAD = [
    b"",
    b"a@b",
    b"<a@b",
    b"a@b>",
    b"<<a@b>>",
    b"< a@b>",
    b"<a@b >",
    b"<a>",
    b"<@b>",
    b"<a@>",
    b"<a@b.>",
    b"<a@.b>",
    b"<a@b..c>",
    b"<a@-b>",
    b"<a@b->",
    b"<a@b_c>",
    b"<.a@b>",
    b"<a.@b>",
    b"<a..b@c>",
    b"<a b@c>",
    b"<a\\ b@c>",
    b"<a@b@c>",
    b'<"a@b>',
    b'<"a"b@c>',
    b'<a"b"@c>',
    b'<"a\tb"@c>',
    b'<"a\\\t"@c>',
    b"<a(comment)@b>",
    b"<a@[10.0.0]>",
    b"<a@[10.0.0.256]>",
    b"<a@[10.0.0.1>",
    b"<a@[10.0.0.1]x>",
    b"<a@[]>",
    b"<a@[IPv6:1::2::3]>",
    b"<a@[IPv6:fe80::1%eth0]>",
    b"<a@[2001:db8::1]>",
    b"<a@[x-tag:abc]>",
    b"<@a,b:c@d>",
    b"<@a,:c@d>",
    b"<@a@b:c@d>",
    b"<@a:>",
    b"<x@" + b"a" * 64 + b".test>",
    b"<x@" + b"a." * 127 + b"ab>",
    b"<" + b"l" * 895 + b"@x.de>",
    b"<\xe9@x.test>",
    b"<a@\xff.test>",
    "<a@-ü.test>".encode(),
]


@pytest.mark.parametrize(("path", "address"), GOOD)
def test_a_path_of_the_grammar_is_read(path: bytes, address: bytes) -> None:
    assert forward_path(path + b" X=1") == (address, b" X=1")
    assert reverse_path(path) == (address, b"")


@pytest.mark.parametrize("path", BAD)
def test_a_path_beside_the_grammar_is_refused(path: bytes) -> None:
    for read in (forward_path, reverse_path):
        with pytest.raises(AddressError):
            address, rest = read(path)
            if rest:  # what follows is no parameter either
                raise AddressError(str((address, rest)))


def test_the_null_path_is_for_senders_and_postmaster_for_recipients() -> None:
    assert reverse_path(b"<>") == (b"", b"")
    assert forward_path(b"<PostMaster>") == (b"PostMaster", b"")
    with pytest.raises(AddressError):
        forward_path(b"<>")
    with pytest.raises(AddressError):
        reverse_path(b"<postmaster>")


def test_addresses_as_long_as_qmail_takes_them() -> None:
    longest = b"l" * 892 + b"@x.test"
    assert forward_path(b"<" + longest + b">")[0] == longest
    with pytest.raises(AddressError, match="too long"):
        forward_path(b"<l" + longest + b">")


@pytest.mark.parametrize(("path", "address"), GOOD)
def test_quoting_leads_back(path: bytes, address: bytes) -> None:
    assert forward_path(b"<" + quote(address) + b">") == (address, b"")


@given(st.text(st.characters(codec="utf-8", exclude_characters="\x7f", min_codepoint=32), max_size=40))
@settings(max_examples=150)
def test_any_local_part_without_control_characters_survives_quoting(local: str) -> None:
    address = local.encode() + b"@x.test"
    assert forward_path(b"<" + quote(address) + b">") == (address, b"")


@pytest.mark.parametrize(
    "address",
    [
        b"a\nb@x.test",
        b"a\rb@x",
        b"a\0b@x",
        b"a\tb@x",
        b"a@x\r\nRCPT",
        b"a@x y",
        b"joe",
        b"a@",
        b"a@[1]",
        b"\xe9@x",
    ],
)
def test_what_smtp_cannot_say_is_not_said(address: bytes) -> None:
    with pytest.raises(AddressError):
        quote(address)


def test_quoting_is_qmails_where_smtp_can_carry_the_address(vectors: Path) -> None:
    folder = vectors / "notqmail" / "remote"
    compared = 0
    for case in json.loads((folder / "index.json").read_text()):
        name = case["case"]
        if not name.startswith("address-"):
            continue
        sent = (folder / case["client_sent"]).read_bytes()
        for address, verb in ((case["sender"], b"MAIL FROM:"), (case["recipients"][0], b"RCPT TO:")):
            try:
                ours = quote(address.encode())
            except AddressError:
                assert name in {
                    "address-newline",
                    "address-noat",
                    "address-tab",
                    "address-verp",
                    "address-8bit",
                } or (len(address) > 899)
                continue
            found = re.search(re.escape(verb) + rb"<(.*)>\r\n", sent)
            assert found is not None
            if address.isascii():  # qmail quotes what is beyond ASCII; RFC 6531 has it as atoms
                assert ours == found.group(1)
                compared += 1
    assert compared > 15


@pytest.mark.parametrize(
    ("domain", "wire"),
    [
        ("example.test", b"example.test"),
        ("bücher.example", b"xn--bcher-kva.example"),
        ("straße.example", b"xn--strae-oqa.example"),
        ("BÜCHER.example", b"xn--bcher-kva.example"),
    ],
)
def test_domains_go_to_the_wire_as_a_labels(domain: str, wire: bytes) -> None:
    assert wire_domain(domain.encode()) == wire


@pytest.mark.parametrize(
    "domain", [b"\xff.test", "ü..test".encode(), "\u2028.test".encode(), "ü".encode() * 2000]
)
def test_what_is_no_domain_name_is_refused(domain: bytes) -> None:
    with pytest.raises(AddressError):
        wire_domain(domain)


@given(st.binary(max_size=60))
@settings(max_examples=200)
def test_junk_raises_nothing_else(junk: bytes) -> None:
    for text in (junk, b"<" + junk + b">", b"<a@" + junk + b">"):
        try:
            address, _ = forward_path(text)
        except AddressError:
            continue
        assert b"\r" not in address and b"\n" not in address and b"\0" not in address
