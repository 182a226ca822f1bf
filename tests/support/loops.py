"""A disk of its own for a test: a file system in an image file on a loop device; root only.

`cut` takes its power away with FS_IOC_SHUTDOWN: from then on nothing is written to the device any
more, what only the page cache held is lost, and the next mount replays the file system's journal.
What the device was given stays, so a disk that lies about its own cache is not tried here.
"""

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
from enum import IntEnum
from pathlib import Path
from types import TracebackType

from homes import Waiting

MIB = 1 << 20
SIZES = {"ext4": 512 * MIB, "xfs": 512 * MIB}
"""Of a disk that nothing is asked about; mkfs.xfs takes no less than 300 MiB."""

_SHUTDOWN = 0x8004587D
"""FS_IOC_SHUTDOWN, _IOR('X', 125, __u32); ext4 and xfs have the same (XFS_IOC_GOINGDOWN)."""
_PATH = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin:/sbin"
_MAKE = {"ext4": ("-q", "-F", "-m", "0"), "xfs": ("-q", "-f")}


class Cut(IntEnum):
    """How the power goes: what the kernel still writes before it."""

    ALL = 0
    """Everything, as a sync would: the mildest."""
    LOG = 1
    """The journal of the file system; data of files that was not written is lost."""
    NOTHING = 2
    """What was not on the device is gone."""


def why_not(kind: str) -> str | None:
    """The reason why there can be no such disk here, if there is one; also why its power cannot be cut."""
    if os.getuid() != 0:
        return "only root may mount a loop device"
    for program in ("losetup", "mount", "umount", f"mkfs.{kind}"):
        if shutil.which(program, path=_PATH) is None:
            return f"there is no {program} on this machine; as root, .ci/run installs it"
    if kind in _tried:
        return _tried[kind]
    try:
        with LoopDisk(kind) as disk:
            disk.cut(Cut.NOTHING)
    except OSError as error:
        _tried[kind] = f"no power can be cut on {kind} here: {error}"
    else:
        _tried[kind] = None
    return _tried[kind]


_tried: dict[str, str | None] = {}


class LoopDisk:
    """An empty file system of `kind`, mounted on `path`; leaving it unmounts and removes it.

    Raises OSError when the machine has no loop devices or does not know the file system."""

    def __init__(self, kind: str, size: int | None = None, under: str | None = None) -> None:
        self.kind = kind
        self._folder = Path(tempfile.mkdtemp(prefix="openqmail-disk-", dir=under))
        self._folder.chmod(0o755)
        self.beside = self._folder / "beside"
        """A folder that keeps its power."""
        self.beside.mkdir(mode=0o755)
        self.path = self._folder / "disk"
        self.path.mkdir()
        self._device: str | None = None
        self._mounted = False
        try:
            image = self._folder / "image"
            with image.open("wb") as file:
                file.truncate(size or SIZES[kind])
            self._device = _run("losetup", "--find", "--show", str(image)).strip()
            _run(f"mkfs.{kind}", *_MAKE[kind], self._device)
            self.mount()
            self.path.chmod(0o755)
        except BaseException:
            self.close()
            raise

    def mount(self) -> None:
        assert self._device is not None
        _run("mount", "-t", self.kind, self._device, str(self.path))
        self._mounted = True

    def unmount(self) -> None:
        """Waits for those who still have something open there."""
        for _ in Waiting(f"{self.path} can be unmounted"):
            with contextlib.suppress(OSError):
                _run("umount", str(self.path))
                self._mounted = False
                return

    def fill(self, leave: int = 0) -> None:
        """Takes all room but `leave` bytes, with a file that `clear` removes."""
        with (self.path / "filler").open("ab", buffering=0) as file:
            for piece in (MIB, 4096, 1):
                with contextlib.suppress(OSError):  # ENOSPC
                    while self.free() - leave >= piece:
                        file.write(bytes(piece))
            os.fsync(file.fileno())

    def clear(self) -> None:
        (self.path / "filler").unlink()

    def free(self) -> int:
        """Bytes that others than root can still write."""
        facts = os.statvfs(self.path)
        return facts.f_bavail * facts.f_frsize

    def sync(self) -> None:
        """All that is there outlives a cut."""
        _run("sync", "-f", str(self.path))

    def cut(self, how: Cut) -> None:
        """Takes the power away; who has files open there gets EIO from now on.  Raises OSError."""
        folder = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(folder, _SHUTDOWN, struct.pack("I", how))
        finally:
            os.close(folder)

    def power(self) -> None:
        """Gives the power back: unmounts, mounts, and so replays the journal of the file system."""
        self.unmount()
        self.mount()

    def close(self) -> None:
        if self._mounted:
            self.unmount()
        if self._device is not None:
            _run("losetup", "--detach", self._device)
            self._device = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> "LoopDisk":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _run(program: str, *arguments: str) -> str:
    found = shutil.which(program, path=_PATH)
    if found is None:
        raise FileNotFoundError(f"there is no {program}")
    ran = subprocess.run([found, *arguments], capture_output=True, text=True, timeout=60, check=False)
    if ran.returncode:
        raise OSError(f"{program} {' '.join(arguments)}: exit {ran.returncode}: {ran.stderr.strip()}")
    return ran.stdout
