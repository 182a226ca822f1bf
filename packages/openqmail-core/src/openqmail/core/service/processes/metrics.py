"""The process that tells the figures of a service by HTTP, where `control/metrics` names an address.

It holds no mail and no secret, and knows of the others what the supervisor tells it, which it asks at
most once a second.  Imported only where it is wanted, before the process is confined.
"""

import asyncio

from openqmail.core.service.exposition import CONTENT_TYPE, exposed
from openqmail.core.service.frames.supervision import Figures
from openqmail.core.service.processes.process import Process
from openqmail.core.service.scraping import Page, Scraping

FRESH = 1.0
"""Seconds for which figures are told again: the others tell theirs no more often."""

PATIENCE = 2.0
"""Seconds that the supervisor has to answer."""


class _Teller:
    def __init__(self, process: Process) -> None:
        self._process = process
        self._asked: asyncio.Future[Figures] | None = None
        self._when = 0.0

    async def page(self) -> Page:
        """Raises TimeoutError."""
        loop = self._process.loop
        if self._asked is None or loop.time() >= self._when + FRESH:
            self._asked, self._when = self._process.ask_figures(), loop.time()
        async with asyncio.timeout(PATIENCE):
            figures = await asyncio.shield(self._asked)
        return Page(CONTENT_TYPE, exposed(figures))


async def serve(process: Process) -> int:
    """Until it is told to leave; who is being answered then has a moment."""
    scraping = Scraping(_Teller(process).page)
    await scraping.serve(process.inherited.metrics())
    process.ready()
    await process.leave()
    await scraping.close()
    return 0
