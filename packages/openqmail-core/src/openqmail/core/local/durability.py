"""Making delivered files durable: many at once by syncing their file system, or one by one.

A file system is opened before the first file is written to it, so that its sync reports
every error since (rule 6 of the queue).  After a failed sync its files count as not durable;
who repeats their delivery writes them anew.  A slow or failed sync makes its file system sync
file by file for a minute.
Blocks; `meet` may run beside `sync`, which runs in one thread at a time.
"""

import os
from collections.abc import Sequence
from threading import Lock

from openqmail.core.ports import Written
from openqmail.core.world import Clock, Disk, Filesystem

SLOW = 5.0
"""Seconds; a sync that takes longer holds up too much that is not ours."""

SINGLY = 60.0
"""Seconds for which a file system then syncs file by file."""


def stem_of(name: bytes) -> bytes:
    """What a file of ours keeps wherever its reader moves it: `birth.Q<digest>`."""
    return b".".join(name.split(b".", 2)[:2])


class Durability:
    """Knows which `new/` folders lie on which file system."""

    def __init__(self, disk: Disk, clock: Clock) -> None:
        self._disk = disk
        self._clock = clock
        self._folders: dict[bytes, int] = {}
        self._filesystems: dict[int, Filesystem | None] = {}
        self._singly_until: dict[int, float] = {}
        self._lock = Lock()

    def meet(self, maildir: bytes) -> None:
        """To be called before anything is written to a Maildir; costs nothing the next time.

        Raises OSError when it is not one."""
        new = maildir + b"new"
        if new in self._folders:
            return
        self._device(maildir + b"cur")
        device = self._device(new)
        with self._lock:
            if device not in self._filesystems:
                self._filesystems[device] = self._disk.filesystem(new)
            self._folders[new] = device

    def forget(self, maildir: bytes) -> None:
        """Something was wrong with it: look anew the next time."""
        self._folders.pop(maildir + b"new", None)

    def sync(self, written: Sequence[Written]) -> tuple[bool, ...]:
        """Whether each file is durable now, with its name."""
        durable: dict[bytes, bool] = {}
        by_folder: dict[bytes, list[bytes]] = {}
        for file in written:
            path = file.path
            folder = path[: path.rindex(b"/")]
            if folder in by_folder:
                by_folder[folder].append(path)
            else:
                by_folder[folder] = [path]
        by_device: dict[int, list[bytes]] = {}
        for folder, paths in by_folder.items():
            device = self._device_now(folder)
            if device is None:
                durable.update(self._sync_folder(folder, paths))
            else:
                by_device.setdefault(device, []).append(folder)
        for device, folders in by_device.items():
            whole = self._sync_whole(device)
            for folder in folders:
                paths = by_folder[folder]
                durable.update(
                    self._sync_folder(folder, paths) if whole is None else dict.fromkeys(paths, whole)
                )
        return tuple([durable[file.path] for file in written])

    def close(self) -> None:
        for filesystem in self._filesystems.values():
            if filesystem is not None:
                filesystem.close()
        self._filesystems.clear()
        self._folders.clear()

    def _device(self, folder: bytes) -> int:
        """The device that holds a folder, behind symbolic links too; raises OSError."""
        return self._disk.stat(folder + b"/.").device

    # --- a file system at once --------------------------------------------------------

    def _device_now(self, folder: bytes) -> int | None:
        """The device of a folder that is still where it was when it was met; else None."""
        met = self._folders.get(folder)
        try:
            now = self._device(folder)
        except OSError:
            now = None
        if met is None or met != now:
            self._folders.pop(folder, None)
            return None
        return met

    def _sync_whole(self, device: int) -> bool | None:
        """Whether all on it is durable; None: sync file by file."""
        filesystem = self._filesystems.get(device)
        begun = self._clock.monotonic()
        if filesystem is None or begun < self._singly_until.get(device, 0.0):
            return None
        try:
            filesystem.sync()
        except OSError:
            self._singly_until[device] = begun + SINGLY
            return False
        ended = self._clock.monotonic()
        if ended - begun > SLOW:
            self._singly_until[device] = ended + SINGLY
        return True

    # --- file by file -----------------------------------------------------------------

    def _sync_folder(self, folder: bytes, paths: list[bytes]) -> dict[bytes, bool]:
        """Sync some files of one folder, then the folders that their names are in."""
        moved: dict[bytes, bytes] | None = None
        cur = os.path.join(os.path.dirname(folder), b"cur")
        durable = dict.fromkeys(paths, True)
        for path in paths:
            try:
                if self._sync_file(path):
                    continue
                if moved is None:
                    moved = {stem_of(name): name for name in self._disk.names(cur)}
                name = moved.get(stem_of(os.path.basename(path)))
                if name is not None:
                    # Gone again: its reader has deleted it, or given it other flags just now.
                    durable[path] = self._sync_file(os.path.join(cur, name)) or self._still_there(path, cur)
            except OSError:
                durable[path] = False
        try:
            self._disk.sync_folder(folder)
            if moved is not None and cur != folder:
                self._disk.sync_folder(cur)
        except OSError:
            return dict.fromkeys(paths, False)
        return durable

    def _still_there(self, path: bytes, cur: bytes) -> bool:
        """One more look for a file that is moved about: synced, or deleted by its reader."""
        stem = stem_of(os.path.basename(path))
        name = next((name for name in self._disk.names(cur) if stem_of(name) == stem), None)
        return name is None or self._sync_file(os.path.join(cur, name))

    def _sync_file(self, path: bytes) -> bool:
        """False when there is no such file (any more)."""
        try:
            file = self._disk.open(path)
        except FileNotFoundError:
            return False
        try:
            file.sync()
        finally:
            file.close()
        return True
