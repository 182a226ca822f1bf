"""What is installed beside core, by the five groups of entry points.

Core's own SMTP service and transport are found in the same way.  Being installed changes
nothing: a name does something once a control file, or the command line, names it.
"""

import importlib
from collections.abc import Iterable
from functools import cache, reduce
from importlib.machinery import PathFinder
from typing import Any

import msgspec

from openqmail.core.values import ControlError, OpenqmailError


class Entry(msgspec.Struct, frozen=True):
    """An entry point, nothing of it imported yet.  `value`: MODULE:ATTRIBUTE, either dotted."""

    group: str
    name: str
    value: str

    def load(self) -> Any:
        """Raises whatever importing it does."""
        module, _, attribute = self.value.partition("[")[0].partition(":")
        names = filter(None, attribute.strip().split("."))
        return reduce(getattr, names, importlib.import_module(module.strip()))


GROUPS = {
    "openqmail.services": ("service", "control/listen"),
    "openqmail.transports": ("transport", "control/smtproutes"),
    "openqmail.hooks": ("hook", "control/hooks"),
    "openqmail.control": ("control file", ""),
    "openqmail.commands": ("command", ""),
}
"""A group -> what one of it is called, and the control file that names it."""


_told: dict[str, dict[str, Entry]] = {}
"""By group, what `tell` has been told."""

_seen: set[str] = set()


def registered(group: str) -> dict[str, Entry]:
    """The entry points of a group by name.  The first one on the path wins."""
    return _told.get(group, {}) if _told else _found(group)


def everything() -> list[Entry]:
    """What is registered, in all groups."""
    return [entry for group in GROUPS for entry in _found(group).values()]


def tell(entries: Iterable[Entry]) -> None:
    """`everything` as another process has found it: nothing is looked for in this one any more."""
    for entry in entries:
        _told.setdefault(entry.group, {})[entry.name] = entry


def installed(library: str) -> bool:
    """Whether a library that core can do without is there, nothing of it imported yet.  What was seen
    once is there still: this process may not be able to look there any more."""
    if library not in _seen and PathFinder.find_spec(library):
        _seen.add(library)
    return library in _seen


@cache
def _found(group: str) -> dict[str, Entry]:
    from importlib.metadata import entry_points  # noqa: PLC0415  # costs a start more than all of control/

    found: dict[str, Entry] = {}
    for point in sorted(entry_points(group=group), key=lambda point: point.name):
        found.setdefault(point.name, Entry(group, point.name, point.value))
    return found


def find(group: str, name: str) -> Entry:
    """What is registered under a name, not imported yet.  Raises ControlError where a control
    file names it, else OpenqmailError."""
    kind, file = GROUPS[group]
    point = registered(group).get(name)
    if point is None:
        installed = ", ".join(registered(group)) or "none"
        # A service has looked once, when it began.
        remedy = "; what is installed while a service runs, 'openqmail upgrade' takes" if _told else ""
        raise _error(file, f"there is no {kind} '{name}'; installed: {installed}{remedy}")
    return point


def load(group: str, name: str) -> Any:
    """The object that is registered under a name.  Raises as `find` does."""
    point = find(group, name)
    try:
        return point.load()
    except (Exception, SystemExit) as error:  # an add-on may fail in any way while it is imported
        kind, file = GROUPS[group]
        raise _error(file, f"the {kind} '{name}' ({point.value}) cannot be loaded: {error}") from error


def _error(file: str, why: str) -> OpenqmailError:
    return ControlError(file, 0, why) if file else OpenqmailError(why)
