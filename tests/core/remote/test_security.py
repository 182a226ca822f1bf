"""What mail demands of a host: which line decides, and that nothing makes it less than it has to be."""

import asyncio
import ssl

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqmail.core.control.credentials import Credential, Credentials
from openqmail.core.control.settings import Route
from openqmail.core.remote.directions import Pathfinder
from openqmail.core.remote.keys import Keys, Pin
from openqmail.core.remote.security import PLAIN, Demands
from openqmail.core.smtp.client_events import Terms
from openqmail.core.tls import Policy, TlsError, TlsFacts
from openqmail.core.values.address import suffixes

ANY, PROVED, PINNED = (ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) for _ in range(3))
PIN = Pin("control/tlshosts/mx.a.test.pem", PINNED, frozenset((b"der",)))
JOE = Credential(b"joe", b"secret")
ORDER = list(Policy)

DOMAINS = st.sampled_from([b"a.test", b"b.a.test", b"c.test", b"[192.0.2.1]", b"xn--bcher-kva.test"])
HOSTS = st.sampled_from([b"mx.a.test", b"relay.test", b"a.test", b"[192.0.2.2]"])
KEYS = st.sampled_from(
    [b"a.test", b".a.test", b".test", b"mx.a.test", b"relay.test", b"c.test", b"[192.0.2.2]", b"*"]
)
TABLES = st.dictionaries(KEYS, st.sampled_from([policy.value for policy in Policy]))
HELD = st.builds(
    lambda pins, bare, by_route, by_host: Keys(
        ANY, PROVED, dict.fromkeys(pins, PIN), frozenset(bare), Credentials(by_route, by_host)
    ),
    st.sets(HOSTS),
    st.sets(HOSTS),
    st.dictionaries(st.sampled_from([b".test", b"a.test"]), st.just(JOE)),
    st.dictionaries(HOSTS, st.just(JOE)),
)
ROUTES = st.none() | st.sampled_from([b"", b"a.test", b".test"])
"""None: no route; empty: a hook's; else the key of its line."""


def decides(table: dict[bytes, str], domain: bytes, host: bytes, routed: bool) -> bytes | None:
    """The key, by the page literally."""
    for name in (domain, host) if routed else (domain,):
        for key in (name, *suffixes(name)):
            if key in table:
                return key
    return b"*" if b"*" in table else None


@given(TABLES, HELD, DOMAINS, HOSTS, ROUTES)
@settings(max_examples=500)
def test_nothing_makes_less_of_it_than_it_has_to_be(table, held, domain, host, route) -> None:
    found = Demands(table, held).of(domain, host, 25, route is not None, route or None)
    key = decides(table, domain, host, route is not None)
    said = Policy.MAY if key is None else Policy(table[key])
    login = None if route is None else held.login(route or None, host)
    if key is not None or host not in held.bare:
        assert ORDER.index(found.policy) >= ORDER.index(said)
    if host in held.pins:
        assert found.policy.verified and found.context is PINNED
    assert (found.login is None) is (login is None)
    if found.login is not None and not found.policy.verified:
        assert key == host and found.login.unverified and found.policy is said
        assert found.login.in_clear is (said is Policy.NONE)
    if found.login is not None and found.policy.verified:
        assert not found.login.unverified and not found.login.in_clear
    if found.policy.verified:
        assert found.references and found.terms.tls == "must"
        assert found.context in (PROVED, PINNED)
        if route is not None or found.policy is Policy.VERIFY:
            assert found.references == (host.decode(),)
        else:
            assert found.references == (domain.decode(), "." + domain.decode())
    assert (found.context is None) is (found.policy is Policy.NONE)
    assert found.policy in (Policy.MAY,) or found.reason
    assert "secret" not in repr(found) + found.reason
    assert found.without_tls().terms == Terms("none", found.login)


@given(TABLES, HELD, DOMAINS, HOSTS, ROUTES)
def test_the_same_question_has_the_same_answer_by_which_connections_are_found(
    table, held, domain, host, route
) -> None:
    demands = Demands(table, held)
    one, other = (
        demands.of(domain, host, 25, route is not None, route or None),
        demands.of(domain, host, 25, route is not None, route or None),
    )
    assert one == other and hash(one) == hash(other)


def test_hosts_of_which_nobody_speaks_share_one_answer() -> None:
    demands = Demands({}, Keys(ANY))
    assert demands.of(b"a.test", b"mx.a.test", 25) is demands.of(b"c.test", b"mx.c.test", 25)
    assert Demands({b"*": "secure"}, None).of(b"a.test", b"mx.a.test", 25) is PLAIN


def facts(peer: str = "") -> TlsFacts:
    return TlsFacts("TLSv1.3", "TLS_AES_128_GCM_SHA256", peer=peer)


def test_a_certificate_for_no_name_that_was_asked_for_is_refused_in_words() -> None:
    found = Demands({b"a.test": "secure"}, Keys(ANY, PROVED)).of(b"a.test", b"mx.a.test", 25)
    with pytest.raises(TlsError, match=r"is not for a.test or a name below a.test but for none that can"):
        found.judged(facts(), b"junk")
    assert found.judged(facts("a.test"), b"junk").peer == "a.test"


def test_the_pinned_certificate_itself_is_a_proof_whatever_its_names() -> None:
    found = Demands({}, Keys(ANY, pins={b"mx.a.test": PIN})).of(b"a.test", b"mx.a.test", 25)
    assert found.judged(facts(), b"der").peer == "mx.a.test"
    with pytest.raises(TlsError):
        found.judged(facts(), b"another")


def test_whoever_it_is_will_do_where_nobody_asks() -> None:
    found = Demands({}, Keys(ANY)).of(b"a.test", b"mx.a.test", 25)
    assert found.judged(facts(), b"junk") == facts()
    assert not found.implicit(25) and found.implicit(465)
    assert not msgspec.structs.replace(found, context=None).implicit(465)


def test_a_hooks_route_is_told_the_login_of_its_host_and_of_no_line(scene, tls_scene) -> None:
    line, other = Route("smtp", (b"relay.test",)), Route("smtp", (b"other.test",))
    jim = Credential(b"jim", b"secret")
    keys = Keys(ANY, PROVED, credentials=Credentials({b"a.test": JOE}, {b"other.test": jim}))
    given = scene.settings(smtproutes={b"a.test": line})
    pathfinder = Pathfinder(given, tls_scene.Zone(), frozenset, 25, keys)

    async def login(route: Route | None) -> bytes | None:
        (stop,) = (await pathfinder.find(b"a.test", route)).stops()
        return stop.security.login and stop.security.login.name

    for route, name in ((None, b"joe"), (line, b"joe"), (other, b"jim")):
        assert asyncio.run(login(route)) == name
    found = asyncio.run(pathfinder.find(b"a.test", other)).stops()[0].security
    assert found.policy is Policy.VERIFY and found.references == ("other.test",)
