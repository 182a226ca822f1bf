"""Where mail for a domain goes: control/smtproutes, else an address literal, else MX, else A and AAAA.

Follows RFC 5321 section 5.1, RFC 7505 (null MX) and qmail-remote(8).  A routed host is looked up
by A and AAAA only and may be this host; any other way that leads to this host ends one step
before it: only exchangers of better preference are used, and when there are none it is a loop.
Of a host's addresses IPv6 and IPv4 take turns, IPv6 first (RFC 8305 section 4): a family that does
not work here costs a quarter of a second.  A lookup that failed never turns into a permanent failure.
"""

import random
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, zip_longest

import msgspec

from openqmail.core.control.bindings import ANY, Source
from openqmail.core.control.settings import Route, Settings
from openqmail.core.dns import Answer, LookupFailed, MailExchanger, NoReply, Resolver, behalf, look_up_hosts
from openqmail.core.log.escaping import escape
from openqmail.core.remote import report
from openqmail.core.remote.keys import Keys
from openqmail.core.remote.own import canonical, own_addresses
from openqmail.core.remote.searches import Search, Searches
from openqmail.core.remote.security import Demands
from openqmail.core.remote.transport import Stop
from openqmail.core.smtp.grammar import wire_domain
from openqmail.core.values import PermanentFailure, Result
from openqmail.core.values.address import suffixes

MOST_STOPS = 20
"""No delivery tries more addresses than that: each may take `timeoutconnect` seconds."""

OWN_ADDRESSES_SECONDS = 60.0

Host = tuple[Stop, ...]


class Directions(msgspec.Struct, frozen=True):
    """Hosts by preference, best first; the addresses of each in their order.

    `ttl`: for how many seconds these directions hold."""

    transport: str
    preferences: tuple[tuple[Host, ...], ...]
    ttl: float

    def stops(self, source: Source = ANY) -> tuple[Stop, ...]:
        """What to try, in order: random among the hosts of one preference; only families that the
        source uses, so there may be none."""
        preferences = self.preferences
        if len(preferences) == 1 and len(preferences[0]) == 1:
            stops = preferences[0][0]
        else:
            stops = tuple(
                stop
                for hosts in preferences
                for host in (random.sample(hosts, len(hosts)) if len(hosts) > 1 else hosts)
                for stop in host
            )
        if not source.any_family:
            stops = tuple(stop for stop in stops if source.local(stop.address) is not None)
        return stops[:MOST_STOPS]

    @property
    def length(self) -> int:
        """How many stops there are in all."""
        return sum(len(host) for hosts in self.preferences for host in hosts)

    def shortened(self) -> "Directions":
        """With no more stops of a family than a delivery tries, by lot among the hosts of one preference."""
        if self.length <= MOST_STOPS:
            return self
        left = [MOST_STOPS, MOST_STOPS]

        def fits(stop: Stop) -> bool:
            family = ":" in stop.address
            left[family] -= 1
            return left[family] >= 0

        preferences = []
        for hosts in self.preferences:
            shorter = (tuple(filter(fits, host)) for host in random.sample(hosts, len(hosts)))
            preferences.append(tuple(filter(None, shorter)))
        return Directions(self.transport, tuple(filter(None, preferences)), self.ttl)


def find_route(domain: bytes, routes: dict[bytes, Route]) -> Route | None:
    """What control/smtproutes says of a domain."""
    name = route_key(domain, routes)
    return None if name is None else routes[name]


def route_key(domain: bytes, routes: dict[bytes, Route]) -> bytes | None:
    """Whose line decides: the full domain's, then its `.suffix`es' from the longest, then the default."""
    return next((name for name in chain((domain,), suffixes(domain), (b"",)) if name in routes), None)


def literal(host: bytes) -> str | None:
    """The address of `[192.0.2.1]`, `[IPv6:2001:db8::1]`, `[2001:db8::1]` or a bare `192.0.2.1`."""
    text = host.decode("ascii", "replace")
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
        if text[:5].lower() == "ipv6:":
            text = text[5:]
    elif text.count(".") != 3:
        return None
    try:
        return canonical(text)
    except ValueError:
        return None


def by_turns(addresses: Iterable[str]) -> Iterator[str]:
    """IPv6 and IPv4 alternately, IPv6 first; each family in the order in which it came."""
    families: tuple[list[str], list[str]] = [], []
    for address in addresses:
        families[":" not in address].append(address)
    return (address for pair in zip_longest(*families) for address in pair if address is not None)


class Pathfinder:
    """Finds directions for a domain; `port` is where mail exchangers listen.  Without `keys` no host is asked
    for TLS, and no login is told."""

    def __init__(
        self,
        settings: Settings,
        resolver: Resolver,
        own: Callable[[], frozenset[str]] = own_addresses,
        port: int = 25,
        keys: Keys | None = None,
    ) -> None:
        self._settings = settings
        self._resolver = resolver
        self._own = own
        self._port = port
        self._searches = Searches(max(1, settings.concurrencyremote // 4))
        self._demands = Demands(settings.tlspolicy, keys)
        self._ours: frozenset[str] = frozenset()
        self._ours_until = float("-inf")

    async def find(self, domain: bytes, route: Route | None = None) -> Directions | Result:
        """Directions, or the result for every recipient at that domain; by this `route`, else by the one
        that control/smtproutes has."""
        behalf.set(domain)
        routes = self._settings.smtproutes
        key = route_key(domain, routes)
        proposed = None if key is None else routes[key]
        if route is None:
            route = proposed
        elif route != proposed:
            key = None  # a hook's
        try:
            if route is not None and route.hosts:
                with self._searches.begin() as search:
                    return await self._routed(domain, route, key, search)
            transport, port = ("smtp", self._port) if route is None else (route.transport, route.port)
            address = literal(domain)
            if address is not None:
                if self.is_this_host(address, port):
                    return report.THIS_HOST
                security = self._demands.of(domain, domain, port)
                stop = Stop(domain, address, port, 0, security)
                return Directions(transport, (((stop,),),), float("inf"))
            with self._searches.begin() as search:
                return await self._by_exchangers(domain, transport, port, search)
        except LookupFailed as error:
            return report.lookup_failed(f"mail for {escape(domain).decode()} waits: {error}")

    async def _routed(
        self, domain: bytes, route: Route, key: bytes | None, search: Search
    ) -> Directions | Result:
        # In the order in which the administrator wrote them: each its own preference.
        found = await self._hosts(tuple(enumerate(route.hosts)), route.port, domain, search, True, key)
        hosts = [host for host in found.hosts if host]
        if not hosts:
            found.nothing_failed()
            return report.no_host(route.hosts[0])
        return Directions(route.transport, tuple((host,) for host in hosts), found.ttl)

    async def _by_exchangers(
        self, domain: bytes, transport: str, port: int, search: Search
    ) -> Directions | Result:
        try:
            name = wire_domain(domain)
            async with search.part():
                answer = await self._resolver.mx(name)
        except PermanentFailure:
            return report.no_host(domain)
        except TimeoutError as error:
            raise NoReply("looking up MX takes too long, and so do too many others") from error
        exchangers = answer.records
        if exchangers and all(not each.host for each in exchangers):
            return report.no_mail(domain)
        exchangers = tuple(each for each in exchangers if each.host)
        implicit = not exchangers
        if implicit:
            exchangers = (MailExchanger(0, name),)
        names = tuple((each.preference, each.host) for each in exchangers)
        found = await self._hosts(names, port, domain, search)
        if not any(found.hosts):
            found.nothing_failed()
            return report.no_host(domain) if implicit else report.NO_EXCHANGER
        preferences = self._before_this_host(exchangers, found.hosts)
        if not preferences:
            found.nothing_failed()
            return report.THIS_HOST
        return Directions(transport, preferences, min(answer.ttl, found.ttl))

    def _before_this_host(
        self, exchangers: tuple[MailExchanger, ...], hosts: tuple[Host, ...]
    ) -> tuple[tuple[Host, ...], ...]:
        """The hosts of better preference than the best exchanger that is this host itself."""
        limit = min(
            (
                exchanger.preference
                for exchanger, host in zip(exchangers, hosts, strict=True)
                if any(self.is_this_host(stop.address, stop.port) for stop in host)
            ),
            default=1 << 16,
        )
        groups: dict[int, list[Host]] = {}
        for exchanger, host in zip(exchangers, hosts, strict=True):
            if host and exchanger.preference < limit:
                groups.setdefault(exchanger.preference, []).append(host)
        return tuple(tuple(groups[preference]) for preference in sorted(groups))

    async def _hosts(
        self,
        names: tuple[tuple[int, bytes], ...],
        port: int,
        domain: bytes,
        search: Search,
        routed: bool = False,
        line: bytes | None = None,
    ) -> "_Found":
        """The addresses of each host, which are given with their preference; an empty one for a
        host that has none.  `routed`, `line`: as `Demands.of` has them."""
        hosts: list[Host] = []
        failed: LookupFailed | None = None
        ttl = float("inf")
        answers = await look_up_hosts(self._addresses, tuple(name for _, name in names), search.part())
        for (preference, name), answer in zip(names, answers, strict=True):
            if isinstance(answer, Answer):
                ttl = min(ttl, answer.ttl)
                addresses = by_turns(answer.records)
                security = self._demands.of(domain, name, port, routed, line)
                hosts.append(
                    tuple(Stop(name, address, port, preference, security, routed) for address in addresses)
                )
            else:
                # What could not be looked up may be there in a minute; so this soon again.
                ttl = min(ttl, 30.0)
                if isinstance(answer, LookupFailed):
                    failed = failed or answer
                hosts.append(())
        return _Found(tuple(hosts), failed, ttl)

    async def _addresses(self, host: bytes) -> Answer[str]:
        address = literal(host)
        if address is not None:
            return Answer((address,), float("inf"))
        answer = await self._resolver.addresses(wire_domain(host))
        return Answer(tuple(map(canonical, answer.records)), answer.ttl)

    def is_this_host(self, address: str, port: int) -> bool:
        """It is one of our addresses, and a port where mail comes in: 25, or one that we listen on."""
        listeners = self._settings.listen
        if port not in (25, self._port) and all(port != each.port for each in listeners):
            return False
        now = time.monotonic()
        if now >= self._ours_until:
            self._ours = self._own() | {each.host for each in listeners}
            self._ours_until = now + OWN_ADDRESSES_SECONDS
        return address in self._ours


class _Found(msgspec.Struct, frozen=True):
    hosts: tuple[Host, ...]
    failed: LookupFailed | None
    ttl: float

    def nothing_failed(self) -> None:
        """Raises the LookupFailed, if there was one: with that, nothing is known for good."""
        if self.failed is not None:
            raise self.failed
