"""The real disk without its syncs: what a test writes has to outlive its process, not a power cut.

After `cut` nothing is written any more: to whoever looks at the files it is as if the process had
been killed then.
"""

import errno
import os
from collections.abc import Sequence

from openqmail.core.world import File, Filesystem, PosixDisk


class QuickDisk(PosixDisk):
    """A `Disk`; any thread may use it, and cut it."""

    def __init__(self) -> None:
        self._cut = False

    def cut(self) -> None:
        """Every call that changes something raises OSError from now on."""
        self._cut = True

    def check(self) -> None:
        if self._cut:
            raise OSError(errno.EIO, "the process of this test's MTA was ended here")

    def create(self, path: bytes, mode: int = 0o600) -> File:
        self.check()
        return _QuickFile(self, super().create(path, mode))

    def write_new(self, path: bytes, pieces: Sequence[bytes], mode: int = 0o600) -> int:
        self.check()
        return super().write_new(path, pieces, mode)

    def open(self, path: bytes, *, write: bool = False) -> File:
        opened = super().open(path, write=write)
        return _QuickFile(self, opened) if write else opened

    def open_mbox(self, path: bytes) -> File:
        self.check()
        return _QuickFile(self, super().open_mbox(path))

    def overwrite(self, path: bytes, offset: int, data: bytes) -> None:
        self.check()
        super().overwrite(path, offset, data)

    def sync_file(self, path: bytes) -> None:
        self.check()

    def sync_folder(self, folder: bytes) -> None:
        self.check()

    def filesystem(self, folder: bytes) -> Filesystem | None:
        found = super().filesystem(folder)
        return None if found is None else _QuickFilesystem(self, found)

    def truncate(self, path: bytes, size: int) -> None:
        self.check()
        os.truncate(path, size)

    def touch(self, path: bytes, mtime: int) -> None:
        self.check()
        super().touch(path, mtime)

    def chmod(self, path: bytes, mode: int) -> None:
        self.check()
        os.chmod(path, mode)

    def rename(self, old: bytes, new: bytes) -> None:
        self.check()
        os.rename(old, new)

    def unlink(self, path: bytes) -> None:
        self.check()
        os.unlink(path)

    def mkdir(self, path: bytes, mode: int = 0o700) -> None:
        self.check()
        os.mkdir(path, mode)

    def rmdir(self, path: bytes) -> None:
        self.check()
        os.rmdir(path)


class _QuickFile:
    """A `File` that is written to."""

    def __init__(self, disk: QuickDisk, file: File) -> None:
        self._disk = disk
        self._file = file
        self.read_at = file.read_at
        self.size = file.size
        self.facts = file.facts
        self.lock = file.lock
        self.close = file.close

    def append(self, pieces: Sequence[bytes]) -> int:
        self._disk.check()
        return self._file.append(pieces)

    def truncate(self, size: int) -> None:
        self._disk.check()
        self._file.truncate(size)

    def sync(self) -> None:
        self._disk.check()


class _QuickFilesystem:
    """A `Filesystem` of which nothing is synced, so that a busy one holds up no test."""

    def __init__(self, disk: QuickDisk, filesystem: Filesystem) -> None:
        self.device = filesystem.device
        self.sync = disk.check
        self.close = filesystem.close
