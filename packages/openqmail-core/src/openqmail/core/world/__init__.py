"""The seams to the world: clock and disk, as protocols, with the real ones beside them."""

from openqmail.core.world.clock import Clock, SimulatedClock, SystemClock
from openqmail.core.world.disk import Disk, File, Filesystem, PosixDisk

__all__ = ["Clock", "Disk", "File", "Filesystem", "PosixDisk", "SimulatedClock", "SystemClock"]
