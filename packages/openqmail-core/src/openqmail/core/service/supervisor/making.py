"""Whether the hooks that control/hooks names can be made: tried where they are to live.

A hook is somebody else's code.  The supervisor imports it, as all that is loaded before the walls
stand, and never makes one: a process does that which has become what will ask it, with its user, its
walls, a loop and programs, and which ends with it.  What it asks `programs` for there is never run.
"""

from functools import partial

from openqmail.core.control import extensions
from openqmail.core.control.accounts import find_accounts
from openqmail.core.control.home import Home
from openqmail.core.control.settings import Settings
from openqmail.core.hooks import STEPS, load_chain
from openqmail.core.hooks.interface import Place
from openqmail.core.log import Log
from openqmail.core.service.confine import walls_of
from openqmail.core.service.confine.asking import SECONDS, ask_entered
from openqmail.core.service.frames.programs import ProgramsClient
from openqmail.core.service.loops import new_loop
from openqmail.core.service.processes.process import Inherited
from openqmail.core.service.supervisor.children import enter
from openqmail.core.values import ControlError, TemporaryFailure
from openqmail.core.world import Clock


def try_hooks(home: Home, settings: Settings, log: Log, clock: Clock) -> None:
    """Raises OpenqmailError with the sentence of a hook that is not installed, or cannot be made."""
    if not settings.hooks:
        return
    for line in settings.hooks:
        extensions.load("openqmail.hooks", line.name)  # who it is then may not be able to read it
    inherited = Inherited(home, settings, find_accounts(home), 0, {}, None, None, False)
    for place in STEPS:
        try:
            enter_place = partial(_enter, place, inherited)
            ask_entered(place, enter_place, partial(_make, settings, log, clock, place))
        except TemporaryFailure:
            raise ControlError(
                "control/hooks",
                0,
                f"its hooks cannot be made in {place}: the process that tried it died, or took longer than "
                f"{SECONDS:.0f} seconds; remove or mend them",
            ) from None


def _enter(place: Place, inherited: Inherited, answering: int) -> None:
    enter(place, inherited, {0, 1, 2, answering}, walls_of(place, inherited.home))


def _make(settings: Settings, log: Log, clock: Clock, place: Place) -> bytes:
    async def make() -> None:
        load_chain(settings, log, clock, place, ProgramsClient() if place == "smtpd" else None)

    new_loop().run_until_complete(make())
    return b""
