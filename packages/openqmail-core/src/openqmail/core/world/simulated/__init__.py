"""A world that a test decides: disk, time, loop and workers, each the same from the same seed."""

from openqmail.core.world.clock import SimulatedClock
from openqmail.core.world.simulated.disk import SimulatedDisk
from openqmail.core.world.simulated.faults import Faults
from openqmail.core.world.simulated.loop import NothingHappens, SimulatedLoop
from openqmail.core.world.simulated.power import PowerCut
from openqmail.core.world.simulated.workers import SimulatedWorkers

__all__ = [
    "Faults",
    "NothingHappens",
    "PowerCut",
    "SimulatedClock",
    "SimulatedDisk",
    "SimulatedLoop",
    "SimulatedWorkers",
]
