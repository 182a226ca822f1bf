"""The real disk without its syncs: what a test writes has to outlive its process, not a power cut.

After `cut` nothing is written any more: to whoever looks at the files it is as if the process had
been killed then.
"""

import errno
from collections.abc import Callable, Sequence
from functools import wraps
from typing import ParamSpec, TypeVar

from openqmail.core.world import File, Filesystem, PosixDisk

P = ParamSpec("P")
R = TypeVar("R")


class QuickDisk:
    """A `Disk`; any thread may use it, and cut it."""

    def __init__(self) -> None:
        self._cut = False
        self._open: set[_QuickFile] = set()
        self._real = real = PosixDisk()
        self.contents = real.contents
        self.stat = real.stat
        self.resolve = real.resolve
        self.names = real.names
        self.scan = real.scan
        self.room = real.room
        self.write_new = self.unless_cut(real.write_new)
        self.overwrite = self.unless_cut(real.overwrite)
        self.truncate = self.unless_cut(real.truncate)
        self.touch = self.unless_cut(real.touch)
        self.chmod = self.unless_cut(real.chmod)
        self.rename = self.unless_cut(real.rename)
        self.unlink = self.unless_cut(real.unlink)
        self.mkdir = self.unless_cut(real.mkdir)
        self.rmdir = self.unless_cut(real.rmdir)

    def cut(self) -> None:
        """Every call that changes something raises OSError from now on."""
        self._cut = True

    def release(self) -> None:
        """Close what nobody closed, as the kernel does when a process has ended."""
        for file in list(self._open):
            file.close()

    def check(self) -> None:
        if self._cut:
            raise OSError(errno.EIO, "the test has ended this MTA")

    def unless_cut(self, call: Callable[P, R]) -> Callable[P, R]:
        @wraps(call)
        def checked(*arguments: P.args, **named: P.kwargs) -> R:
            self.check()
            return call(*arguments, **named)

        return checked

    def create(self, path: bytes, mode: int = 0o600) -> File:
        self.check()
        return _QuickFile(self, self._real.create(path, mode))

    def open(self, path: bytes, *, write: bool = False) -> File:
        return _QuickFile(self, self._real.open(path, write=write))

    def open_mbox(self, path: bytes) -> File:
        self.check()
        return _QuickFile(self, self._real.open_mbox(path))

    def sync_file(self, path: bytes) -> None:
        self.check()

    def sync_folder(self, folder: bytes) -> None:
        self.check()

    def filesystem(self, folder: bytes) -> Filesystem | None:
        found = self._real.filesystem(folder)
        return None if found is None else _QuickFilesystem(self, found)


class _QuickFile:
    """A `File`."""

    def __init__(self, disk: QuickDisk, file: File) -> None:
        self._disk = disk
        self._file = file
        self.read_at = file.read_at
        self.size = file.size
        self.facts = file.facts
        self.lock = file.lock
        self._disk._open.add(self)

    def append(self, pieces: Sequence[bytes]) -> int:
        self._disk.check()
        return self._file.append(pieces)

    def truncate(self, size: int) -> None:
        self._disk.check()
        self._file.truncate(size)

    def sync(self) -> None:
        self._disk.check()

    def close(self) -> None:
        self._disk._open.discard(self)
        self._file.close()


class _QuickFilesystem:
    """A `Filesystem` of which nothing is synced, so that a busy one holds up no test."""

    def __init__(self, disk: QuickDisk, filesystem: Filesystem) -> None:
        self.device = filesystem.device
        self.sync = disk.check
        self.close = filesystem.close
