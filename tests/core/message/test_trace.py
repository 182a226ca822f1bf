"""Trace fields are well formed whatever a peer says, and qmail's lines are qmail's."""

import email.utils
import re

from hypothesis import example, given, settings
from hypothesis import strategies as st

from openqmail.core.message.trace import (
    Secured,
    delivered_to,
    qmail_date,
    quote,
    received,
    return_path,
)

NOW = 1795545897.0  # Tue, 24 Nov 2026 18:44:57 +0000


def field(
    helo: bytes = b"client.test", client: str = "192.0.2.1", extended: bool = True, smtputf8: bool = False
) -> bytes:
    return received(
        helo=helo, client=client, by=b"mx.example.test", extended=extended, smtputf8=smtputf8, now=NOW
    )


def test_received_says_who_by_whom_how_and_when() -> None:
    assert field() == (
        b"Received: from client.test ([192.0.2.1])\n"
        b"  by mx.example.test with ESMTP; Tue, 24 Nov 2026 18:44:57 +0000\n"
    )


def test_received_names_the_protocol_of_rfc_3848() -> None:
    assert b" with SMTP; " in field(extended=False)
    assert b" with UTF8SMTP; " in field(smtputf8=True)


def test_received_tags_an_ipv6_literal_and_drops_its_zone() -> None:
    assert b"([IPv6:2001:db8::1])" in field(client="2001:db8::1")
    assert b"([IPv6:fe80::1])" in field(client="fe80::1%eth0")


def test_received_without_a_name_shows_the_address() -> None:
    assert field(helo=b"").startswith(b"Received: from [192.0.2.1] ([192.0.2.1])\n")
    assert field(helo=b"", client="").startswith(b"Received: from unknown\n")


def test_the_date_is_what_the_library_reads_back() -> None:
    date = field().rpartition(b"; ")[2].strip().decode()
    assert email.utils.parsedate_to_datetime(date).timestamp() == NOW


@settings(max_examples=100)
@given(st.binary(max_size=600), st.text(max_size=40))
def test_nothing_from_a_peer_breaks_the_field(helo: bytes, client: str) -> None:
    made = field(helo=helo, client=client)
    first, second, nothing = made.split(b"\n")
    assert nothing == b""
    assert re.fullmatch(rb"Received: from [!-~]+( \(\[[!-~]+\]\))?", first)
    assert second.startswith(b"  by mx.example.test with ESMTP; ")
    assert max(len(first), len(second)) <= 998


@settings(max_examples=200)
@given(st.text(max_size=300), st.builds(Secured, *[st.text(max_size=300)] * 3, st.booleans()))
@example("\N{SNOWMAN}" * 400, Secured(*["\N{SNOWMAN}" * 400] * 3))
def test_neither_a_hosts_name_nor_a_certificate_breaks_the_field(name: str, secured: Secured) -> None:
    made = received(
        helo=b"client.test",
        client="192.0.2.1",
        by=b"mx.example.test",
        extended=True,
        smtputf8=False,
        now=NOW,
        name=name,
        secured=secured,
    )
    *lines, nothing = made.split(b"\n")
    assert nothing == b"" and max(map(len, lines)) <= 998
    assert re.fullmatch(rb"Received: from client\.test \(([!-\x27*-~]+ )?\[192\.0\.2\.1\]\)", lines[0])
    if secured.version:
        by, rest = lines[1:]
        assert re.fullmatch(rb"  by mx\.example\.test with ESMTPSA? tls [!-\x27*-:<-~]*", by)
        assert re.fullmatch(rb"  \([ -\x27*-:<-~]+\); Tue, 24 Nov 2026 18:44:57 \+0000", rest)
    else:
        [by] = lines[1:]
        assert re.fullmatch(rb"  by mx\.example\.test with ESMTPA?; Tue, 24 Nov 2026 18:44:57 \+0000", by)


def test_a_name_of_lines_is_not_one_of_the_header() -> None:
    evil = "evil\r\nX-Forged: yes\n\n(;"
    made = received(
        helo=b"client.test",
        client="192.0.2.1",
        by=b"mx.example.test",
        extended=True,
        smtputf8=False,
        now=NOW,
        name=evil,
        secured=Secured("TLSv1.3", evil, evil),
    )
    assert made == (
        b"Received: from client.test (evil??X-Forged:?yes???? [192.0.2.1])\n"
        b"  by mx.example.test with ESMTPS tls evil??X-Forged:?yes????\n"
        b"  (TLSv1.3, certificate of evil??X-Forged: yes????); Tue, 24 Nov 2026 18:44:57 +0000\n"
    )


def test_qmail_date_pads_the_time_and_not_the_day() -> None:
    assert qmail_date(NOW) == b"24 Nov 2026 18:44:57 -0000"
    assert qmail_date(NOW - 19 * 86400 - 10 * 3600) == b"5 Nov 2026 08:44:57 -0000"


def test_return_path_quotes_as_qmail_does() -> None:
    assert return_path(b"bob@example.test") == b"Return-Path: <bob@example.test>\n"
    assert return_path(b"") == b"Return-Path: <>\n"
    assert return_path(b"#@[]") == b"Return-Path: <#@[]>\n"
    assert return_path(b"justuser") == b"Return-Path: <justuser>\n"
    assert return_path(b"@remote.test") == b'Return-Path: <""@remote.test>\n'
    assert return_path(b"two words@remote.test") == b'Return-Path: <"two words"@remote.test>\n'
    assert return_path(b"a<b>@remote.test") == b'Return-Path: <"a<b>"@remote.test>\n'
    assert return_path(b'"q"@remote.test') == b'Return-Path: <"\\"q\\""@remote.test>\n'
    assert return_path(b"x\n@remote.test") == b'Return-Path: <"x\\_"@remote.test>\n'


def test_quote_leaves_a_dot_string_alone_and_nothing_else() -> None:
    assert quote(b"a.b+c-d") == b"a.b+c-d"
    for odd in (b"", b".a", b"a.", b"a..b", b"a@b", b"\xc3\xa9", b"a,b"):
        assert quote(odd) == b'"' + odd + b'"'


def test_delivered_to_is_one_line() -> None:
    assert delivered_to(b"a\nb@example.test") == b"Delivered-To: a_b@example.test\n"
