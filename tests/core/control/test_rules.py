"""control/rules: which rule an address gets."""

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqmail.core.control.rules import Rules
from openqmail.core.control.tcprules import parse_rules
from openqmail.core.control.text import ControlText


def rules(*lines: str) -> Rules:
    text = ControlText("control/rules", "\n".join(lines).encode())
    found = parse_rules(text)
    assert not text.problems, str(text.problems[0])
    return found


def test_what_init_writes_lets_this_host_relay() -> None:
    found = rules('127.:allow,RELAYCLIENT=""', '[::1]:allow,RELAYCLIENT=""')
    for address in ("127.0.0.1", "127.1.2.3", "::1", "0:0:0:0:0:0:0:1", "::ffff:127.0.0.1"):
        assert found.match(address).variables == {"RELAYCLIENT": ""}, address
    for address in ("128.0.0.1", "12.7.0.1", "::2", "::ffff:192.0.2.1", "1127.0.0.1"):
        assert found.match(address).allow
        assert not found.match(address).variables, address


def test_the_longest_pattern_counts() -> None:
    found = rules("10.1.2.3:deny", "10.1.:allow,RELAYCLIENT=/@x/", "10.:deny", ":allow,DATABYTES=|7|")
    assert not found.match("10.1.2.3").allow
    assert found.match("10.1.2.4").variables == {"RELAYCLIENT": "@x"}
    assert not found.match("10.2.2.4").allow
    assert found.match("11.2.2.4").variables == {"DATABYTES": "7"}
    assert found.match("2001:db8::1").variables == {"DATABYTES": "7"}


def test_ipv6_prefixes_are_of_groups_however_they_are_written() -> None:
    found = rules("[2001:0DB8:0:]:deny", "[2001:db8::5]:allow", "[fe80:]:deny")
    assert not found.match("2001:db8::1").allow
    assert found.match("2001:db8:0:0::5").allow
    assert found.match("2001:db8:1::1").allow
    assert not found.match("fe80::1%eth0").allow
    assert found.match("::").allow


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("127:allow", "127."),
        ("127.0.0.1", "no colon"),
        ("127.0.0.1:maybe", "neither allow nor deny"),
        ("127.0.0.1:allowed", "neither allow nor deny"),
        ("::1:allow", "brackets"),
        ("[::1:allow", "bracket"),
        ("[::1]", "bracket"),
        ("[nonsense]:deny", "IPv6"),
        ("[1:2:3:4:5:6:7:8:]:deny", "IPv6"),
        ("1.2.3.9-4:deny", "range"),
        ("1.2.3.4-256:deny", "range"),
        ("1.2.3.4-:deny", "range"),
        ("0-255.0-255.0-255.1:deny", "networks instead"),
        ("=host_example!:deny", "name of a host"),
        ("joe@10.:deny", "nobody is asked"),
        ("10.1.2.3/8:deny", "10.0.0.0/8"),
        ("10.0.0.0/33:deny", "0 to 32"),
        ("10.0.0.0/:deny", "digits"),
        ("[2001:db8::1]/32:deny", "2001:db8::/32"),
        ("[2001:db8::]/129:deny", "0 to 128"),
        ("[::ffff:10.0.0.1]:deny", "as IPv4"),
        ("[fe80::1%eth0]:deny", "interface"),
        ('127.:allow,RELAYCLEINT=""', "did you mean RELAYCLIENT"),
        ('127.:allow,=""', "name of a variable"),
        ('127.:allow,RBLSMTPD="é"', "cannot be said"),
        ('127.:allow,GREETDELAY="soon"', "digits"),
        ("1.2.3.4.5.:deny", "address"),
        ("1.2.3.256:deny", "address"),
        ('127.:allow,TCPREMOTEHOST=""', "TCPREMOTEHOST"),
        ("127.:allow,RELAYCLIENT", "variable is written"),
        ('127.:allow,RELAYCLIENT="', "not closed"),
        ("127.:allow,RELAYCLIENT=", "not closed"),
        ('127.:allow,RELAYCLIENT="a b"', "fit an address"),
        ('127.:allow,DATABYTES="many"', "digits"),
        ('127.:allow,DATABYTES="1"x', "variable is written"),
        ('127.:allow,DATABYTES="1",DATABYTES="2"', "twice"),
    ],
)
def test_mistakes_name_the_line(line: str, why: str) -> None:
    text = ControlText("control/rules", f"# first\n{line}\n".encode())
    parse_rules(text)
    assert [problem.line for problem in text.problems] == [2]
    assert why in text.problems[0].why


def test_two_rules_for_one_pattern_are_a_mistake() -> None:
    text = ControlText("control/rules", b"10.:allow\n[::1]:allow\n[0:0::1]:deny\n10.:deny\n")
    parse_rules(text)
    assert [problem.line for problem in text.problems] == [3, 4]


@settings(max_examples=200)
@given(st.ip_addresses(), st.integers(1, 7))
def test_a_prefix_matches_just_what_begins_with_it(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, count: int
) -> None:
    if isinstance(address, ipaddress.IPv4Address):
        pattern = ".".join(str(address).split(".")[: min(count, 3)]) + "."
    else:
        if address.ipv4_mapped:
            return
        pattern = "[" + ":".join(address.exploded.split(":")[:count]) + ":]"
    found = rules(f"{pattern}:deny")
    assert not found.match(str(address)).allow
    other = type(address)(int(address) ^ 1 << address.max_prefixlen - 1)
    assert found.match(str(other)).allow


@settings(max_examples=100)
@given(st.text(max_size=40))
def test_no_text_breaks_the_match(address: str) -> None:
    found = rules("10.:deny", "[2001:]:deny", ":allow")
    assert found.match(address) in found.rules.values()
