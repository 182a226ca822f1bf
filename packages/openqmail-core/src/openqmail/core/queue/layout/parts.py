"""Who touches the files of the layout, and how they are put together: all work in one thread."""

from collections.abc import Callable

import msgspec

from openqmail.core.queue.layout.arrivals import Arrivals
from openqmail.core.queue.layout.held import Held
from openqmail.core.queue.layout.mover import Mover
from openqmail.core.queue.layout.paths import Layout
from openqmail.core.queue.layout.results import Results
from openqmail.core.queue.layout.syncing import Syncer
from openqmail.core.queue.store import Router
from openqmail.core.world import Clock, Disk


class Parts(msgspec.Struct, frozen=True):
    """Each belongs to the thread that works on the layout."""

    mover: Mover
    results: Results
    held: Held
    arrivals: Arrivals
    syncer: Syncer


def parts(
    disk: Disk,
    clock: Clock,
    layout: Layout,
    route: Router,
    report: Callable[[str], None],
    entropy: Callable[[int], bytes],
) -> Parts:
    """Raises OSError."""
    syncer = Syncer(disk, clock, layout.folder)
    return Parts(
        Mover(disk, layout, syncer),
        Results(disk, layout, syncer),
        Held(disk, layout, syncer),
        Arrivals(disk, clock, layout, syncer, route, report, entropy),
        syncer,
    )
