"""The resolver that asks name servers (RFC 1034 section 5.3.1: a stub; RFC 5321 section 5.1).

It follows aliases to records, also where the server does not, but never hands an alias's target
back: what an address says is not rewritten.  An alias as the target of an MX, which RFC 2181
section 10.3 forbids, is followed, too: everybody does.  Who asks what is being asked already
waits for the same reply.  A lookup ends within `Patience.a_lookup`, whatever servers do.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import cast

from openqmail.core.dns import wire
from openqmail.core.dns.cache import Cache, Known
from openqmail.core.dns.servers import Patience, Servers
from openqmail.core.dns.slots import Slots, Ticket, behalf
from openqmail.core.dns.types import (
    Answer,
    BadReply,
    LookupFailed,
    MailExchanger,
    NameServer,
    NoReply,
    NoSuchName,
)

MOST_EXCHANGERS = 100
MOST_ADDRESSES = 50
MOST_ALIASES = 10
MOST_AT_ONCE = 500
"""Questions under way: each has a socket."""


class StubResolver:
    """Asks `nameservers` in this order; with none given, those of the system."""

    def __init__(
        self,
        nameservers: Sequence[NameServer] = (),
        cache: Cache | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._patience = patience or Patience()
        self._servers = Servers(nameservers, self._patience)
        self._cache = Cache() if cache is None else cache
        self._flights: dict[tuple[bytes, str], _Flight] = {}
        self._slots = Slots(MOST_AT_ONCE)

    async def mx(self, domain: bytes) -> Answer[MailExchanger]:
        return cast("Answer[MailExchanger]", await self._answer(domain, "MX"))

    async def ipv4(self, name: bytes) -> Answer[str]:
        return cast("Answer[str]", await self._answer(name, "A"))

    async def texts(self, name: bytes) -> Answer[bytes]:
        return cast("Answer[bytes]", await self._answer(name, "TXT"))

    async def pointers(self, name: bytes) -> Answer[bytes]:
        return cast("Answer[bytes]", await self._answer(name, "PTR"))

    async def addresses(self, host: bytes) -> Answer[str]:
        both = await asyncio.gather(self._look_up(host, "A"), self._look_up(host, "AAAA"))
        answers = [cast("Answer[str]", each) for each in both if isinstance(each, Answer)]
        records = tuple(record for answer in answers for record in answer.records)
        if records or len(answers) == len(both):
            ttl = min(answer.ttl for answer in answers)
            return Answer(records, ttl, all(answer.authentic for answer in answers))
        # A failed lookup says less than one that found nothing.
        errors = [each for each in both if not isinstance(each, Answer)]
        raise _anew(next((error for error in errors if isinstance(error, LookupFailed)), errors[0]))

    async def _answer(self, name: bytes, kind: str) -> Answer[MailExchanger | str | bytes]:
        found = await self._look_up(name, kind)
        if isinstance(found, Answer):
            return found
        raise _anew(found)

    async def _look_up(self, name: bytes, kind: str) -> Known:
        name = name.lower().removesuffix(b".")
        if not wire.is_plain(name):
            return NoSuchName(f"{name.decode('ascii', 'backslashreplace')!r} is not the name of a host")
        key = (name, kind)
        known = self._cache.get(name, kind, time.monotonic())
        if known is not None:
            return known
        flight = self._flights.get(key)
        if flight is None:
            ticket = Ticket()
            flight = self._flights[key] = _Flight(asyncio.create_task(self._fly(key, ticket)), ticket)
        else:
            self._slots.join(flight.ticket, behalf.get())
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting:
                flight.task.cancel()  # of no effect on one that is done
                if self._flights.get(key) is flight:
                    del self._flights[key]

    async def _fly(self, key: tuple[bytes, str], ticket: Ticket) -> Known:
        """Ask for it, in bounded time, and remember what came."""
        name, kind = key
        known: Known
        ttl, asking = self._patience.a_failure, False
        try:
            async with asyncio.timeout(self._patience.a_lookup):
                await self._slots.take(ticket, behalf.get())
                asking = True
                known, ttl = await self._find(name, kind)
        except TimeoutError:
            why = f"asking {self._servers}" if asking else "too much else is being looked up"
            known = NoReply(f"looking up {kind} of {name.decode()} takes too long, {why}")
        except LookupFailed as error:
            known = type(error)(f"looking up {kind} of {name.decode()} failed: {error}")
        finally:
            self._slots.give_back(ticket)
        self._cache.put(name, kind, known, ttl, time.monotonic())
        return known

    async def _find(self, name: bytes, kind: str) -> tuple[Known, float]:
        """What the DNS says, and for how long that holds.  Raises LookupFailed."""
        question = wire.Question(wire.name_of(name), wire.KINDS[kind])
        ttl, authentic, aliases = float("inf"), True, 0
        while True:
            reply, server = await self._servers.ask(question)
            authentic = authentic and server.trusted and reply.authentic
            at = question.name
            while (found := reply.sets.get((at, question.kind))) is None:
                alias = reply.sets.get((at, wire.CNAME))
                if alias is None:
                    break
                at, ttl, aliases = cast(bytes, alias.values[0]), min(ttl, alias.ttl), aliases + 1
                if aliases > MOST_ALIASES:
                    raise BadReply("its aliases are too many, or go in a circle")
            if found is not None:
                ttl = min(ttl, found.ttl)
                return Answer(_records(found, kind), ttl, authentic), ttl
            denied = min(ttl, _denied(reply, at))
            if reply.rcode == wire.NXDOMAIN:
                return NoSuchName(f"there is no name {name.decode()} in the DNS"), denied
            if at == question.name or reply.soa is not None:
                return Answer((), denied, authentic), denied
            # An alias, and not a word about what it leads to: a server that does not follow them.
            question = wire.Question(at, question.kind)


class _Flight:
    """A question under way; `waiting`: how many wait for it."""

    __slots__ = ("task", "ticket", "waiting")

    def __init__(self, task: "asyncio.Task[Known]", ticket: Ticket) -> None:
        self.task = task
        self.ticket = ticket
        self.waiting = 0


def _denied(reply: wire.Reply, name: bytes) -> int:
    """For how long the name's absence may be believed: not at all without the zone's SOA (RFC 2308)."""
    if reply.soa is None:
        return 0
    zone, seconds = reply.soa
    while name != zone:
        if name == b"\0":
            return 0
        name = name[1 + name[0] :]
    return seconds


def _records(found: wire.RecordSet, kind: str) -> tuple[MailExchanger | str | bytes, ...]:
    if kind != "MX":
        return found.values[:MOST_ADDRESSES]
    exchangers = cast(tuple[MailExchanger, ...], found.values)
    # Names that no host can have are passed over; but where there is nothing else, there is an MX.
    usable = [each for each in exchangers if not each.host or wire.is_plain(each.host)] or exchangers
    return tuple(sorted(usable, key=lambda exchanger: exchanger.preference)[:MOST_EXCHANGERS])


def _anew(error: NoSuchName | LookupFailed) -> NoSuchName | LookupFailed:
    """A raised exception carries its traceback along: so what is in the cache is never raised."""
    return type(error)(*error.args)
