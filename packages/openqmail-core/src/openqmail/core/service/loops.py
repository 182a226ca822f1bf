"""What a process needs between its fork and its loop."""

import asyncio
import contextlib
import ctypes
import mmap
import os
import resource
import sys
from collections.abc import Callable, Iterable

GARBAGE = (50_000, 20, 20)
"""Rarer collections: a message leaves no cycles behind, and looking for them costs a tenth of the rate."""

new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
with contextlib.suppress(ImportError):  # a platform without it: asyncio's own does the same, slower
    import uvloop

    def new_loop() -> asyncio.AbstractEventLoop:
        """uvloop's has a buffer of 250 KiB in itself, which is filled with zeros as it is made; that
        memory is taken when the buffer is used."""
        loop = uvloop.new_event_loop()
        _give_back_zeros(id(loop), loop.__sizeof__())
        return loop


def _give_back_zeros(begin: int, size: int) -> None:
    """Give whole pages that have only zeros back to the system: one that is read again has zeros.

    `begin`: an address in memory that Python has from the system."""
    if _madvise is None:
        return
    page = mmap.PAGESIZE
    zeros = bytes(page)
    for at in range(-(-begin // page) * page, begin + size - page + 1, page):
        if ctypes.string_at(at, page) == zeros:
            give_back(at, page)


def give_back(begin: int, size: int) -> None:
    """Give these whole pages back to the system.  One that is looked at again is as it was at first: of
    zeros, or as its file has it."""
    if _madvise is not None:
        _madvise(begin, size, mmap.MADV_DONTNEED)


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


# Elsewhere than on Linux the advice means something else.  Made before the forks, and so shared.
_madvise = ctypes.CDLL(None).madvise if sys.platform == "linux" else None
if _madvise is not None:
    _madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
