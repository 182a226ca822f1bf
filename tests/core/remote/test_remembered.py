"""For how long it is believed where a domain's mail goes."""

import asyncio
from types import SimpleNamespace

import pytest

from openqmail.core.control.bindings import Source
from openqmail.core.control.settings import Route
from openqmail.core.dns import Answer, MailExchanger
from openqmail.core.log import MemoryLog
from openqmail.core.remote import Directions, Remote, Stop, known
from openqmail.core.remote import remote as remote_module
from openqmail.core.remote.directions import MOST_STOPS
from openqmail.core.values import Outcome, Result


class Resolver:
    """Each domain has one exchanger, as far as it is asked; `held`: it answers when that is set."""

    def __init__(self, ttl):
        self.ttl, self.asked, self.address = ttl, [], "192.0.2.1"
        self.held = asyncio.Event()
        self.held.set()

    async def mx(self, domain):
        self.asked.append(domain)
        address = self.address
        await self.held.wait()
        return Answer((MailExchanger(10, address.replace(".", "-").encode() + b".test"),), self.ttl)

    async def addresses(self, host):
        return Answer((host.removesuffix(b".test").replace(b"-", b".").decode(),), float("inf"))


class Transport:
    """Says to which address it would have gone."""

    def deliver(self, job, stops, source):
        future = asyncio.get_running_loop().create_future()
        future.set_result((Result(Outcome.SUCCESS, stops[0].address.encode()),))
        return future

    def reconfigure(self, settings):
        pass

    async def close(self):
        pass


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(remote_module, "time", SimpleNamespace(monotonic=lambda: now.now))
    return now


def play(scene, ttl, story):
    async def main():
        resolver = Resolver(ttl)
        made = Transport()
        remote = Remote(
            scene.settings(),
            MemoryLog(),
            resolver=resolver,
            own=frozenset,
            transports=lambda _: lambda *_: made,
        )
        try:
            await story(remote, resolver)
        finally:
            await remote.close()

    asyncio.run(main())


@pytest.mark.parametrize(("ttl", "seconds"), [(20.0, 20.0), (86400.0, known.MOST_SECONDS)])
def test_it_is_asked_again_when_the_dns_wants_that_or_after_five_minutes(scene, clock, ttl, seconds):
    async def story(remote, resolver):
        for passed, times in ((0.0, 1), (seconds - 1.0, 1), (1.0, 2), (seconds - 1.0, 2)):
            clock.now += passed
            await remote.deliver(scene.job())
            assert len(resolver.asked) == times

    play(scene, ttl, story)


def test_a_ttl_of_zero_is_asked_for_each_time(scene, clock):
    async def story(remote, resolver):
        for _ in range(3):
            await remote.deliver(scene.job())
        assert len(resolver.asked) == 3

    play(scene, 0.0, story)


def test_what_is_known_of_many_domains_is_bounded_and_the_oldest_is_forgotten(scene, clock, monkeypatch):
    monkeypatch.setattr(known, "MOST", 20)  # ten domains with a stop each

    async def story(remote, resolver):
        for number in range(11):
            await remote.deliver(scene.job(domain=b"d%d.test" % number))
        del resolver.asked[:]
        for number in (10, 1, 0):
            await remote.deliver(scene.job(domain=b"d%d.test" % number))
        assert resolver.asked == [b"d0.test"]

    play(scene, 3600.0, story)


def test_what_was_asked_before_new_settings_is_not_believed_after_them(scene, clock):
    async def story(remote, resolver):
        assert (await remote.deliver(scene.job()))[0].text == b"192.0.2.1"
        resolver.address = "192.0.2.2"
        assert (await remote.deliver(scene.job()))[0].text == b"192.0.2.1"
        remote.reconfigure(scene.settings())
        resolver.held.clear()
        under_way = remote.deliver(scene.job())
        await asyncio.sleep(0)
        remote.reconfigure(scene.settings())
        resolver.address = "192.0.2.3"
        resolver.held.set()
        assert (await under_way)[0].text == b"192.0.2.2"
        assert (await remote.deliver(scene.job()))[0].text == b"192.0.2.3"

    play(scene, 3600.0, story)


def directions(hosts, addresses=1, ttl=3600.0):
    """So many exchangers of one preference, each with as many addresses of both families."""
    families = "192.0.2.%d", "2001:db8::%d"
    return Directions(
        "smtp",
        (
            tuple(
                tuple(
                    Stop(b"h%d.test" % host, family % address, 25)
                    for address in range(addresses)
                    for family in families
                )
                for host in range(hosts)
            ),
        ),
        ttl,
    )


def test_of_a_domain_with_ten_thousand_addresses_only_what_a_delivery_tries_is_kept():
    seen = known.Known()
    seen.put(b"fat.test", directions(100, 50), 0.0)
    assert len(seen) == 1 + 2 * MOST_STOPS
    kept = seen.get(b"fat.test", 1.0)
    assert len(kept.stops()) == MOST_STOPS
    for local in (("192.0.2.200", None), (None, "2001:db8::200")):
        stops = kept.stops(Source(*local))
        assert len(stops) == MOST_STOPS, "a tenant who has one family is left with fewer stops"
    drawn = set()
    for _ in range(20):
        seen.put(b"fat.test", directions(100, 5), 0.0)
        drawn |= {stop.name for stop in seen.get(b"fat.test", 1.0).stops()}
    assert len(drawn) > 10, "the same exchangers have all the mail"


def test_what_is_known_of_fat_domains_is_bounded_by_their_addresses():
    seen = known.Known()
    for number in range(known.MOST // 20):
        seen.put(b"d%d.test" % number, directions(20), 0.0)
        assert len(seen) <= known.MOST
    assert seen.get(b"d%d.test" % number, 1.0) and not seen.get(b"d0.test", 1.0)


def test_what_has_expired_is_forgotten_when_another_domain_comes():
    seen = known.Known()
    for number in range(100):
        seen.put(b"d%d.test" % number, directions(5), 0.0)
    seen.put(b"new.test", directions(1), known.MOST_SECONDS)
    assert len(seen) == 1 + 2
    assert seen.get(b"new.test", 2 * known.MOST_SECONDS) is None and len(seen) == 0


def test_the_way_that_a_hook_has_chosen_is_not_that_of_all_mail_for_the_domain():
    seen, route = known.Known(), Route("smtp", (b"relay.test",))
    seen.put(b"there.test", directions(1), 0.0)
    seen.put(b"there.test", directions(2), 0.0, route)
    assert seen.get(b"there.test", 1.0).length == 2
    assert seen.get(b"there.test", 1.0, route).length == 4
    assert seen.get(b"there.test", 1.0, Route("smtp", (b"relay.test",), 587)) is None
