"""Many domains whose name servers never answer, and one whose do."""

import asyncio

from openqmail.core.dns import Patience, StubResolver, resolver
from openqmail.core.remote import Directions, Pathfinder

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
