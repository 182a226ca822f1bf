"""Deliveries to other hosts of which hooks have something to say: routes, the body on the wire, results.

`route` may part the recipients of one delivery: each way is a transaction of its own, and the results
come together again.  `prepare` is asked once for each, when all else about the message is settled.
A hook that fails defers what it was asked about.
"""

import asyncio
from asyncio import Future
from collections.abc import Callable

import msgspec

from openqmail.core.control.settings import Route
from openqmail.core.hooks import Delivery, HookChain
from openqmail.core.ports import RemoteJob
from openqmail.core.remote import report
from openqmail.core.values import Result

Results = tuple[Result, ...]

DIRECT = Route("smtp", ())
"""What is proposed where control/smtproutes says nothing: the domain's own MX."""


class HookedDeliveries:
    """`send` delivers a job by a route, None for the one of control/smtproutes, which `proposed` tells."""

    def __init__(
        self,
        hooks: HookChain,
        proposed: Callable[[bytes], Route | None],
        send: "Callable[[RemoteJob, Route | None], Future[Results]]",
    ) -> None:
        self._hooks = hooks
        self._proposed = proposed
        self._send = send

    @property
    def wanted(self) -> bool:
        """Whether any hook has a say."""
        return any(self._hooks.has(step) for step in ("route", "prepare", "finished"))

    async def deliver(self, job: RemoteJob) -> Results:
        """A result for each recipient, in their order."""
        results: list[Result] = [report.HOOK_FAILED] * len(job.recipients)
        parts = await self._parts(job)

        async def carry_out(route: Route, places: list[int]) -> None:
            for place, result in zip(places, await self._transaction(job, route, places), strict=True):
                results[place] = result

        await asyncio.gather(*(carry_out(route, places) for route, places in parts))
        return tuple(results)

    async def _parts(self, job: RemoteJob) -> list[tuple[Route, list[int]]]:
        """The ways, and the places of the recipients that go by each; where a hook failed, by none."""
        proposed = self._proposed(job.domain) or DIRECT
        if not self._hooks.has("route"):
            return [(proposed, list(range(len(job.recipients))))]
        parts: list[tuple[Route, list[int]]] = []
        for place, recipient in enumerate(job.recipients):
            route = await self._hooks.route(recipient, proposed)
            if route is None:
                continue
            places = next((places for known, places in parts if known == route), None)
            if places is None:
                parts.append((route, [place]))
            else:
                places.append(place)
        return parts

    async def _transaction(self, job: RemoteJob, route: Route, places: list[int]) -> Results:
        if len(places) < len(job.recipients):
            job = _part(job, places)
        delivery = Delivery(
            job.delivery, job.message, job.sender, job.recipients, job.domain, route, job.smtputf8
        )
        if self._hooks.has("prepare"):
            prepared = await self._hooks.prepare(delivery, job.body)
            if prepared.failed:
                return (report.HOOK_FAILED,) * len(job.recipients)
            job = msgspec.structs.replace(job, body=prepared.body)
        known = self._proposed(job.domain)
        results = await self._send(job, None if route == (known or DIRECT) else route)
        if self._hooks.has("finished"):
            self._hooks.finished(delivery, results)
        return results


def _part(job: RemoteJob, places: list[int]) -> RemoteJob:
    return msgspec.structs.replace(
        job,
        recipients=tuple(job.recipients[place] for place in places),
        dsn=tuple(job.dsn[place] for place in places) if job.dsn else (),
    )
