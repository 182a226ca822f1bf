"""From the lines of `control/hooks` to a chain of hooks, one for each process that asks any."""

from openqmail.core.control import extensions
from openqmail.core.control.settings import Settings
from openqmail.core.hooks.chain import HookChain
from openqmail.core.hooks.interface import STEPS, HookContext, Place
from openqmail.core.hooks.method import Named
from openqmail.core.log import Log
from openqmail.core.ports import Programs
from openqmail.core.values import ControlError
from openqmail.core.world import Clock


def load_chain(
    settings: Settings,
    log: Log,
    clock: Clock,
    place: Place = "smtpd",
    programs: Programs | None = None,
) -> HookChain:
    """The hooks that have something to say in this place.  Raises ControlError for one that is not
    installed, or cannot be made."""
    context = HookContext(settings, log, clock, place, programs)
    made = []
    for line in settings.hooks:
        factory = extensions.load("openqmail.hooks", line.name)
        if isinstance(factory, type) and not any(hasattr(factory, step) for step in STEPS[place]):
            continue
        try:
            hook = factory(context)
        except ControlError:
            raise
        except Exception as error:  # an add-on may fail in any way
            raise ControlError(
                "control/hooks", 0, f"the hook '{line.name}' cannot be made: {error!r}; remove or mend it"
            ) from error
        made.append(Named(line.name, hook, line.timeout, line.on_error))
    return HookChain(made, log, place)
