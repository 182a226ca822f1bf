"""A folder on each kind of disk: what is promised of one is promised of the other."""

import os
from pathlib import Path
from random import Random

import pytest

from openqmail.core.world import Disk, PosixDisk
from openqmail.core.world.simulated import SimulatedDisk


class Place:
    def __init__(self, disk: Disk, folder: bytes) -> None:
        self.disk, self.folder = disk, folder

    def __truediv__(self, name: bytes) -> bytes:
        return self.folder + b"/" + name

    def read(self, name: bytes) -> bytes:
        file = self.disk.open(self / name)
        try:
            return file.read_at(0, 1 << 20)
        finally:
            file.close()

    def link(self, old: bytes, new: bytes) -> None:
        if isinstance(self.disk, SimulatedDisk):
            self.disk.link(self / old, self / new)
        else:
            os.link(self / old, self / new)


@pytest.fixture(params=["posix", "simulated"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "posix":
        return Place(PosixDisk(), os.fsencode(tmp_path))
    disk = SimulatedDisk(Random(1))
    disk.make(b"/some/folder")
    return Place(disk, b"/some/folder")
