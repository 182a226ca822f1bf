"""Waiting for what nobody tells of: how many connections a service has is asked, of an add-on's as well.

It is looked at again and again, and only by who is about to leave.
"""

import asyncio
from collections.abc import Callable

LOOK_AGAIN = 0.05
"""Seconds between two looks."""


async def until(true: Callable[[], object]) -> None:
    """Returns when it is so, at once where it is so already."""
    while not true():
        await asyncio.sleep(LOOK_AGAIN)
