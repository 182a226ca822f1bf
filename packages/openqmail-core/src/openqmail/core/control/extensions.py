"""What is installed beside core, by the five groups of entry points.

Core's own SMTP service and transport are found in the same way.  Being installed changes
nothing: a name does something once a control file, or the command line, names it.
"""

from functools import cache
from typing import TYPE_CHECKING, Any

from openqmail.core.values import ControlError, OpenqmailError

if TYPE_CHECKING:  # imported where it is used: it costs a start more than all of control/
    from importlib.metadata import EntryPoint

GROUPS = {
    "openqmail.services": ("service", "control/listen"),
    "openqmail.transports": ("transport", "control/smtproutes"),
    "openqmail.hooks": ("hook", "control/hooks"),
    "openqmail.control": ("control file", ""),
    "openqmail.commands": ("command", ""),
}
"""A group -> what one of it is called, and the control file that names it."""


@cache
def registered(group: str) -> "dict[str, EntryPoint]":
    """The entry points of a group by name.  The first one on the path wins."""
    from importlib.metadata import entry_points  # noqa: PLC0415

    found: dict[str, EntryPoint] = {}
    for point in sorted(entry_points(group=group), key=lambda point: point.name):
        found.setdefault(point.name, point)
    return found


def find(group: str, name: str) -> "EntryPoint":
    """What is registered under a name, not imported yet.  Raises ControlError where a control
    file names it, else OpenqmailError."""
    kind, file = GROUPS[group]
    point = registered(group).get(name)
    if point is None:
        installed = ", ".join(registered(group)) or "none"
        raise _error(file, f"there is no {kind} '{name}'; installed: {installed}")
    return point


def load(group: str, name: str) -> Any:
    """The object that is registered under a name.  Raises as `find` does."""
    point = find(group, name)
    try:
        return point.load()
    except Exception as error:  # an add-on may fail in any way while it is imported
        kind, file = GROUPS[group]
        raise _error(file, f"the {kind} '{name}' ({point.value}) cannot be loaded: {error}") from error


def _error(file: str, why: str) -> OpenqmailError:
    return ControlError(file, 0, why) if file else OpenqmailError(why)
