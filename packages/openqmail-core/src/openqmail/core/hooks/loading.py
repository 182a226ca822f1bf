"""From the lines of `control/hooks` to a chain of hooks, one for each process that asks any."""

from openqmail.core.control import extensions
from openqmail.core.control.settings import HookLine, Settings
from openqmail.core.hooks.chain import HookChain
from openqmail.core.hooks.failure import module_of, told
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
    installed, cannot be made, or is asked nothing anywhere."""
    context = HookContext(settings, log, clock, place, programs)
    made = []
    for line in settings.hooks:
        hook = _made(line, context)
        if hook is not None:
            made.append(Named(line.name, hook, line.timeout, line.on_error))
    return HookChain(made, log, place)


def _made(line: HookLine, context: HookContext) -> object | None:
    """None for a class that nobody asks in this place."""
    factory = extensions.load("openqmail.hooks", line.name)
    value = extensions.find("openqmail.hooks", line.name).value
    if isinstance(factory, type) and not _asked(factory, context.place):
        _useful(line, value, factory)
        return None
    try:
        hook: object = factory(context)
    except ControlError:
        raise
    except (Exception, SystemExit) as error:  # an add-on may fail in any way
        why = f"cannot be made in {context.place}: {told(error, module_of(factory))}; remove or mend it"
        raise ControlError("control/hooks", line.number, f"the hook '{line.name}' ({value}) {why}") from error
    _useful(line, value, hook)
    return hook


def _useful(line: HookLine, value: str, hook: object) -> None:
    """Raises ControlError for what is asked nothing in any place: a filter that filters nothing."""
    if not any(_asked(hook, place) for place in STEPS):
        methods = ", ".join(step for steps in STEPS.values() for step in steps)
        why = f"has none of the methods of a hook ({methods}); spell one of them, or remove it"
        if hook is None:
            why = "gives None where a hook is wanted; have it return one, or remove it"
        raise ControlError("control/hooks", line.number, f"the hook '{line.name}' ({value}) {why}")


def _asked(hook: object, place: Place) -> bool:
    return any(hasattr(hook, step) for step in STEPS[place])
