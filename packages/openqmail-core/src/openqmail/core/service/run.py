"""`openqmail run`: from a home to a running MTA, in the foreground."""

import contextlib
import importlib
import os
import resource
import ssl
import sys

import msgspec

from openqmail.core.control import extensions, hashing
from openqmail.core.control.home import Home
from openqmail.core.control.owner import become_owner, for_everybody, load_late
from openqmail.core.control.reader import read_settings
from openqmail.core.control.settings import METRICS_LIBRARY
from openqmail.core.log import LogWriter
from openqmail.core.service.confine import harden
from openqmail.core.service.lock import HomeLock
from openqmail.core.service.processes.forking import forked, share_memory
from openqmail.core.service.supervisor.ground import proved_settings
from openqmail.core.service.supervisor.legacy import Legacy
from openqmail.core.service.supervisor.shell import Supervisor
from openqmail.core.values import HomeError, OpenqmailError
from openqmail.core.world import SystemClock

_LATE = (
    "asyncio.unix_events",
    "concurrent.futures.thread",
    "encodings.ascii",
    "encodings.idna",
    "encodings.latin_1",
)


def run(home: Home, *, salvage: bool = False) -> int:
    """Serve the home until a signal ends it; the exit code.

    In a home of root's each process runs as its own user; any other runs whole as its owner.
    Raises OpenqmailError where it cannot start.
    """
    if sys.stderr is None:  # it is said on standard output then
        raise HomeError("standard error is closed, and the log goes there; open it, as with 2>FILE")
    _import_all()
    legacy = Legacy.take(os.environ)
    if home.uid or os.geteuid():
        _import_metrics()
        become_owner(home)
    harden(no_new_privileges=False)
    os.umask(0o077)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))  # a descriptor each connection
    clock = SystemClock()
    plain = LogWriter(sys.stderr.fileno(), clock)  # until the settings say in which form
    settings = read_settings(home) if legacy else proved_settings(home, plain, clock)
    lock = HomeLock(home, legacy.lock if legacy else -1)
    log = LogWriter(sys.stderr.fileno(), clock, form=settings.logformat)
    try:
        supervisor = Supervisor(home, settings, lock, clock, log, salvage, legacy)
        share_memory()
        return supervisor.run()
    finally:
        lock.release()


def _import_metrics() -> None:
    """What one process needs that there mostly is not, and which imports it by itself if it can."""
    if os.geteuid() == 0 and not for_everybody(METRICS_LIBRARY):
        with contextlib.suppress(ImportError):  # said when the control files are read
            importlib.import_module("openqmail.core.service.processes.metrics")


def _import_all() -> None:
    """Whatever is imported late elsewhere: who it is then may not be able to read where it lies."""
    _look_aside()
    for group in ("openqmail.services", "openqmail.transports", "openqmail.hooks"):
        for name in extensions.registered(group):
            with contextlib.suppress(OpenqmailError):  # said when a control file names it
                extensions.load(group, name)
    load_late()
    if not for_everybody(*hashing.PACKAGES):
        hashing.load_late()
    for kind in (ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS_SERVER):
        ssl.SSLContext(kind)  # OpenSSL's own start: 2 MiB for each process that makes it for itself
    for module in _LATE:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)


def _look_aside() -> None:
    """Have what is installed found by a process that ends: what it takes to read of all distributions is
    2 MiB that no other process has then."""
    reading, writing = os.pipe()

    def look() -> int:
        with open(writing, "wb") as pipe:
            pipe.write(msgspec.json.encode(extensions.everything()))
        return 0

    pid = forked("looking for add-ons", look)
    os.close(writing)
    with open(reading, "rb") as pipe:
        found = pipe.read()
    os.waitpid(pid, 0)
    with contextlib.suppress(msgspec.DecodeError):  # it broke, and has said so: then it is done here
        extensions.tell(msgspec.json.decode(found, type=list[extensions.Entry]))
