"""One spelling of an address for every table, whichever of many a sender has chosen."""

# ruff: noqa: RUF001  # letters that look alike are what this is about

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqmail.core.smtp.grammar import AddressError, wire_domain
from openqmail.core.values.address import canonical_address, canonical_domain

DOMAINS = st.one_of(
    st.from_regex(r"[A-Za-z0-9üßÜΣ。．ａＢ\u0308.-]{1,20}", fullmatch=True),
    st.text(max_size=20),
    st.ip_addresses(v=6).map(lambda one: f"[IPv6:{one.exploded.upper()}]"),
).map(str.encode) | st.binary(max_size=20)


@pytest.mark.parametrize(
    ("spelt", "canonical"),
    [
        ("Bank.Example", b"bank.example"),
        ("ｂａｎｋ.example", b"bank.example"),
        ("bank。ＥＸＡＭＰＬＥ", b"bank.example"),
        ("BÜCHER.example", b"xn--bcher-kva.example"),
        ("bu\u0308cher.example", b"xn--bcher-kva.example"),
        ("XN--BCHER-KVA.example", b"xn--bcher-kva.example"),
        ("straße.example", b"xn--strae-oqa.example"),
        ("[IPv6:2001:DB8:0:0::1]", b"[2001:db8::1]"),
        ("[2001:db8::1]", b"[2001:db8::1]"),
        ("[192.0.2.1]", b"[192.0.2.1]"),
        ("[no address]", b"[no address]"),
        ("\u2028.Example", "\u2028.example".encode()),
        ("ü" * 2000, "ü".encode() * 2000),
        ("", b""),
    ],
)
def test_a_domain_has_one_spelling(spelt: str, canonical: bytes) -> None:
    assert canonical_domain(spelt.encode()) == canonical


@pytest.mark.parametrize(
    ("spelt", "canonical"),
    [
        ("Bob@Bank.Example", "bob@bank.example"),
        ("JÜRGEN@ｂａｎｋ.example", "jürgen@bank.example"),
        ("a@b@ｂａｎｋ.example", "a@b@bank.example"),
        ("Postmaster", "postmaster"),
        ("", ""),
    ],
)
def test_an_address_has_one_spelling(spelt: str, canonical: str) -> None:
    assert canonical_address(spelt.encode()) == canonical.encode()


def test_octets_that_are_no_text_stay_as_they_are() -> None:
    assert canonical_address(b"A\xff@B\xfe.example") == b"a\xff@b\xfe.example"


@given(DOMAINS)
def test_the_one_spelling_is_what_the_dns_is_asked_for(domain: bytes) -> None:
    canonical = canonical_domain(domain)
    assert canonical_domain(canonical) == canonical
    if not domain.startswith(b"["):
        try:
            assert canonical == wire_domain(domain).lower()
        except AddressError:
            assert canonical == domain.lower()
