"""The seams to the world: clock, disk and workers, as protocols, with the real ones beside them.

Their simulated twins are in `openqmail.core.world.simulated`."""

from openqmail.core.world.clock import Clock, SimulatedClock, SystemClock
from openqmail.core.world.disk import Disk, Facts, File, Filesystem
from openqmail.core.world.posix_disk import PosixDisk
from openqmail.core.world.workers import Then, ThreadWorkers, UnwaitedThreads, Workers

__all__ = [
    "Clock",
    "Disk",
    "Facts",
    "File",
    "Filesystem",
    "PosixDisk",
    "SimulatedClock",
    "SystemClock",
    "Then",
    "ThreadWorkers",
    "UnwaitedThreads",
    "Workers",
]
