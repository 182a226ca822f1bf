"""For how long it may be looked for where a domain's mail goes: a delivery's slot is held meanwhile.

Each search has `SHORT` seconds, which is enough where name servers answer.  As many as `few` at once may
go on for as long as lookups take; the others end then, with what they have found.  So zones that never
answer, however many they are, cannot keep the domains waiting that nobody knows yet.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

SHORT = 5.0
LONG = 30.0
"""Seconds for one part of a search: the exchangers, or all their addresses."""


class Searches:
    """`few`: how many may take longer than `SHORT` at once."""

    def __init__(self, few: int) -> None:
        self._few = few
        self._long: set[Search] = set()

    @contextmanager
    def begin(self) -> Iterator["Search"]:
        """One more; it ends with the context."""
        search = Search(self, asyncio.get_running_loop().time() + SHORT)
        try:
            yield search
        finally:
            self._long.discard(search)

    def may_go_on(self, search: "Search") -> bool:
        if search not in self._long:
            if len(self._long) >= self._few:
                return False
            self._long.add(search)
        return True


class Search:
    def __init__(self, searches: Searches, due: float) -> None:
        self._searches = searches
        self._due = due

    @asynccontextmanager
    async def part(self) -> AsyncIterator[None]:
        """Raises TimeoutError when what is done in this context has to end."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(LONG) as limit:

            def look() -> None:
                if not self._searches.may_go_on(self):
                    limit.reschedule(loop.time())

            timer = loop.call_at(self._due, look)
            try:
                yield
            finally:
                timer.cancel()
