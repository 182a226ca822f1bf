"""Whether the hooks that control/hooks names can be made: tried where they are to live.

A hook is somebody else's code.  The supervisor imports it, as all that is loaded before the walls
stand, and never makes one: a process does that which has become what will ask it, with its user, its
walls, a loop and programs, and which ends with it.  What it asks `programs` for there is never run.
A command that only looks imports nothing of it: that is done there, too.
"""

import signal
from functools import partial

from openqmail.core.control import extensions
from openqmail.core.control.accounts import find_accounts
from openqmail.core.control.home import Home
from openqmail.core.control.settings import Settings
from openqmail.core.hooks import STEPS, load_chain
from openqmail.core.hooks.interface import Place
from openqmail.core.log import Log
from openqmail.core.service.confine import harden, walls_of
from openqmail.core.service.confine.asking import SECONDS, ask_entered
from openqmail.core.service.frames.programs import ProgramsClient
from openqmail.core.service.loops import new_loop
from openqmail.core.service.processes.process import Inherited
from openqmail.core.service.supervisor.children import enter
from openqmail.core.values import ControlError, TemporaryFailure
from openqmail.core.world import Clock

PATIENCE = SECONDS * 5 / 6
"""Seconds in which they are to be made: while we are still heard."""


def try_hooks(home: Home, settings: Settings, log: Log, clock: Clock, *, apart: bool = False) -> None:
    """Raises OpenqmailError with the sentence of a hook that is not installed, or cannot be made.

    `apart`: they are not imported here either.  To be called as whoever would start a service."""
    if not settings.hooks:
        return
    if not apart:
        _import(settings)
    inherited = Inherited(home, settings, find_accounts(home), 0, {}, None, None, False)
    for place in STEPS:
        try:
            enter_place = partial(_enter, place, inherited, apart)
            ask_entered(place, enter_place, partial(_make, settings, log, clock, place))
        except TemporaryFailure:
            raise ControlError(
                "control/hooks",
                0,
                f"its hooks cannot be made in {place}: the process that tried it died, or took longer than "
                f"{SECONDS:.0f} seconds; remove or mend them",
            ) from None


def _import(settings: Settings) -> None:
    """Before this process is somebody else, who may not be able to read where they lie."""
    for line in settings.hooks:
        extensions.load("openqmail.hooks", line.name)


def _enter(place: Place, inherited: Inherited, apart: bool, answering: int) -> None:
    if apart:
        harden(no_new_privileges=True)
        _import(inherited.settings)
    enter(place, inherited, {0, 1, 2, answering}, walls_of(place, inherited.home))


def _make(settings: Settings, log: Log, clock: Clock, place: Place) -> bytes:
    async def make() -> None:
        load_chain(settings, log, clock, place, ProgramsClient() if place == "smtpd" else None)

    def took_too_long(*_: object) -> None:
        raise TimeoutError(f"took longer than {PATIENCE:g} seconds")

    signal.signal(signal.SIGALRM, took_too_long)  # within the hook that is made just then, which is named so
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        new_loop().run_until_complete(make())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return b""
