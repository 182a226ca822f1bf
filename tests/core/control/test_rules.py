"""control/rules: which rule an address gets."""

import importlib.util
import ipaddress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqmail.core.control.rules import Rules
from openqmail.core.control.tcprules import parse_rules, without_effect
from openqmail.core.control.text import ControlText

_spec = importlib.util.spec_from_file_location("rules_oracle", Path(__file__).with_name("rules_oracle.py"))
assert _spec is not None and _spec.loader is not None
rules_oracle = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(rules_oracle)


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


def test_the_order_is_that_of_tcprules() -> None:
    found = rules(
        '10.1.2.3:allow,X="exact"',
        '=mx.b.example:allow,X="name"',
        '10.1.2.0/25:allow,X="network"',
        '10.:allow,X="prefix"',
        '=.b.example:allow,X="suffix"',
        '=.example:allow,X="longer"',
        '=:allow,X="named"',
        ':allow,X="default"',
    )

    def said(address: str, name: str = "") -> str:
        return found.match(address, name).variables["X"]

    assert said("10.1.2.3", "mx.b.example") == "exact"
    assert said("10.1.2.4", "mx.b.example") == "name"
    assert said("192.0.2.1", "mx.b.example") == "name"
    assert said("10.1.2.4", "x.b.example") == said("10.1.2.4") == "network"
    assert said("10.1.2.200", "x.b.example") == "prefix"
    assert said("192.0.2.1", "x.b.example") == "suffix"
    assert said("2001:db8::1", "b.example") == "longer"
    assert said("192.0.2.1", "other.test") == "named"
    assert said("192.0.2.1") == said("no address") == "default"
    assert found.by_name
    assert not rules("10.:deny").by_name


def test_ranges_stand_for_each_of_their_numbers() -> None:
    found = rules("1.2.3.37-53:deny", "10.0-1.7-8.:deny", "[2001:db8::]/33:deny", "172.16.0.0/12:deny")
    denied = ("1.2.3.37", "1.2.3.53", "10.0.7.255", "10.1.8.0", "2001:db8:7fff::1", "172.31.255.255")
    for address in denied:
        assert not found.match(address).allow, address
    for address in ("1.2.3.36", "1.2.3.54", "10.2.7.1", "10.0.9.1", "2001:db8:8000::1", "172.32.0.0"):
        assert found.match(address).allow, address


def test_a_range_over_an_address_that_has_a_rule_is_a_mistake() -> None:
    text = ControlText("control/rules", b"1.2.3.4:allow\n1.2.3.0-9:deny\n10.1.:deny\n10.1.0.0/16:allow\n")
    parse_rules(text)
    assert [problem.line for problem in text.problems] == [2, 4]


def test_a_variable_of_which_core_knows_nothing_is_kept_and_warned_of() -> None:
    found = rules('10.:allow,QMAILQUEUE="/bin/scan",RBLSMTPD=""')
    assert found.match("10.1.1.1").variables == {"QMAILQUEUE": "/bin/scan", "RBLSMTPD": ""}
    assert [str(warning) for warning in without_effect(found)] == [
        "control/rules: sets QMAILQUEUE, which only a hook could read; see control/hooks"
    ]


_octet = st.integers(0, 3).map(str)
_address4 = st.lists(_octet, min_size=4, max_size=4).map(".".join)
_address6 = st.lists(st.sampled_from(["0", "1", "8000", "ffff"]), min_size=8, max_size=8).map(":".join)
_host = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4).map(".".join)


@st.composite
def _pattern(draw: st.DrawFn) -> str:
    kind = draw(st.integers(0, 7))
    if kind == 0:
        return draw(_address4)
    if kind == 1:
        return ".".join(draw(_address4).split(".")[: draw(st.integers(1, 3))]) + "."
    if kind == 2:
        return str(ipaddress.ip_network((draw(_address4), draw(st.integers(0, 32))), strict=False))
    if kind == 3:
        parts = draw(_address4).split(".")
        parts[draw(st.integers(0, 3))] = draw(st.sampled_from(["0-1", "1-3", "2-2", "0-3"]))
        return ".".join(parts)
    if kind == 4:
        return f"[{draw(_address6)}]"
    if kind == 5:
        network = ipaddress.ip_network((draw(_address6), draw(st.integers(0, 128))), strict=False)
        return f"[{network.network_address}]/{network.prefixlen}"
    if kind == 6:
        return draw(st.sampled_from(["=", "=.", "=", "="])).rstrip(".") + draw(_host)
    return draw(st.sampled_from(["", "=", "=.a", "=.b.a", "=.c.b"]))


@settings(max_examples=400)
@given(
    st.lists(st.tuples(_pattern(), st.sampled_from(["allow", "deny"])).map(":".join), max_size=8),
    st.one_of(_address4, _address6),
    st.one_of(st.just(""), _host),
)
def test_matching_is_what_a_slow_search_finds(lines: list[str], address: str, name: str) -> None:
    text = ControlText("control/rules", "\n".join(lines).encode())
    found = parse_rules(text)
    wrong = {problem.line for problem in text.problems}
    kept = [line for number, line in enumerate(lines, 1) if number not in wrong]
    if len(kept) < len(lines):  # two for one pattern, of which a range has kept what came before
        found = rules(*kept) if not _clash(kept) else found
    if not _clash(kept):
        assert found.match(address, name).allow == rules_oracle.allows(kept, address, name)


def _clash(lines: list[str]) -> bool:
    text = ControlText("control/rules", "\n".join(lines).encode())
    parse_rules(text)
    return bool(text.problems)


@settings(max_examples=300)
@given(st.text(max_size=60), st.sampled_from(["", "10.", "[", "=", "1.2.3.", ":allow", ":deny,"]))
def test_any_line_is_a_rule_or_a_mistake_with_its_number(line: str, begun: str) -> None:
    text = ControlText("control/rules", ("\n" + begun + line).encode())
    parse_rules(text)
    assert all(problem.line > 1 and problem.why for problem in text.problems)
