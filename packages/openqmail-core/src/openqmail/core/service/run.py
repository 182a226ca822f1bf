"""`openqmail run`: from a home to a running MTA, in the foreground."""

import asyncio
import contextlib
import gc
import importlib
import os
import resource
import sys
from collections.abc import Callable
from functools import partial

from openqmail.core.control import extensions
from openqmail.core.control.home import Home
from openqmail.core.control.owner import become_owner, load_late
from openqmail.core.control.reader import read_settings
from openqmail.core.log import LogWriter
from openqmail.core.service.lock import HomeLock
from openqmail.core.service.mta import Mta
from openqmail.core.values import OpenqmailError
from openqmail.core.world import PosixDisk, SystemClock

LOG_DELAY = 0.005
"""Seconds in which lines of the log come together for one write."""

GARBAGE = (50_000, 20, 20)
"""Rarer collections: a message leaves no cycles behind, and looking for them costs a tenth of the rate."""

_LATE = (
    "concurrent.futures.thread",
    "dns._asyncio_backend",
    "dns.asyncresolver",
    "dns.rdtypes.ANY.CNAME",
    "dns.rdtypes.ANY.MX",
    "dns.rdtypes.ANY.OPT",
    "dns.rdtypes.ANY.SOA",
    "dns.rdtypes.IN.A",
    "dns.rdtypes.IN.AAAA",
    "encodings.ascii",
    "encodings.idna",
    "encodings.latin_1",
)

_new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
with contextlib.suppress(ImportError):  # a platform without it: asyncio's own does the same, slower
    import uvloop

    _new_loop = uvloop.new_event_loop


def run(home: Home, *, salvage: bool = False) -> int:
    """Serve the home until a signal ends it; the exit code.

    Raises OpenqmailError where it cannot start.
    """
    _import_all()
    become_owner(home)
    os.umask(0o077)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))  # a descriptor each connection
    lock = HomeLock(home)
    try:
        with asyncio.Runner(loop_factory=_new_loop) as runner:
            return runner.run(_serve(home, salvage))
    finally:
        lock.release()


def _import_all() -> None:
    """Whatever is imported late elsewhere: the owner may not be able to read where it lies."""
    for group in ("openqmail.services", "openqmail.transports", "openqmail.hooks"):
        for name in extensions.registered(group):
            with contextlib.suppress(OpenqmailError):  # said when a control file names it
                extensions.load(group, name)
    load_late()
    for module in _LATE:
        importlib.import_module(module)


async def _serve(home: Home, salvage: bool) -> int:
    settings = read_settings(home)
    clock = SystemClock()
    log = LogWriter(sys.stderr.fileno(), clock, partial(asyncio.get_running_loop().call_later, LOG_DELAY))
    gc.freeze()  # what is imported stays: no need to look at it in every collection
    gc.set_threshold(*GARBAGE)
    try:
        return await Mta(home, settings, PosixDisk(), clock, log, salvage).serve()
    finally:
        log.flush()
