"""Routing against what notqmail's qmail-send did."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqmail.core.control.routing import route, routed_before
from openqmail.core.log.escaping import escape


def lines(text: str | None) -> list[bytes]:
    rows = [line.rstrip(" \t").encode("latin-1") for line in (text or "").split("\n")]
    return [row for row in rows if row and not row.startswith(b"#")]


def settings(control: dict[str, str | None]) -> Any:
    me = lines(control["me"])[0]
    local = me + b"\n" if control.get("locals") is None else None
    names = [me] if local else lines(control["locals"])
    pairs = [row.partition(b":") for row in lines(control.get("virtualdomains"))]
    return SimpleNamespace(
        envnoathost=(lines(control.get("envnoathost")) or [me])[0],
        percenthack=frozenset(row.lower() for row in lines(control.get("percenthack"))),
        locals=frozenset(row.lower() for row in names),
        virtualdomains={key.lower(): value for key, colon, value in pairs if colon},
    )


def test_routes_as_recorded(vectors: Path) -> None:
    rows = 0
    for case in json.loads((vectors / "notqmail/routing/routing.json").read_text()):
        control = settings(case["control"])
        for row in case["rows"]:
            routed = route(row["recipient"].encode("latin-1"), control)
            started = routed.channel.encode() + b" " + escape(routed.address)
            assert started == row["started"].encode("latin-1"), (case["case"], row["recipient"])
            assert routed.domain == routed.address.rpartition(b"@")[2].lower()
            rows += 1
    assert rows > 500


def test_the_plain_address_is_without_the_prefix() -> None:
    control = settings(
        {
            "me": "me.test",
            "virtualdomains": "virt.test:bob-v\nspecial@virt.test:alice\n",
        }
    )
    assert route(b"joe@virt.test", control).plain == b"joe@virt.test"
    assert route(b"bob-v-x@virt.test", control).plain == b"bob-v-x@virt.test"
    assert route(b"special@virt.test", control).plain == b"special@virt.test"
    assert route(b"noat", control).plain == b"noat@me.test"


@pytest.mark.parametrize(
    ("address", "plain"),
    [
        (b"bob-v-joe@virt.test", b"joe@virt.test"),
        (b"bob-v-joe@VIRT.test", b"joe@VIRT.test"),
        (b"sub-joe@deep.host.test", b"joe@deep.host.test"),
        (b"Bob-v-joe@virt.test", b"Bob-v-joe@virt.test"),
        (b"bob-vjoe@virt.test", b"bob-vjoe@virt.test"),
        (b"all-joe@else.test", b"joe@else.test"),
        (b"all-joe@not.test", b"all-joe@not.test"),
    ],
)
def test_what_was_routed_before_is_shown_without_the_prefix_of_its_domain_now(
    address: bytes, plain: bytes
) -> None:
    virtual = "virt.test:bob-v\n.host.test:sub\nnot.test:\n:all\n"
    routed = routed_before(address, "local", settings({"me": "me.test", "virtualdomains": virtual}))
    assert (routed.address, routed.plain) == (address, plain)
    assert routed.domain == address.rpartition(b"@")[2].lower()


DOMAINS = st.sampled_from([b"a.test", b"b.a.test", b"x.b.a.test", b"c.test", b"A.Test", b"me.test"])
KEYS = DOMAINS.map(bytes.lower) | st.sampled_from([b"", b".test", b".a.test", b"joe@a.test"])
LOCALS = st.sampled_from([b"joe", b"Joe", b"a%c.test", b"a%b.a.test%c.test", b"x-y", b""])


@given(
    LOCALS,
    DOMAINS | st.none(),
    st.frozensets(DOMAINS.map(bytes.lower)),
    st.frozensets(DOMAINS.map(bytes.lower)),
    st.dictionaries(KEYS, st.sampled_from([b"", b"v", b"w-x"])),
)
def test_what_is_told_of_a_route_is_what_was_decided(
    local: bytes, domain: bytes | None, here: Any, hacked: Any, virtual: Any
) -> None:
    control: Any = SimpleNamespace(
        envnoathost=b"me.test", percenthack=hacked, locals=here, virtualdomains=virtual
    )
    recipient = local if domain is None else local + b"@" + domain
    told: list[tuple[str, bytes, bytes]] = []
    routed = route(recipient, control, lambda *step: told.append(step))
    assert routed == route(recipient, control)
    files = {"envnoathost": {b"me.test"}, "percenthack": hacked, "locals": here, "virtualdomains": virtual}
    assert all(key in files[name] for name, key, _ in told)
    assert [name for name, _, _ in told] == sorted((name for name, _, _ in told), key=list(files).index)
    if told:
        assert told[-1][2] == routed.address
    deciding = told[-1][0] if told else ""
    if routed.channel == "remote":
        assert deciding != "locals"
        assert deciding != "virtualdomains" or virtual[told[-1][1]] == b""
    else:
        assert deciding == ("virtualdomains" if routed.prefix else "locals")
