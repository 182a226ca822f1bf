"""What a delivery to another host would do, step by step: the DNS is asked, and no host.

The steps are what the pathfinder itself asks of the resolver and gets, so nothing here decides by
rules of its own.  Whether a host takes mail is seen only when it is tried.
"""

import time
from collections.abc import Callable, Collection, Mapping
from functools import partial

from openqmail.core.control.bindings import Source
from openqmail.core.control.settings import Route, Settings
from openqmail.core.dns import Answer, LookupFailed, MailExchanger, NoSuchName, Resolver
from openqmail.core.log.escaping import readable
from openqmail.core.ports import Explanation, Step
from openqmail.core.remote import report
from openqmail.core.remote.dialing import NotBound, bound
from openqmail.core.remote.directions import Directions, Pathfinder, literal, route_key
from openqmail.core.remote.keys import Keys
from openqmail.core.remote.own import canonical, own_addresses
from openqmail.core.remote.remote import load_transport, resolver_of
from openqmail.core.remote.security import PLAIN, Demands, Security
from openqmail.core.remote.tcpto import REST, Silence
from openqmail.core.remote.transport import Stop
from openqmail.core.tls import Policy
from openqmail.core.values import OpenqmailError, Outcome, Result

WOULD_TRY = Result(Outcome.SUCCESS, b"it would be tried there now\n")

Place = Callable[[str, bytes], str]
"""Where the control file of this name has this key."""


async def explain(
    domain: bytes,
    sender: bytes,
    settings: Settings,
    place: Place,
    silences: Mapping[str, Silence],
    resolver: Resolver | None = None,
    own: Callable[[], frozenset[str]] = own_addresses,
    keys: Keys | None = None,
) -> Explanation:
    """For mail of this sender to a domain (lower case); `silences`: addresses that were silent.  Without
    `keys` nothing is said of TLS."""
    trail = [_routed(domain, settings.smtproutes, partial(place, "smtproutes"))]
    telling = _Telling(resolver or resolver_of(settings), trail)
    pathfinder = Pathfinder(settings, telling, own, keys=keys)
    found = await pathfinder.find(domain)
    source = settings.sources().source_of(sender)
    trail.append(_bound(source, settings))
    if isinstance(found, Result):
        if found is report.THIS_HOST:
            trail += _ourselves(domain, telling, pathfinder.is_this_host)
        else:
            names = telling.wanted - {b""}
            trail += _secured(_by_name(domain, settings, keys, names), partial(place, "tlspolicy"))
        return Explanation(tuple(trail), found)
    stops = found.stops(source)
    now = time.time()
    for at, stop in enumerate(stops, 1):
        rest = _rest(silences.get(stop.address), now)
        trail.append(Step("way", _way(at, stop) + (f": it was silent, and {rest}" if rest else "")))
    trail += _secured(stops, partial(place, "tlspolicy"))
    used = {host[0].name for hosts in found.preferences for host in hosts}
    if passed := [readable(name) for name in telling.exchangers if name not in used]:
        ours = _ourselves(domain, telling, pathfinder.is_this_host)
        named = [step.text.partition(" ")[0] for step in ours]
        text = "is no better an exchanger than this host"
        trail += ours + [Step("no way", f"{name} {text}") for name in passed if name not in named]
    result = _result(found, stops, source)
    if result is WOULD_TRY and all(_rest(silences.get(stop.address), now).startswith("is") for stop in stops):
        result = report.NOT_CONNECTED
    return Explanation(tuple(trail), result)


def _by_name(
    domain: bytes, settings: Settings, keys: Keys | None, exchangers: Collection[bytes]
) -> tuple[Stop, ...]:
    """The hosts that have no address now: what holds there goes by their names."""
    key = route_key(domain, settings.smtproutes)
    route = None if key is None else settings.smtproutes[key]
    demands = Demands(settings.tlspolicy, keys)
    if route is not None and route.hosts:
        secured = ((name, demands.of(domain, name, route.port, True, key)) for name in route.hosts)
    else:
        secured = ((name, demands.of(domain, name, 25)) for name in sorted(exchangers))
    return tuple(Stop(name, "", 25, security=security) for name, security in secured)


def _ourselves(domain: bytes, telling: "_Telling", ours: Callable[[str, int], bool]) -> list[Step]:
    """The hosts that are this one, and by which address."""
    address = literal(domain)
    found = telling.found if address is None else {domain: (address,)}
    steps = []
    for name, addresses in found.items():
        for one in addresses:
            if ours(one, 25):
                steps.append(
                    Step("no way", f"{readable(name)} is this host itself: {one} is an address of it")
                )
                break
    return steps


def _rest(one: Silence | None, now: float) -> str:
    """Whether an address is left alone, in words; how long exactly, only the process knows that drew it."""
    if one is None or one.count < 2 or not 0 <= now - one.when < REST[-1]:
        return ""
    minutes = int(one.when + REST[-1] - now) // 60 + 1
    sure = now - one.when < REST[0]
    return f"{'is' if sure else 'may be'} left alone, for {minutes} minutes at most"


def _result(found: Directions, stops: tuple[Stop, ...], source: Source) -> Result:
    if not stops:
        return report.no_family(source.place)
    try:
        load_transport(found.transport)
    except (OpenqmailError, KeyError):
        return report.no_transport(found.transport)
    address = source.local(stops[0].address)
    if address:
        try:
            bound(address, ":" in address).close()
        except (NotBound, OSError):
            return report.not_bound(address)
    return WOULD_TRY


def _routed(domain: bytes, routes: dict[bytes, Route], place: Callable[[bytes], str]) -> Step:
    key = route_key(domain, routes)
    if key is None:
        then = (
            "its mail exchangers are looked for" if literal(domain) is None else "mail goes to that address"
        )
        return Step("control/smtproutes", f"no line for this domain: {then}")
    route = routes[key]
    hosts = ", ".join(f"{readable(host)} port {route.port}" for host in route.hosts)
    by = "" if route.transport == "smtp" else f" by {route.transport}"
    return Step(place(key), f"goes{by} to {hosts or f'its mail exchangers, port {route.port}'}")


def _bound(source: Source, settings: Settings) -> Step:
    """The source address and the name in HELO."""
    families = [("IPv6", source.v6), ("IPv4", source.v4)]
    used = [f"{name} from {address or 'any address'}" for name, address in families if address is not None]
    helo = readable(source.helo or settings.helohost)
    place = (source.place or "control/bindings").replace(", line", " line")  # as the other steps have it
    return Step(place, f"{', '.join(used)}; HELO {helo}")


def _secured(stops: tuple[Stop, ...], place: Callable[[bytes], str]) -> list[Step]:
    """What each host has to fulfil."""
    names: dict[Security, list[bytes]] = {}
    for stop in stops:
        hosts = names.setdefault(stop.security, [])
        if stop.name not in hosts:
            hosts.append(stop.name)
    trail = []
    for one, hosts in names.items():
        if one == PLAIN:
            continue
        text = f"{', '.join(map(readable, hosts))}: {one.policy.value}, {_MEANS[one.policy]}"
        if one.references:
            text += f", for {' or '.join(one.references)}"
        if one.key is not None:
            trail.append(Step(place(one.key), text))
        else:
            trail.append(Step("control/tlspolicy", f"{text} ({one.reason or 'no line speaks of it'})"))
        if one.login is not None:
            trail.append(Step("login", f"we say by AUTH who we are to {readable(hosts[0])}"))
    return trail


_MEANS = {
    Policy.NONE: "TLS is never begun",
    Policy.MAY: "TLS where it is offered, whoever it is",
    Policy.ENCRYPT: "never without TLS, whoever it is",
    Policy.VERIFY: "never without TLS and a certificate that is believed",
    Policy.SECURE: "never without TLS and a certificate that is believed",
}


def _way(at: int, stop: Stop) -> str:
    return f"{at}: {readable(stop.name)} at {stop.place}"


class _Telling:
    """A resolver that writes down what it was asked and answers."""

    def __init__(self, resolver: Resolver, trail: list[Step]) -> None:
        self._resolver = resolver
        self._trail = trail
        self.found: dict[bytes, tuple[str, ...]] = {}
        """Addresses of hosts."""
        self.exchangers: list[bytes] = []
        """Those that have addresses."""
        self.wanted: set[bytes] = set()

    async def mx(self, domain: bytes) -> Answer[MailExchanger]:
        what = f"MX of {readable(domain)}"
        try:
            answer = await self._resolver.mx(domain)
        except (NoSuchName, LookupFailed) as error:
            self._trail.append(Step(what, str(error)))
            raise
        if answer.records and not any(each.host for each in answer.records):
            text = "null: this domain takes no mail (RFC 7505)"
        else:
            text = ", ".join(f"{each.preference} {readable(each.host)}" for each in answer.records)
        self._trail.append(Step(what, _with_proof(text or "none: the domain's own addresses count", answer)))
        self.wanted = {each.host for each in answer.records}
        return answer

    async def addresses(self, host: bytes) -> Answer[str]:
        what = f"addresses of {readable(host)}"
        try:
            answer = await self._resolver.addresses(host)
        except (NoSuchName, LookupFailed) as error:
            self._trail.append(Step(what, str(error)))
            raise
        self._trail.append(Step(what, _with_proof(", ".join(answer.records) or "none", answer)))
        self.found[host] = tuple(map(canonical, answer.records))
        if host in self.wanted and answer.records:
            self.exchangers.append(host)
        return answer


def _with_proof(text: str, answer: Answer[MailExchanger] | Answer[str]) -> str:
    return f"{text} (DNSSEC: {'proved' if answer.authentic else 'not proved'})"
