"""A disk in memory that fails as disks do, when a test orders it or a seed draws it.

It may stop at a chosen call or fail a sync (`faults`), run out of room, flip a bit.
`after_kill` is what another process finds, `after_power_cut` what is there after the power was
cut (see `content` and `tree` for what may be lost); both leave this disk as it is.  The same
calls and the same `Random` give the same disk.  Permissions are kept, not enforced; there are
no symbolic links.  Any thread may use it.
"""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from random import Random
from threading import RLock

from openqmail.core.world.clock import Clock, SimulatedClock
from openqmail.core.world.disk import WHOLE, Facts
from openqmail.core.world.simulated.content import Content
from openqmail.core.world.simulated.faults import Faults
from openqmail.core.world.simulated.tree import Inode, Tree

DEVICE = 1
"""The number of the one file system."""


class SimulatedDisk:
    """A `Disk`.

    `capacity`: bytes in all.  `ordered`: whether a cut leaves names in the order of their
    changes.  `whole`: whether there is a `filesystem` to be synced.  `sync_failures`: the share of
    syncs that fail by lot.  `capacity` and `faults` may be changed at any time."""

    def __init__(
        self,
        random: Random,
        clock: Clock | None = None,
        *,
        capacity: int = 1 << 40,
        ordered: bool = True,
        whole: bool = True,
        sync_failures: float = 0.0,
    ) -> None:
        self.capacity = capacity
        self.faults = Faults(random, sync_failures)
        self._random = random
        self._clock = clock or SimulatedClock()
        self._ordered, self._whole = ordered, whole
        self._tree = Tree(self._clock, ordered)
        self._used = 0
        self._failed = 0  # syncs of anything, which a file system's next sync tells, too
        self._lock = RLock()

    # --- the protocol -----------------------------------------------------------------

    def create(self, path: bytes, mode: int = 0o600) -> "SimulatedFile":
        with self._call("create"):
            return SimulatedFile(self, self._new(path, stat.S_IFREG | mode), path, write=True)

    def write_new(self, path: bytes, pieces: Sequence[bytes], mode: int = 0o600) -> int:
        with self._lock:
            file = self.create(path, mode)
            try:
                return file.append(pieces)
            finally:
                file.close()

    def open(self, path: bytes, *, write: bool = False) -> "SimulatedFile":
        with self._call("open"):
            inode = self._tree.find(path)
            if write and inode.is_folder:
                raise _error(errno.EISDIR, path)
            return SimulatedFile(self, inode, path, write)

    def open_mbox(self, path: bytes) -> "SimulatedFile":
        try:
            return self.open(path, write=True)
        except FileNotFoundError:
            return self.create(path)

    def contents(self, path: bytes) -> tuple[bytes, int]:
        with self._lock:
            file = self.open(path)
            try:
                facts = file.facts()
                if facts.size > WHOLE:
                    raise _error(errno.EFBIG, path)
                return file.read_at(0, facts.size), facts.mtime
            finally:
                file.close()

    def overwrite(self, path: bytes, offset: int, data: bytes) -> None:
        with self._lock:
            self._write("overwrite", self._file(path), offset, data)

    def truncate(self, path: bytes, size: int) -> None:
        with self._lock:
            self._resize(self._file(path), size)

    def sync_file(self, path: bytes) -> None:
        with self._lock:
            file = SimulatedFile(self, self._tree.find(path), path, write=False)
            try:
                file.sync(times=True)
            finally:
                file.close()

    def stat(self, path: bytes) -> Facts:
        with self._call("stat"):
            return _facts(self._tree.find(path))

    def resolve(self, path: bytes) -> bytes:
        return os.path.normpath(path)

    def touch(self, path: bytes, mtime: int) -> None:
        with self._call("touch"):
            inode = self._tree.find(path)
            self._tree.stamp(inode, content=False)
            inode.mtime = mtime

    def chmod(self, path: bytes, mode: int) -> None:
        with self._call("chmod"):
            inode = self._tree.find(path)
            inode.mode = stat.S_IFMT(inode.mode) | mode
            self._tree.stamp(inode, content=False)

    def rename(self, old: bytes, new: bytes) -> None:
        with self._call("rename"):
            gone = self._tree.rename(old, new)
            if gone is not None:
                self._let_go(gone)

    def unlink(self, path: bytes) -> None:
        with self._call("unlink"):
            self._let_go(self._tree.remove(path))

    def mkdir(self, path: bytes, mode: int = 0o700) -> None:
        with self._call("mkdir"):
            self._new(path, stat.S_IFDIR | mode)

    def rmdir(self, path: bytes) -> None:
        with self._call("rmdir"):
            self._let_go(self._tree.remove(path, folder=True))

    def names(self, folder: bytes) -> list[bytes]:
        with self._call("names"):
            return self._listed(folder)

    def scan(self, folder: bytes) -> list[tuple[bytes, bool]]:
        with self._call("scan"):
            entries = self._tree.find(folder).entries
            return [(name, entries[name].is_folder) for name in self._listed(folder)]

    def sync_folder(self, folder: bytes) -> None:
        with self._call("sync_folder"):
            found = self._folder(folder)
            if error := self.faults.sync(folder):
                self._failed += 1
                raise _error(error.error, folder)
            self._tree.sync_folder(found)

    def filesystem(self, folder: bytes) -> "SimulatedFilesystem | None":
        with self._call("filesystem"):
            self._folder(folder)
            return SimulatedFilesystem(self) if self._whole else None

    def room(self, folder: bytes) -> tuple[int, int]:
        with self._call("room"):
            self._folder(folder)
            return max(self.capacity - self._used, 0), self.capacity

    # --- what others do ---------------------------------------------------------------

    def link(self, old: bytes, new: bytes) -> None:
        """link(2): another name for a file."""
        with self._call("link"):
            self._tree.add(new, self._file(old))

    def chown(self, path: bytes, uid: int, gid: int) -> None:
        """Durable at once."""
        with self._lock:
            inode = self._tree.find(path)
            inode.uid, inode.gid = uid, gid

    def make(self, path: bytes, content: bytes | None = None, mode: int | None = None) -> None:
        """A durable file of that content, or a folder, with all folders above it, before the story
        begins: no call is counted."""
        with self._lock:
            above = os.path.dirname(path)
            if above != path:
                try:
                    self._tree.find(above)
                except FileNotFoundError:
                    self.make(above)
            kind, usual = (stat.S_IFDIR, 0o700) if content is None else (stat.S_IFREG, 0o600)
            inode = self._new(path, kind | (usual if mode is None else mode))
            inode.content = Content(content or b"")
            self._used += len(content or b"")
            self._tree.sync_folder(self._tree.find(above))

    # --- what happens to it -----------------------------------------------------------

    def flip(self, path: bytes, offset: int, bit: int = 0) -> None:
        """Another bit in a file that was synced."""
        with self._lock:
            self._tree.find(path).content.flip(offset, bit)

    def after_kill(self) -> "SimulatedDisk":
        """What another process finds: all that was written.  A power cut may still take of it
        what was not synced."""
        with self._lock:
            return self._found(self._tree.after_kill(), self._random)

    def after_power_cut(self, random: Random) -> "SimulatedDisk":
        """What is there when the power is back: all that was synced, and of the rest what
        `random` draws."""
        with self._lock:
            return self._found(self._tree.after_power_cut(random), random)

    def _found(self, tree: Tree, random: Random) -> "SimulatedDisk":
        disk = SimulatedDisk(
            random,
            self._clock,
            capacity=self.capacity,
            ordered=self._ordered,
            whole=self._whole,
            sync_failures=self.faults.sync_failures,
        )
        disk._tree = tree
        disk._used = sum(len(inode.content.data) for inode in tree.inodes())
        return disk

    # --- inside -----------------------------------------------------------------------

    @contextmanager
    def _call(self, what: str) -> Iterator[None]:
        """One call, alone."""
        with self._lock:
            if not self.faults.call(what):
                raise self.faults.power_cut(what)
            yield

    def _new(self, path: bytes, mode: int) -> Inode:
        inode = self._tree.inode(mode)
        try:
            self._tree.add(path, inode)
        except OSError:
            self._let_go(inode)
            raise
        return inode

    def _write(self, what: str, inode: Inode, offset: int, data: bytes) -> None:
        room = len(inode.content.data) - offset + max(self.capacity - self._used, 0)
        fits = data[: max(room, 0)]
        if not self.faults.call(what):
            self._put(inode, offset, fits[: self._random.randint(0, len(fits))])
            raise self.faults.power_cut(what)
        self._put(inode, offset, fits)
        if len(fits) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _put(self, inode: Inode, offset: int, data: bytes) -> None:
        if data:
            size = len(inode.content.data)
            inode.content.write(offset, data)
            grown = len(inode.content.data) - size
            self._used += grown
            self._tree.stamp(inode, sized=grown > 0)

    def _resize(self, inode: Inode, size: int) -> None:
        with self._call("truncate"):
            self._used += size - len(inode.content.data)
            inode.content.truncate(size)
            self._tree.stamp(inode)

    def _sync(self, inode: Inode, path: bytes, times: bool) -> None:
        """One file."""
        if error := self.faults.sync(path):
            self._failed += 1
            inode.errors += 1
            inode.content.lose(self._random if error.reached else None)
            raise _error(error.error, path)
        if inode.content.sync() or times:
            inode.attributes = (inode.mtime, inode.mode)
        if inode.is_folder:
            self._tree.sync_folder(inode)
        else:
            self._tree.sync_file(inode, times=times)

    def _sync_all(self) -> None:
        error = self.faults.sync(b"/")
        for inode in self._tree.inodes():
            if error is None:
                inode.content.sync()
                inode.attributes = (inode.mtime, inode.mode)
            elif inode.content.dirty:
                inode.errors += 1
                inode.reported = False
                inode.content.lose(self._random if error.reached else None)
        if error is not None:
            self._failed += 1
            raise _error(error.error, b"/")
        self._tree.sync()

    def _file(self, path: bytes) -> Inode:
        found = self._tree.find(path)
        if found.is_folder:
            raise _error(errno.EISDIR, path)
        return found

    def _folder(self, path: bytes) -> Inode:
        found = self._tree.find(path)
        if not found.is_folder:
            raise _error(errno.ENOTDIR, path)
        return found

    def _listed(self, folder: bytes) -> list[bytes]:
        """No order is promised, so none is kept."""
        found = sorted(self._folder(folder).entries)
        self._random.shuffle(found)
        return found

    def _let_go(self, inode: Inode) -> None:
        if self._tree.free(inode):
            self._used -= len(inode.content.data)


class SimulatedFile:
    """A file of a `SimulatedDisk`, opened.  A failed sync is told to each who had it open, once."""

    def __init__(self, disk: SimulatedDisk, inode: Inode, path: bytes, write: bool) -> None:
        self._disk, self._inode, self._path, self._writes = disk, inode, path, write
        self._told = inode.errors if inode.reported else -1
        inode.opened += 1

    def append(self, pieces: Sequence[bytes]) -> int:
        if not self._writes:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        data = b"".join(pieces)
        with self._disk._lock:
            self._disk._write("append", self._inode, len(self._inode.content.data), data)
        return len(data)

    def read_at(self, offset: int, size: int) -> bytes:
        with self._disk._call("read"):
            if self._inode.is_folder:
                raise _error(errno.EISDIR, self._path)
            return bytes(self._inode.content.data[offset : offset + size])

    def size(self) -> int:
        return self.facts().size

    def facts(self) -> Facts:
        with self._disk._call("stat"):
            return _facts(self._inode)

    def truncate(self, size: int) -> None:
        with self._disk._lock:
            self._disk._resize(self._inode, size)

    def lock(self, seconds: float) -> bool:
        """Calls of workers do not meet here, so nobody ever waits."""
        return True

    def sync(self, *, times: bool = False) -> None:
        with self._disk._call("sync"):
            try:
                self._disk._sync(self._inode, self._path, times)
            finally:
                told, self._told = self._told, self._inode.errors
                self._inode.reported = True
            if told != self._inode.errors:
                raise _error(errno.EIO, self._path)

    def close(self) -> None:
        with self._disk._lock:
            self._inode.opened -= 1
            self._disk._let_go(self._inode)


class SimulatedFilesystem:
    """All of a `SimulatedDisk`, opened: a sync of anything that failed since is told once."""

    device = DEVICE

    def __init__(self, disk: SimulatedDisk) -> None:
        self._disk = disk
        self._told = disk._failed

    def sync(self) -> None:
        with self._disk._call("syncfs"):
            try:
                self._disk._sync_all()
            finally:
                told, self._told = self._told, self._disk._failed
            if told != self._disk._failed:
                raise _error(errno.EIO, b"/")

    def close(self) -> None:
        pass


def _facts(inode: Inode) -> Facts:
    return Facts(
        inode.number,
        DEVICE,
        len(inode.content.data),
        inode.mtime,
        inode.mode,
        inode.uid,
        inode.gid,
        inode.links,
        inode.changed,
    )


def _error(number: int, path: bytes) -> OSError:
    return OSError(number, os.strerror(number), path)
