"""Who may ask when more is wanted than can be asked at once."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqmail.core.dns import LookupFailed, Patience, StubResolver, behalf, resolver
from openqmail.core.dns.slots import Slots, Ticket


def test_who_waits_in_vain_is_told_that_it_was_not_the_name_servers(nameserver, monkeypatch):
    monkeypatch.setattr(resolver, "MOST_AT_ONCE", 1)

    async def story():
        async with nameserver({("a.test", "MX"): ["10 b.test."]}) as server:
            server.silent = {"slow.test"}
            asked = StubResolver([server.address], patience=Patience(a_try=600.0, a_lookup=0.2))
            first = asyncio.create_task(asked.mx(b"slow.test"))
            while not server.asked:
                await asyncio.sleep(0)
            asked._patience = Patience(a_lookup=0.02)
            with pytest.raises(LookupFailed, match=r"MX of a\.test takes too long, too much else"):
                await asked.mx(b"a.test")
            asked._patience = Patience()
            with pytest.raises(LookupFailed, match=r"MX of slow\.test takes too long, asking"):
                await first
            assert (await asked.ipv4(b"a.test")).records == ()  # its slot was given back

    asyncio.run(story())


def test_a_task_asks_on_the_behalf_of_whoever_started_it():
    async def story():
        behalf.set(b"a.test")
        assert await asyncio.create_task(_mine()) == b"a.test"

    async def _mine():
        return behalf.get()

    asyncio.run(story())


async def turns(loop_steps=5):
    for _ in range(loop_steps):
        await asyncio.sleep(0)


def test_who_has_the_fewest_goes_first_and_among_equals_who_came_first():
    async def story():
        slots, order, tickets, asking = Slots(2), [], [], []

        async def ask(owner):
            ticket = Ticket()
            tickets.append(ticket)
            await slots.take(ticket, owner)
            order.append(owner)

        for owner in (b"a", b"a", b"a", b"a", b"b", b"c", b"b"):
            asking.append(asyncio.ensure_future(ask(owner)))
            await turns()
        assert order == [b"a", b"a"]
        for _ in range(5):
            slots.give_back(next(each for each in tickets if each.owner is not None))
            await turns()
        assert order == [b"a", b"a", b"b", b"a", b"c", b"b", b"a"]

    asyncio.run(story())


def test_what_somebody_else_asks_too_is_asked_in_his_turn():
    async def story():
        slots, first, second, shared = Slots(2), Ticket(), Ticket(), Ticket()
        await slots.take(first, b"evil.test")
        await slots.take(second, b"evil.test")
        asking = [
            asyncio.ensure_future(slots.take(ticket, b"evil.test")) for ticket in (Ticket(), Ticket(), shared)
        ]
        slots.join(shared, b"good.test")  # before it has been asked for, and again when it has
        await turns()
        slots.join(shared, b"good.test")
        slots.join(shared, b"other.test")
        slots.give_back(first)
        assert shared.owner == b"good.test"
        assert [task.done() for task in asking] == [False, False, False]
        for task in asking:
            task.cancel()

    asyncio.run(story())


@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.sampled_from(["ask", "join", "end", "leave"]), st.integers(0, 5))),
)
def test_never_more_than_there_are_and_none_is_lost(most, steps):
    async def story():
        slots, tickets, tasks = Slots(most), [], []

        async def ask(ticket, owner):
            await slots.take(ticket, owner)

        def held():
            return [each for each in tickets if each.owner is not None]

        for what, at in steps:
            if what == "ask":
                tickets.append(Ticket())
                tasks.append(asyncio.ensure_future(ask(tickets[-1], b"%d" % at)))
            elif tickets and what == "join":
                slots.join(tickets[at % len(tickets)], b"%d" % at)
            elif what == "end" and held():
                slots.give_back(held()[at % len(held())])
            elif what == "leave" and tasks:
                place = at % len(tasks)
                tasks[place].cancel()
                if at % 2:
                    await turns(1)
                slots.give_back(tickets[place])
            await turns(2)
            waiting = [task for task in tasks if not task.done()]
            assert len(held()) <= most
            assert len(held()) == most or not waiting
        while held():
            slots.give_back(held()[0])
            await turns(2)
        assert all(task.done() for task in tasks)
        assert slots._free == most
        assert not slots._held

    asyncio.run(story())
