"""Serves the port RemoteDelivery: finds out where a domain's mail goes, and hands it to a transport.

What was found out holds for as long as the DNS allows, at most five minutes, and until the
control files are read again; while it holds, a delivery starts without waiting for anything.
"""

import asyncio
import time
from asyncio import Future
from collections.abc import Callable, Coroutine
from functools import lru_cache, partial
from typing import Any, cast

from openqmail.core.control.bindings import ANY, Source
from openqmail.core.control.extensions import load
from openqmail.core.control.settings import Route, Settings
from openqmail.core.dns import NameServer, Resolver, StubResolver
from openqmail.core.hooks import HookChain
from openqmail.core.log import Alert, Log
from openqmail.core.ports import RemoteJob
from openqmail.core.remote import report
from openqmail.core.remote.directions import Directions, Pathfinder, find_route
from openqmail.core.remote.hooked import HookedDeliveries
from openqmail.core.remote.keys import Keys
from openqmail.core.remote.known import Known
from openqmail.core.remote.own import own_addresses
from openqmail.core.remote.tcpto import Timeouts
from openqmail.core.remote.transport import Counted, Transport, TransportFactory
from openqmail.core.values import OpenqmailError, Result

GROUP = "openqmail.transports"
MOST_SENDERS = 1000

Results = Future[tuple[Result, ...]]


def load_transport(name: str) -> TransportFactory:
    """The transport of that name among what is installed.  Raises OpenqmailError."""
    return cast(TransportFactory, load(GROUP, name))


class Remote:
    """Deliveries to other hosts.

    Without a `resolver`, name servers are asked as `control/resolvers` says.  `exchanger_port`
    is where the exchangers of the world listen.  Without `timeouts`, which addresses were silent is
    forgotten with this object; without `keys` there is no TLS, and no login.  `hooks`: those of mail going
    out."""

    def __init__(
        self,
        settings: Settings,
        log: Log,
        *,
        resolver: Resolver | None = None,
        transports: Callable[[str], TransportFactory] = load_transport,
        own: Callable[[], frozenset[str]] = own_addresses,
        exchanger_port: int = 25,
        timeouts: Timeouts | None = None,
        keys: Keys | None = None,
        hooks: HookChain | None = None,
    ) -> None:
        self._settings = settings
        self._log = log
        self._given = resolver
        self._load = transports
        self._own = own
        self._port = exchanger_port
        self._timeouts = timeouts or Timeouts()
        self._transports: dict[str, Transport] = {}
        self._known = Known()
        self._tasks: set[asyncio.Task[None]] = set()
        self._resolver = resolver or resolver_of(settings)
        self._keys = keys
        self._pathfinder = self._new_pathfinder()
        self._source_of = _sources(settings)
        self._hooked = self._with(hooks)

    def deliver(self, job: RemoteJob) -> Results:
        if self._hooked is None:
            return self._deliver(job, None)
        future: Results = asyncio.get_running_loop().create_future()
        self._spawn(self._ask_hooks(self._hooked, job, future))
        return future

    def _deliver(self, job: RemoteJob, route: Route | None) -> Results:
        """By this route, else as control/smtproutes and the DNS say."""
        directions = self._known.get(job.domain, time.monotonic(), route)
        if directions is not None:
            transport = self._transports.get(directions.transport)
            if transport is not None:
                return self._send(transport, job, directions)
            return self._hand_over(job, directions)
        future: Results = asyncio.get_running_loop().create_future()
        self._spawn(self._find_out(job, route, future))
        return future

    def reconfigure(
        self, settings: Settings, hooks: HookChain | None = None, keys: Keys | None = None
    ) -> None:
        """Deliveries from now on obey these settings and hooks; those under way keep theirs.  Without `keys`
        those that were there stay."""
        self._keys = keys or self._keys
        self._hooked = self._with(hooks)
        if self._given is None and settings.resolvers != self._settings.resolvers:
            self._resolver = resolver_of(settings)
        self._settings = settings
        self._source_of = _sources(settings)
        self._known.clear()
        self._pathfinder = self._new_pathfinder()
        for transport in self._transports.values():
            transport.reconfigure(settings)

    def connections(self) -> tuple[int, int]:
        """Of those transports that count them: how many are open, and how many there have been so far."""
        counted = [one for one in self._transports.values() if isinstance(one, Counted)]
        return sum(one.open for one in counted), sum(one.connected for one in counted)

    async def close(self) -> None:
        """QUIT to the connections that are kept, in bounded time; what is under way is deferred."""
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.gather(*(transport.close() for transport in self._transports.values()))
        self._timeouts.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _with(self, hooks: HookChain | None) -> HookedDeliveries | None:
        """None where no hook has a say."""
        if hooks is None:
            return None
        hooked = HookedDeliveries(hooks, self._proposed, self._deliver)
        return hooked if hooked.wanted else None

    def _proposed(self, domain: bytes) -> Route | None:
        return find_route(domain, self._settings.smtproutes)

    async def _ask_hooks(self, hooked: HookedDeliveries, job: RemoteJob, future: Results) -> None:
        try:
            results = await hooked.deliver(job)
        except asyncio.CancelledError:
            results = _all(job, report.STOPPED)
        except Exception as error:  # a fault of ours must not hold a message's delivery for ever
            results = self._fault(job, error)
        if not future.done():
            future.set_result(results)

    async def _find_out(self, job: RemoteJob, route: Route | None, future: Results) -> None:
        pathfinder = self._pathfinder
        try:
            found = await pathfinder.find(job.domain, route)
            if isinstance(found, Directions):
                if pathfinder is self._pathfinder:
                    self._known.put(job.domain, found, time.monotonic(), route)
                self._hand_over(job, found).add_done_callback(partial(self._pass_on, job, future))
                return
            results = _all(job, found)
        except asyncio.CancelledError:
            results = _all(job, report.STOPPED)
        except Exception as error:  # a fault of ours must not hold a message's delivery for ever
            results = self._fault(job, error)
        if not future.done():
            future.set_result(results)

    def _pass_on(self, job: RemoteJob, future: Results, done: Results) -> None:
        if future.done():
            return
        error = None if done.cancelled() else done.exception()
        if done.cancelled():
            future.set_result(_all(job, report.STOPPED))
        elif error is not None:
            future.set_result(self._fault(job, error))
        else:
            future.set_result(done.result())

    def _fault(self, job: RemoteJob, error: BaseException) -> tuple[Result, ...]:
        self._log(Alert(f"delivery {job.delivery} met a fault in remote: {error!r}"))
        return _all(job, report.FAULT)

    def _new_pathfinder(self) -> Pathfinder:
        return Pathfinder(self._settings, self._resolver, self._own, self._port, self._keys)

    def _hand_over(self, job: RemoteJob, directions: Directions) -> Results:
        transport = self._transports.get(directions.transport)
        if transport is None:
            try:
                transport = self._load(directions.transport)(self._settings, self._log, self._timeouts)
            except (OpenqmailError, KeyError):
                future: Results = asyncio.get_running_loop().create_future()
                future.set_result(_all(job, report.no_transport(directions.transport)))
                return future
            self._transports[directions.transport] = transport
        return self._send(transport, job, directions)

    def _send(self, transport: Transport, job: RemoteJob, directions: Directions) -> Results:
        source = ANY if self._source_of is None else self._source_of(job.sender)
        stops = directions.stops(source)
        if stops:
            return transport.deliver(job, stops, source)
        future: Results = asyncio.get_running_loop().create_future()
        future.set_result(_all(job, report.no_family(source.place)))
        return future


def resolver_of(settings: Settings) -> Resolver:
    return StubResolver([NameServer(each.address, each.port, each.trusted) for each in settings.resolvers])


def _sources(settings: Settings) -> Callable[[bytes], Source] | None:
    """The source of a sender's mail; None when nobody has one of his own."""
    bindings = settings.sources()
    return lru_cache(MOST_SENDERS)(bindings.source_of) if bindings.lines else None


def _all(job: RemoteJob, result: Result) -> tuple[Result, ...]:
    return (result,) * len(job.recipients)
