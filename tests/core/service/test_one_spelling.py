"""No sender chooses by the spelling of a domain which lines of the administrator hold for it."""

# ruff: noqa: RUF001  # letters that look alike are what this is about

import ssl
import unicodedata
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqmail.core.control.cdb import make_cdb
from openqmail.core.control.definitions import DEFINITIONS
from openqmail.core.control.reader import defaults
from openqmail.core.control.routing import route, routed_before
from openqmail.core.control.text import ControlText
from openqmail.core.remote.directions import find_route
from openqmail.core.remote.keys import Keys
from openqmail.core.remote.security import Demands
from openqmail.core.smtp.grammar import forward_path, wire_domain
from openqmail.core.smtpd.authentication import may_send
from openqmail.core.smtpd.policy import admit
from openqmail.core.tls import Policy

CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def read(name: str, text: bytes) -> Any:
    [definition] = [one for one in DEFINITIONS if one.name == name]
    given = ControlText(f"control/{name}", text, binary=definition.binary)
    found = definition.parse(given)
    assert not given.problems
    return found


TEXTS = {
    "locals": "home.example\n",
    "percenthack": "hack.example\n",
    "virtualdomains": "shop.example:shop\nbob@books.example:bob\n.bücher.example:books\n",
    "rcpthosts": "home.example\nshop.example\n.bücher.example\nhack.example\n[2001:db8::1]\n",
    "badmailfrom": "@evil.example\njürgen@bücher.example\n.evil.example\n",
    "badrcptto": "bob@home.example\n.bank.example\n",
    "smtproutes": "bank.example:192.0.2.1\n.bank.example:192.0.2.2\nbücher.example:192.0.2.3\n"
    "[2001:db8::1]:192.0.2.4\n:192.0.2.9\n",
    "tlspolicy": "bank.example encrypt\n.bank.example verify\nbücher.example secure\n[2001:db8::1] verify\n",
    "bindings": "evil.example:192.0.2.5:-:\nbob@bücher.example:192.0.2.6:-:\n[2001:db8::1]:192.0.2.7:-:\n",
    "senders": "alice:@bank.example\nalice:bob@bücher.example\n",
}
SETTINGS = defaults(b"mx.home.example", **{name: read(name, text.encode()) for name, text in TEXTS.items()})
DEMANDS = Demands(SETTINGS.tlspolicy, Keys(CONTEXT, CONTEXT))
CLIENT = admit(SETTINGS, True, "192.0.2.77")

DOMAINS = [
    *("bank.example", "a.bank.example", "bücher.example", "x.bücher.example", "xn--bcher-kva.example"),
    *("home.example", "shop.example", "books.example", "hack.example", "evil.example", "a.evil.example"),
    *("[2001:db8::1]", "nobody.example"),
]


@st.composite
def spellings(draw: st.DrawFn) -> tuple[str, str]:
    """A domain, and another way to write it."""
    domain = draw(st.sampled_from(DOMAINS))
    if domain.startswith("["):
        return domain, draw(st.sampled_from(["[IPv6:2001:DB8::1]", "[ipv6:2001:db8:0:0:0:0:0:1]"]))
    other = []
    for letter in domain:
        ways = [letter, letter.upper()]
        if "!" < letter <= "~" and letter not in ".-":
            ways.append(chr(ord(letter) + 0xFEE0))  # full-width
        elif letter == ".":
            ways += "。．｡"
        else:
            ways.append(unicodedata.normalize("NFD", letter))
        other.append(draw(st.sampled_from(ways)))
    return domain, "".join(other)


def held(address: bytes) -> tuple[object, ...]:
    """All that the administrator's lines say of an address, as a recipient and as a sender."""
    assert CLIENT is not None
    routed = route(address, SETTINGS)
    return (
        (routed.channel, routed.domain, routed.prefix),
        routed_before(address, "remote", SETTINGS).domain,
        find_route(routed.domain, SETTINGS.smtproutes),
        DEMANDS.of(routed.domain, b"mx.example", 25),
        CLIENT.judge(None, address),
        CLIENT.judge(address, b"alice@home.example"),
        SETTINGS.sources().source_of(address),
        may_send(SETTINGS.senders, b"alice", address),
    )


@given(spellings(), st.sampled_from(["bob", "jürgen", "u%hack.example", "u%bank.example"]))
def test_any_two_spellings_of_a_domain_get_the_same_route_policy_and_refusal(
    pair: tuple[str, str], local: str
) -> None:
    one, other = (f"{local}@{domain}".encode() for domain in pair)
    assert held(one) == held(other)
    if not pair[0].startswith("["):
        assert wire_domain(pair[0].encode()) == wire_domain(pair[1].encode()).lower()


@given(spellings())
def test_the_envelope_keeps_its_own_spelling(pair: tuple[str, str]) -> None:
    address, _ = forward_path(f"<bob@{pair[1]}>".encode())
    routed = route(address, SETTINGS)
    assert routed.plain == address == f"bob@{pair[1]}".encode()


@given(spellings())
def test_what_stands_behind_a_percent_sign_has_one_spelling_too(pair: tuple[str, str]) -> None:
    one, other = (f"bob%{domain}@hack.example".encode() for domain in pair)
    assert held(one) == held(other)


@pytest.mark.parametrize("domain", ["ｂａｎｋ.example", "bank。example", "BANK.example"])
def test_mail_for_a_bank_goes_its_own_way_encrypted(domain: str) -> None:
    routed = route(f"boss@{domain}".encode(), SETTINGS)
    found = find_route(routed.domain, SETTINGS.smtproutes)
    assert found is not None and found.hosts == (b"[192.0.2.1]",)
    assert DEMANDS.of(routed.domain, b"mx.bank.example", 25).policy is Policy.ENCRYPT


@pytest.mark.parametrize(
    "recipient", ["bob@BÜCHER.example", "bob@xn--bcher-kva.example", "bob@a.Bücher.example"]
)
def test_what_qmail_newmrh_has_compiled_holds_for_every_spelling(recipient: str) -> None:
    compiled = make_cdb([("bücher.example".encode(), b""), (".bücher.example".encode(), b"")])
    more = read("morercpthosts.cdb", compiled)
    client = admit(msgspec.structs.replace(SETTINGS, morercpthosts=more), True, "192.0.2.77")
    assert client is not None and client.takes(recipient.encode())
