"""Where mail goes: smtproutes, literals, exchangers, addresses, and this host itself."""

import asyncio
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqmail.core.control.bindings import Source
from openqmail.core.control.settings import Listener, Route
from openqmail.core.dns import Answer, LookupFailed, MailExchanger, NameServer, NoSuchName, StubResolver
from openqmail.core.remote import Directions, Pathfinder, Stop, find_route, own_addresses
from openqmail.core.remote import directions as directions_module
from openqmail.core.remote.directions import by_turns
from openqmail.core.values import Outcome

LOOP = (
    b"Sorry. Although I'm listed as a best-preference MX or A for that host,\n"
    b"it isn't in my control/locals file, so I don't treat it as local. (#5.4.6)\n"
)
SOFT = b"Sorry, I couldn't find any host by that name. (#4.1.2)\n"
OURS = "192.0.2.100"


class Table:
    """A resolver that knows what it is told; an exception is raised."""

    def __init__(self, mx=(), addresses=()):
        self.exchangers, self.hosts = dict(mx), dict(addresses)

    async def mx(self, domain):
        return self._answer(
            self.exchangers.get(domain, ()), domain in self.hosts or domain in self.exchangers
        )

    async def addresses(self, host):
        return self._answer(self.hosts.get(host, ()), host in self.hosts or host in self.exchangers)

    def _answer(self, found, exists):
        if isinstance(found, Exception):
            raise found
        if not exists:
            raise NoSuchName("no")
        if isinstance(found, Answer):
            return found
        return Answer(
            tuple(MailExchanger(*each) if isinstance(each, tuple) else each for each in found), 60.0
        )


def find(scene, domain, table=None, own=(OURS,), **changes):
    pathfinder = Pathfinder(
        scene.settings(**changes), table or scene.Nowhere(), own=lambda: frozenset(own), port=25
    )
    return asyncio.run(pathfinder.find(domain))


def addresses(directions):
    assert isinstance(directions, Directions), directions
    return [stop.address for stop in directions.stops()]


# --- routes ---------------------------------------------------------------------------


def route(name):
    return Route("smtp", (name,), 25)


ROUTES = {b"full.test": route(b"full"), b".test": route(b"suffix"), b".deep.test": route(b"deep")}


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        (b"full.test", b"full"),
        (b"a.full.test", b"suffix"),
        (b"a.deep.test", b"deep"),
        (b"b.a.deep.test", b"deep"),
        (b"deep.test", b"suffix"),
        (b"test", None),
        (b"other.example", None),
        (b"", None),
    ],
)
def test_the_longest_route_wins(domain, expected):
    found = find_route(domain, ROUTES)
    assert (found.hosts[0] if found else None) == expected
    found = find_route(domain, {**ROUTES, b"": route(b"default")})
    assert found.hosts[0] == (expected or b"default")


def test_a_routed_host_is_looked_up_by_address_only_and_may_be_this_host(scene):
    table = Table(mx={b"relay.test": [(10, b"mx.test")]}, addresses={b"relay.test": [OURS, "2001:db8::1"]})
    routes = {b"x.test": Route("smtp", (b"relay.test", b"[127.0.0.1]", b"[::1]"), 2525)}
    directions = find(scene, b"x.test", table, smtproutes=routes)
    assert directions.stops() == (
        Stop(b"relay.test", "2001:db8::1", 2525, relay=True),
        Stop(b"relay.test", OURS, 2525, relay=True),
        Stop(b"[127.0.0.1]", "127.0.0.1", 2525, preference=1, relay=True),
        Stop(b"[::1]", "::1", 2525, preference=2, relay=True),
    )


def test_a_route_without_a_host_goes_by_mx_at_its_port(scene):
    table = Table(mx={b"x.test": [(10, b"mx.test")]}, addresses={b"mx.test": ["192.0.2.1"]})
    directions = find(scene, b"x.test", table, smtproutes={b"x.test": Route("odd", (), 26)})
    assert directions.transport == "odd"
    assert directions.stops() == (Stop(b"mx.test", "192.0.2.1", 26, preference=10),)


def test_a_routed_host_that_does_not_exist_and_one_that_cannot_be_looked_up(scene):
    routes = {b"": Route("smtp", (b"gone.test", b"relay.test"), 25)}
    result = find(scene, b"x.test", Table(), smtproutes=routes)
    assert result.outcome is Outcome.FAILURE
    assert result.text == b"Sorry, I couldn't find any host named gone.test. (#5.1.2)\n"
    soft = Table(addresses={b"relay.test": LookupFailed("later")})
    assert find(scene, b"x.test", soft, smtproutes=routes).text == SOFT


# --- literals -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("domain", "address"),
    [
        (b"[192.0.2.1]", "192.0.2.1"),
        (b"192.0.2.1", "192.0.2.1"),
        (b"[ipv6:2001:db8::1]", "2001:db8::1"),
        (b"[IPv6:2001:DB8:0::1]", "2001:db8::1"),
        (b"[IPv6:::ffff:192.0.2.1]", "192.0.2.1"),
    ],
)
def test_a_literal_is_an_address(scene, domain, address):
    assert find(scene, domain).stops() == (Stop(domain, address, 25),)


@pytest.mark.parametrize("domain", [b"[192.0.2.100]", b"[127.0.0.1]", b"[0.0.0.0]", b"[ipv6:::1]"])
def test_a_literal_of_this_host_is_a_loop(scene, domain):
    result = find(scene, domain, own={OURS, *own_addresses()})
    assert (result.outcome, result.text) == (Outcome.FAILURE, LOOP)


@pytest.mark.parametrize(
    "domain", [b"", b"[192.0.2.1", b"[x]", b"[fe80::1%eth0]", b"a..b", "\u00e4\ufffe.test".encode()]
)
def test_what_is_no_name_fails(scene, domain):
    result = find(scene, domain, StubResolver([NameServer("127.0.0.1", 9)]))
    assert result.outcome is Outcome.FAILURE
    assert result.text == b"Sorry, I couldn't find any host named %s. (#5.1.2)\n" % domain


def test_why_a_lookup_failed_is_told_to_the_administrator_and_to_nobody_else(scene):
    table = Table(mx={b"x.test": LookupFailed("192.0.2.53:53 says SERVFAIL")})
    result = find(scene, b"x.test", table)
    assert result.text == SOFT
    assert result.why == "mail for x.test waits: 192.0.2.53:53 says SERVFAIL"


def test_no_domain_looks_like_a_sentence_of_ours_in_the_log(scene):
    table = Table(addresses={b"relay.test": LookupFailed("192.0.2.53:53 says SERVFAIL")})
    routes = {b"": Route("smtp", (b"relay.test",), 25)}
    result = find(scene, b"x alert: no space\nend msg 5", table, smtproutes=routes)
    assert result.why == "mail for x_alert:_no_space/end_msg_5 waits: 192.0.2.53:53 says SERVFAIL"


# --- exchangers -----------------------------------------------------------------------


def test_exchangers_by_preference_and_at_random_among_equals(scene):
    table = Table(
        mx={b"x.test": [(10, b"a.test"), (10, b"b.test"), (20, b"c.test")]},
        addresses={b"a.test": ["192.0.2.1"], b"b.test": ["192.0.2.2"], b"c.test": ["192.0.2.3"]},
    )
    directions = find(scene, b"x.test", table)
    orders = {tuple(addresses(directions)) for _ in range(200)}
    assert orders == {
        ("192.0.2.1", "192.0.2.2", "192.0.2.3"),
        ("192.0.2.2", "192.0.2.1", "192.0.2.3"),
    }


def test_without_exchangers_the_address_of_the_domain(scene):
    assert addresses(find(scene, b"x.test", Table(addresses={b"x.test": ["192.0.2.1"]}))) == ["192.0.2.1"]


def test_an_internationalised_domain_is_asked_for_by_its_a_labels(scene):
    table = Table(addresses={b"xn--bcher-kva.test": ["192.0.2.1"]})
    assert addresses(find(scene, "bücher.test".encode(), table)) == ["192.0.2.1"]


def test_a_null_mx_fails_at_once(scene):
    result = find(scene, b"x.test", Table(mx={b"x.test": [(0, b"")]}, addresses={b"x.test": ["192.0.2.1"]}))
    assert result.outcome is Outcome.FAILURE
    assert b"(#5.1.10)" in result.text


def test_exchangers_without_any_address(scene):
    result = find(scene, b"x.test", Table(mx={b"x.test": [(10, b"gone.test")]}))
    assert result.outcome is Outcome.FAILURE
    assert result.text == b"Sorry, I couldn't find a mail exchanger or IP address. (#5.4.4)\n"


def test_one_exchanger_without_an_address_does_not_matter(scene):
    table = Table(
        mx={b"x.test": [(5, b"gone.test"), (7, b"soft.test"), (10, b"a.test")]},
        addresses={b"a.test": ["192.0.2.1"], b"soft.test": LookupFailed("later")},
    )
    assert addresses(find(scene, b"x.test", table)) == ["192.0.2.1"]


@pytest.mark.parametrize(
    "table",
    [
        Table(mx={b"x.test": LookupFailed("later")}),
        Table(addresses={b"x.test": LookupFailed("later")}),
        Table(mx={b"x.test": [(10, b"a.test")]}, addresses={b"a.test": LookupFailed("later")}),
        # The better exchanger cannot be looked up, the other is this host: no loop is proven.
        Table(
            mx={b"x.test": [(10, b"a.test"), (20, b"me.test")]},
            addresses={b"a.test": LookupFailed("later"), b"me.test": [OURS]},
        ),
    ],
)
def test_a_failed_lookup_is_never_permanent(scene, table):
    result = find(scene, b"x.test", table)
    assert (result.outcome, result.text) == (Outcome.DEFERRAL, SOFT)


def test_a_null_exchanger_beside_others_is_no_host_and_no_refusal(scene):
    table = Table(
        mx={b"x.test": [(0, b""), (10, b"a.test")]},
        addresses={b"a.test": ["192.0.2.1"], b"": ["192.0.2.66"]},
    )
    assert addresses(find(scene, b"x.test", table)) == ["192.0.2.1"]


# --- for how long -----------------------------------------------------------------------


def lasting(seconds, *records):
    return Answer(records, seconds)


@pytest.mark.parametrize(
    ("mx", "first", "second", "expected"), [(20, 300, 300, 20), (300, 20, 300, 20), (300, 300, 20, 20)]
)
def test_directions_hold_no_longer_than_any_answer_that_they_are_made_of(scene, mx, first, second, expected):
    table = Table(
        mx={b"x.test": lasting(mx, MailExchanger(10, b"a.test"), MailExchanger(20, b"b.test"))},
        addresses={b"a.test": lasting(first, "192.0.2.1"), b"b.test": lasting(second, "192.0.2.2")},
    )
    assert find(scene, b"x.test", table).ttl == expected


def test_directions_without_a_host_that_could_not_be_looked_up_do_not_hold_long(scene):
    table = Table(
        mx={b"x.test": [(5, b"soft.test"), (10, b"a.test")]},
        addresses={b"soft.test": LookupFailed("later"), b"a.test": ["192.0.2.1"]},
    )
    assert find(scene, b"x.test", table).ttl == 30


def test_a_route_holds_as_long_as_the_addresses_of_its_hosts(scene):
    hosts = (b"relay.test", b"[192.0.2.7]")
    table = Table(addresses={b"relay.test": lasting(20, "192.0.2.1")})
    assert find(scene, b"x.test", table, smtproutes={b"": Route("smtp", hosts, 25)}).ttl == 20
    assert find(scene, b"x.test", smtproutes={b"": Route("smtp", hosts[1:], 25)}).ttl == float("inf")


# --- this host ------------------------------------------------------------------------


def mx_table(mine):
    return Table(
        mx={b"x.test": [(5, b"a.test"), (mine, b"me.test"), (20, b"b.test"), (30, b"c.test")]},
        addresses={
            b"a.test": ["192.0.2.1"],
            b"me.test": ["192.0.2.50", OURS],
            b"b.test": ["192.0.2.2"],
            b"c.test": ["192.0.2.3"],
        },
    )


def test_only_what_is_better_than_this_host_is_tried(scene):
    assert addresses(find(scene, b"x.test", mx_table(20))) == ["192.0.2.1"]
    assert addresses(find(scene, b"x.test", mx_table(30))) == ["192.0.2.1", "192.0.2.2"]


def test_this_host_at_the_best_preference_is_a_loop(scene):
    for mine in (0, 5):
        result = find(scene, b"x.test", mx_table(mine))
        assert (result.outcome, result.text) == (Outcome.FAILURE, LOOP)


@pytest.mark.parametrize("address", ["::ffff:192.0.2.100", "192.0.2.100"])
def test_this_host_is_known_however_its_address_is_written(scene, address):
    assert find(scene, b"x.test", Table(addresses={b"x.test": [address]})).text == LOOP


def test_what_this_hosts_addresses_are_is_asked_again_after_a_minute(scene, monkeypatch):
    now, ours = [1000.0], {OURS}
    monkeypatch.setattr(directions_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    table = Table(addresses={b"x.test": ["192.0.2.50"]})
    pathfinder = Pathfinder(scene.settings(), table, own=lambda: frozenset(ours), port=25)

    def loops():
        return not isinstance(asyncio.run(pathfinder.find(b"x.test")), Directions)

    assert not loops()
    ours.add("192.0.2.50")
    assert not loops()
    now[0] += 60.0
    assert loops()


def test_an_address_that_we_listen_on_is_ours(scene):
    listen = (Listener("smtp", "192.0.2.1", 2525),)
    assert find(scene, b"[192.0.2.1]", listen=listen).text == LOOP


def test_another_port_of_this_host_is_another_service_unless_we_listen_there(scene):
    routes = {b"": Route("smtp", (), 2600)}
    assert addresses(find(scene, b"[%s]" % OURS.encode(), smtproutes=routes)) == [OURS]
    listen = (Listener("smtp", "0.0.0.0", 2600),)
    assert find(scene, b"[%s]" % OURS.encode(), smtproutes=routes, listen=listen).text == LOOP


def test_port_25_of_this_host_is_this_host_wherever_the_exchangers_of_the_world_listen(scene):
    routes = {b"": Route("smtp", (), 25)}
    pathfinder = Pathfinder(scene.settings(smtproutes=routes), scene.Nowhere(), lambda: {OURS}, port=2525)
    assert asyncio.run(pathfinder.find(b"[192.0.2.100]")).text == LOOP


def test_the_interfaces_of_this_host_are_known():
    ours = own_addresses()
    assert {"127.0.0.1", "0.0.0.0", "::1"} <= ours
    assert "127.0.0.2" not in ours


# --- bounds ---------------------------------------------------------------------------

PREFERENCES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 30)), max_size=100)


@settings(max_examples=100)
@given(PREFERENCES)
def test_whatever_the_dns_says_the_way_is_short_sorted_and_without_this_host(exchangers):
    table = Table(
        mx={b"x.test": sorted((preference, b"h%d.test" % host) for preference, host in exchangers)},
        addresses={b"h%d.test" % host: [f"192.0.2.{host}", f"2001:db8::{host}"] for host in range(31)},
    )
    from_scene = _scene_settings()
    found = asyncio.run(
        Pathfinder(from_scene, table, own=lambda: frozenset({"192.0.2.0"}), port=25).find(b"x.test")
    )
    mine = min((preference for preference, host in exchangers if host == 0), default=99)
    if not isinstance(found, Directions):
        assert found.outcome is Outcome.FAILURE
        assert not any(preference < mine for preference, _ in exchangers)
        return
    stops = found.stops()
    best = {f"192.0.2.{host}": 99 for _, host in exchangers}
    for preference, host in exchangers:
        best[f"192.0.2.{host}"] = min(best[f"192.0.2.{host}"], preference)
    assert 0 < len(stops) <= 20
    assert "192.0.2.0" not in [stop.address for stop in stops]
    order = [best[stop.address] for stop in stops if stop.address in best]
    assert order[0] == min(best.values())
    assert all(preference < mine for preference in order)


def _scene_settings():
    return sys.modules["core_remote_scene"].settings()


@pytest.fixture(autouse=True)
def _loaded(scene):
    """Hypothesis wants no fixture of a function's own."""


# --- with a name server ---------------------------------------------------------------


def test_the_answers_of_a_real_name_server_as_notqmail_reported_them(scene, nameserver):
    records = {
        ("soft.test", "MX"): "SERVFAIL",
        ("nomxhost.test", "MX"): ["10 gone.test."],
        ("me.test", "MX"): ["10 mail.example.test."],
        ("mail.example.test", "A"): ["127.0.0.1"],
        ("mxremote.test", "MX"): ["10 mx.remote.test."],
        ("mx.remote.test", "A"): ["127.0.0.2"],
    }

    async def main():
        async with nameserver(records) as server, scene.Peer(host="127.0.0.2") as peer:
            given = scene.settings()
            more = {"resolver": StubResolver([server.address]), "exchanger_port": peer.port}
            async with scene.remote(given, own=lambda: frozenset({"127.0.0.1"}), **more) as remote:
                domains = [b"nx.test", b"soft.test", b"nomxhost.test", b"me.test", b"mxremote.test"]
                domains += [b"mx.remote.test", b"[127.0.0.2]", b"[127.0.0.1]"]
                return [(await remote.deliver(scene.job(domain=each)))[0] for each in domains]

    accepted = b"127.0.0.2 accepted message.\nRemote host said: 250 2.0.0 accepted\n"
    assert [(each.outcome.value, each.text) for each in asyncio.run(main())] == [
        (b"D", b"Sorry, I couldn't find any host named nx.test. (#5.1.2)\n"),
        (b"Z", SOFT),
        (b"D", b"Sorry, I couldn't find a mail exchanger or IP address. (#5.4.4)\n"),
        (b"D", LOOP),
        (b"K", accepted),
        (b"K", accepted),
        (b"K", accepted),
        (b"D", LOOP),
    ]


# --- families -------------------------------------------------------------------------


@given(st.lists(st.ip_addresses().map(str), max_size=8))
def test_the_families_take_turns_ipv6_first_and_each_keeps_its_order(given):
    found = list(by_turns(given))
    for colon in (True, False):
        assert [one for one in found if (":" in one) is colon] == [
            one for one in given if (":" in one) is colon
        ]
    both = 2 * min(sum(":" in one for one in given), sum(":" not in one for one in given))
    assert all((":" in one) is (at % 2 == 0) for at, one in enumerate(found[:both]))


def test_a_family_that_the_source_does_not_use_is_left_out_before_the_addresses_are_counted(scene):
    hosts = [f"2001:db8::{at}" for at in range(1, 30)]
    table = Table(
        mx={b"x.test": [(10, b"six.test"), (20, b"two.test")]},
        addresses={b"six.test": hosts, b"two.test": ["192.0.2.1", "2001:db8::99"]},
    )
    found = find(scene, b"x.test", table)
    assert len(found.stops()) == 20
    assert found.stops(Source("", None)) == (Stop(b"two.test", "192.0.2.1", 25, preference=20),)
    table = Table(addresses={b"six.test": hosts})
    assert find(scene, b"six.test", table).stops(Source("192.0.2.9", None)) == ()
