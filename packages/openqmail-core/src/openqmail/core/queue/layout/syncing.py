"""Making a batch of the layout's files durable: by one sync of the file system, or one by one.

The file system is opened before anything is written to it, so that its sync reports every
error since.  After a failed or a slow one (over `SLOW` seconds) it is file by file for a
minute.  A failed sync is never tried again as if it had worked: the caller writes anew.
"""

import os
from collections.abc import Iterable

from openqmail.core.world import Clock, Disk, Filesystem

SLOW = 5.0
SINGLY = 60.0


class Syncer:
    """Of the file system that holds `folder`.  Blocks; one thread at a time."""

    def __init__(self, disk: Disk, clock: Clock, folder: bytes) -> None:
        """Raises OSError."""
        self._disk = disk
        self._clock = clock
        self._filesystem: Filesystem | None = disk.filesystem(folder)
        self._singly_until = 0.0

    def sync(self, paths: Iterable[bytes], folders: Iterable[bytes]) -> None:
        """Files (content, length, times) and the names in `folders`.  Raises OSError."""
        if self._filesystem is not None and self._clock.monotonic() >= self._singly_until:
            self._sync_whole(self._filesystem)
            return
        for path in dict.fromkeys(paths):
            self._disk.sync_file(path)
        for folder in dict.fromkeys(folders):
            self._disk.sync_folder(folder)

    def _sync_whole(self, filesystem: Filesystem) -> None:
        begun = self._clock.monotonic()
        try:
            filesystem.sync()
        except OSError:
            self._singly_until = begun + SINGLY
            raise
        ended = self._clock.monotonic()
        if ended - begun > SLOW:
            self._singly_until = ended + SINGLY

    def close(self) -> None:
        if self._filesystem is not None:
            self._filesystem.close()


class Touched:
    """Files and folders that a batch has changed and that are to be synced."""

    def __init__(self) -> None:
        self.paths: dict[bytes, None] = {}
        self.folders: dict[bytes, None] = {}

    def file(self, path: bytes) -> None:
        self.paths[path] = None

    def name(self, path: bytes) -> None:
        """A name appeared or vanished."""
        self.folders[os.path.dirname(path)] = None
        self.paths.pop(path, None)

    def new(self, path: bytes) -> None:
        self.name(path)
        self.paths[path] = None
