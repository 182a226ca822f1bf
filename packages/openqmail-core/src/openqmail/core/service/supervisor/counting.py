"""What the children of a service have counted, added up: for the process that tells it.

The supervisor knows no figure by name.  What grows is kept when who counted it has ended, and
begins anew with the supervisor's program, as counters of Prometheus may.
"""

from collections.abc import Iterable

from openqmail.core.service import figures
from openqmail.core.service.frames import supervision as said
from openqmail.core.service.supervisor.running import Running, processes


class Totals:
    def __init__(self) -> None:
        self._grown: dict[str, figures.Numbers] = {}

    def take(self, running: Running, told: said.Counted) -> None:
        """What a child has told."""
        role = running.role
        self._grown[role] = figures.sums(self._grown.get(role, ()), told.added)
        running.present = told.present

    def figures(self, children: Iterable[Running], since: int) -> said.Figures:
        """Of all, now."""
        children = list(children)
        present: dict[str, figures.Numbers] = {}
        for one in children:
            present[one.role] = figures.sums(present.get(one.role, ()), one.present)
        return said.Figures(since, processes(children), self._grown, present)
