"""What the control files let everybody do, though hardly anybody means that.  Pure.

An open relay is found by spammers within hours, and no other host takes its mail for long after.
"""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from typing import cast

from openqmail.core.control.pem import IMPLICIT
from openqmail.core.control.rules import Network, Rules, network
from openqmail.core.control.settings import Listener
from openqmail.core.values import ControlError

RULES = "control/rules"

LARGEST = {4: 8, 6: 7}
"""The fewest bits of a network that one host may be for: 10.0.0.0/8 and fc00::/7 are the largest private
ones."""


def everybody(values: Mapping[str, object]) -> Iterator[ControlError]:
    """Warnings; `values`: by file."""
    if isinstance(rules := values.get("rules"), Rules):
        yield from _relayed(rules)
    if values.get("authplain"):
        yield from _heard(cast(tuple[Listener, ...], values.get("listen") or ()))


def _relayed(rules: Rules) -> Iterator[ControlError]:
    """RELAYCLIENT for whoever comes; with an @ in its value all recipients become those of one domain."""
    networks: dict[int, list[Network]] = {4: [], 6: []}  # two ranges may be all there is
    for pattern, rule in rules.rules.items():
        if not rule.allow or "@" in rule.variables.get("RELAYCLIENT", "@"):
            continue
        if not pattern:
            yield _open("everybody who has no rule of his own, by the one without a pattern")
        elif pattern == "=":
            yield _open("everybody whose address has a name, by the pattern '='")
        elif not pattern.startswith("="):
            found = network(pattern)
            networks[found.version].append(found)
    for version, some in networks.items():
        for each in ipaddress.collapse_addresses(some):  # type: ignore[type-var]  # all are of one version
            if each.prefixlen < LARGEST[version]:
                yield _open(f"all of {each}")


def _open(whom: str) -> ControlError:
    why = (
        f"gives RELAYCLIENT to {whom}, so strangers may send through this host to anybody (an open relay); "
        "give it to networks of yours alone, like 10.64.0.0/10, and let all others log in"
    )
    return ControlError(RULES, 0, why)


def _heard(listeners: Iterable[Listener]) -> Iterator[ControlError]:
    """Passwords without TLS, where they do not stay on this host."""
    for one in listeners:
        loopback = one.host and ipaddress.ip_address(one.host).is_loopback
        if one.service not in IMPLICIT and not loopback:
            why = (
                f"is 1, so {one.service} of control/listen takes passwords without TLS, and whoever is on "
                "the way hears them; remove the file, or let that listen at 127.0.0.1 alone"
            )
            yield ControlError("control/authplain", 0, why)
            return
