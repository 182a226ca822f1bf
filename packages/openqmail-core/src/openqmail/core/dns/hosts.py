"""Looking up many hosts of one domain: a few at once, and for no longer than one is let."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager

from openqmail.core.dns.types import Answer, LookupFailed, NoReply
from openqmail.core.values import PermanentFailure

AT_ONCE = 10

Found = Answer[str] | PermanentFailure | LookupFailed


async def look_up_hosts(
    addresses: Callable[[bytes], Awaitable[Answer[str]]],
    names: Sequence[bytes],
    limit: AbstractAsyncContextManager[object],
) -> tuple[Found, ...]:
    """What `addresses` says of each name, or raises, in their order; the first are asked for first.

    `limit` raises TimeoutError when it is over; what is not known by then could not be looked up."""
    found: list[Found] = [NoReply(f"there was no time left to look up {name!r}") for name in names]
    left = iter(enumerate(names))

    async def work() -> None:
        for index, name in left:
            try:
                found[index] = await addresses(name)
            except (PermanentFailure, LookupFailed) as error:
                found[index] = error

    try:
        async with limit:
            await asyncio.gather(*(work() for _ in range(min(AT_ONCE, len(names)))))
    except TimeoutError:
        pass
    return tuple(found)
