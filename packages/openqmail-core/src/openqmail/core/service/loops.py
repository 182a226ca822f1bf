"""What a process needs between its fork and its loop."""

import asyncio
import contextlib
import os
import resource
from collections.abc import Callable, Iterable

GARBAGE = (50_000, 20, 20)
"""Rarer collections: a message leaves no cycles behind, and looking for them costs a tenth of the rate."""

new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
with contextlib.suppress(ImportError):  # a platform without it: asyncio's own does the same, slower
    import uvloop

    new_loop = uvloop.new_event_loop


def close_all_but(keep: Iterable[int]) -> None:
    """Close every descriptor but these."""
    low = 0
    for descriptor in (*sorted(keep), _end_of_open()):
        if low < descriptor:  # Python makes of an empty range all that there are
            os.closerange(low, descriptor)
        low = max(low, descriptor + 1)


def _end_of_open() -> int:
    """One more than the highest descriptor that may be open."""
    try:
        return max(map(int, os.listdir("/proc/self/fd"))) + 1
    except OSError:
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
