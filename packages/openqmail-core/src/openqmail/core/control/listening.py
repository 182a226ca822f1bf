"""control/listen: its lines, and those of which the system could not serve one beside another."""

import ipaddress
from collections.abc import Iterator, Sequence

from openqmail.core.control import syntax
from openqmail.core.control.settings import Listener
from openqmail.core.control.text import ControlText
from openqmail.core.values import ControlError

REMEDY = "change a port, or remove one of them"


def listeners(text: ControlText) -> tuple[Listener, ...]:
    """In their order; what is wrong with a line is recorded in `text`."""
    found: dict[Listener, int] = {}
    for number, line in text.entries():
        one = text.parse(number, line, syntax.listener)
        if one is None:
            continue
        for other, before in found.items():
            if one.place == other.place:
                text.problem(number, f"says the same as line {before}; remove one of them")
                break
            if _in_the_way(one, other):
                text.problem(number, f"port {one.port} is taken there by line {before}; {REMEDY}")
                break
        else:
            found[one] = number
    return tuple(found)


def beside(metrics: Sequence[Listener], listen: Sequence[Listener]) -> Iterator[ControlError]:
    """Lines of control/metrics whose port one of control/listen has."""
    for one in metrics:
        for other in listen:
            if _in_the_way(one, other):
                why = f"port {one.port} is taken there by {other.service} of control/listen; change a port"
                yield ControlError("control/metrics", 0, why)


def _in_the_way(one: Listener, other: Listener) -> bool:
    """Whether the system lets only one of them have its port; 0 is another port each time."""
    if one.port != other.port or not one.port:
        return False
    ours, theirs = _families(one), _families(other)
    return any(
        family in theirs and (one.host == other.host or "" in (ours[family], theirs[family]))
        for family in ours
    )


def _families(one: Listener) -> dict[int, str]:
    """By family, the address; "" for all of it."""
    if not one.host:
        return {4: "", 6: ""}
    address = ipaddress.ip_address(one.host)
    return {address.version: "" if address.is_unspecified else one.host}
