"""Many domains whose name servers never answer, and one whose do."""

import asyncio
from itertools import islice

import pytest

from openqmail.core.dns import Answer, MailExchanger, Patience, StubResolver, resolver
from openqmail.core.remote import Directions, Pathfinder, searches

HOSTILE = 75
EXCHANGERS = 12


def records():
    found = {("good.test", "MX"): ["10 mx.good.test."], ("mx.good.test", "A"): ["192.0.2.1"]}
    for domain in range(HOSTILE):
        found[(f"evil{domain}.test", "MX")] = [
            f"10 mx{host}.evil{domain}.test." for host in range(EXCHANGERS)
        ]
    return found


SILENT = {f"mx{host}.evil{domain}.test" for host in range(EXCHANGERS) for domain in range(HOSTILE)}


def test_domains_whose_name_servers_never_answer_leave_room_to_one_that_does(nameserver, monkeypatch, scene):
    """75 of them want 1,500 questions at once, 20 may be asked; one after the other it would take half
    a minute."""
    monkeypatch.setattr(resolver, "MOST_AT_ONCE", 20)

    async def story():
        async with nameserver(records()) as server:
            server.silent = SILENT
            asked = StubResolver([server.address], patience=Patience(a_try=0.05, a_lookup=3.0))
            pathfinder = Pathfinder(scene.settings(), asked, own=frozenset)
            hostile = [
                asyncio.create_task(pathfinder.find(b"evil%d.test" % domain)) for domain in range(HOSTILE)
            ]
            while sum(server.asked.values()) < HOSTILE + 10:
                await asyncio.sleep(0.01)
            found = await asyncio.create_task(pathfinder.find(b"good.test"))
            for task in hostile:
                task.cancel()
            await asyncio.gather(*hostile, return_exceptions=True)
            return found

    found = asyncio.run(story())
    assert isinstance(found, Directions), found
    assert [stop.address for stop in found.stops()] == ["192.0.2.1"]


class Dark:
    """Knows two exchangers of each domain; what belongs to one that is `silent` is never answered before it
    is `lit`, nor are the exchangers themselves where `all_of_it` is so."""

    def __init__(self, silent, all_of_it):
        self.silent, self.all_of_it, self.lit = silent, all_of_it, asyncio.Event()

    async def mx(self, domain):
        if self.all_of_it:
            await self._look(domain)
        return Answer((MailExchanger(10, b"a." + domain), MailExchanger(20, b"b." + domain)), 600.0)

    async def addresses(self, host):
        await self._look(host)
        return Answer(("192.0.2.1",), 600.0)

    async def _look(self, name):
        if name.endswith(self.silent):
            await self.lit.wait()


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(searches, "SHORT", 0.05)


@pytest.mark.parametrize("all_of_it", [True, False])
def test_of_many_domains_that_nobody_answers_for_only_some_hold_their_slot_for_long(hasty, scene, all_of_it):
    async def story():
        dark = Dark(b"evil.test", all_of_it)
        pathfinder = Pathfinder(scene.settings(concurrencyremote=8), dark, own=frozenset)
        tasks = {asyncio.create_task(pathfinder.find(b"%d.evil.test" % number)) for number in range(10)}
        ended = [await each for each in islice(asyncio.as_completed(tasks, timeout=20.0), 8)]
        assert all(each.host and b"#4.1.2" in each.text and each.why for each in ended)
        left = [task for task in tasks if not task.done()]
        assert len(left) == 2
        dark.lit.set()
        assert all(isinstance(each, Directions) for each in await asyncio.gather(*left))
        dark.lit.clear()  # and their places are free again
        patient = asyncio.create_task(pathfinder.find(b"11.evil.test"))
        crowd = [asyncio.create_task(pathfinder.find(b"%d.evil.test" % number)) for number in (12, 13)]
        assert (await crowd[1]).host
        dark.lit.set()
        assert isinstance(await patient, Directions)
        await asyncio.gather(*crowd)

    asyncio.run(story())


def test_what_was_found_before_a_search_had_to_end_is_tried(hasty, scene):
    async def story():
        pathfinder = Pathfinder(scene.settings(concurrencyremote=4), Dark(b"b.x.test", False), own=frozenset)
        first, second = [asyncio.create_task(pathfinder.find(b"x.test")) for _ in range(2)]
        found = await asyncio.wait_for(second, 20.0)
        assert [stop.name for stop in found.stops()] == [b"a.x.test"]
        assert found.ttl <= 30.0
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)

    asyncio.run(story())
