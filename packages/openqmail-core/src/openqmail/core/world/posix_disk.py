"""The real disk: the kernel's own file system calls (Linux first, POSIX where it has them)."""

import ctypes
import errno
import fcntl
import os
import stat
import time
from collections.abc import Sequence

from openqmail.core.world.disk import WHOLE, Facts, File, Filesystem


class PosixFile:
    """A descriptor of the kernel's."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def append(self, pieces: Sequence[bytes]) -> int:
        return _write(self._descriptor, pieces)

    def read_at(self, offset: int, size: int) -> bytes:
        data = os.pread(self._descriptor, size, offset)
        while len(data) < size:
            more = os.pread(self._descriptor, size - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def facts(self) -> Facts:
        return _facts(os.fstat(self._descriptor))

    def truncate(self, size: int) -> None:
        os.ftruncate(self._descriptor, size)

    def lock(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        pause = 0.01
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if time.monotonic() >= until:
                    return False
            time.sleep(pause)
            pause = min(2 * pause, 0.5)

    def sync(self) -> None:
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


class PosixFilesystem:
    """A file system by a descriptor of one of its folders (Linux's syncfs(2))."""

    def __init__(self, folder: bytes) -> None:
        self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.device = os.fstat(self._descriptor).st_dev

    def sync(self) -> None:
        if _libc.syncfs(self._descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def close(self) -> None:
        os.close(self._descriptor)


_MORE = 1024 * 1024


class PosixDisk:
    """The kernel's own file system calls."""

    def create(self, path: bytes, mode: int = 0o600) -> File:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return PosixFile(os.open(path, flags, mode))

    def write_new(self, path: bytes, pieces: Sequence[bytes], mode: int = 0o600) -> int:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            return _write(descriptor, pieces)
        finally:
            os.close(descriptor)

    def open(self, path: bytes, *, write: bool = False) -> File:
        flags = os.O_RDWR | os.O_APPEND if write else os.O_RDONLY
        # Without O_NONBLOCK a FIFO of that name would stop everything.
        return PosixFile(os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC))

    def open_mbox(self, path: bytes) -> File:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
        return PosixFile(os.open(path, flags, 0o600))

    def contents(self, path: bytes) -> tuple[bytes, int]:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.EINVAL, "it is not a regular file", path)
            if found.st_size > WHOLE:
                raise OSError(errno.EFBIG, f"it has more than {WHOLE} bytes", path)
            data = os.read(descriptor, found.st_size + 1)
            while more := os.read(descriptor, _MORE) if len(data) > found.st_size else b"":
                data += more
            return data, int(found.st_mtime)
        finally:
            os.close(descriptor)

    def overwrite(self, path: bytes, offset: int, data: bytes) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(descriptor, data[written:], offset + written)
        finally:
            os.close(descriptor)

    def sync_file(self, path: bytes) -> None:
        # Linux syncs a file by a descriptor for reading, too.
        _sync(path, os.O_RDONLY | os.O_NONBLOCK)

    def stat(self, path: bytes) -> Facts:
        return _facts(os.lstat(path))

    def resolve(self, path: bytes) -> bytes:
        return os.path.realpath(path)

    def touch(self, path: bytes, mtime: int) -> None:
        os.utime(path, (mtime, mtime))

    truncate = staticmethod(os.truncate)
    chmod = staticmethod(os.chmod)
    rename = staticmethod(os.rename)
    unlink = staticmethod(os.unlink)
    rmdir = staticmethod(os.rmdir)

    def mkdir(self, path: bytes, mode: int = 0o700) -> None:
        os.mkdir(path, mode)

    def names(self, folder: bytes) -> list[bytes]:
        return os.listdir(folder)

    def scan(self, folder: bytes) -> list[tuple[bytes, bool]]:
        with os.scandir(folder) as entries:
            return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]

    def sync_folder(self, folder: bytes) -> None:
        _sync(folder, os.O_RDONLY | os.O_DIRECTORY)

    def filesystem(self, folder: bytes) -> Filesystem | None:
        return PosixFilesystem(folder) if _reports_sync_errors(os.stat(folder).st_dev) else None

    def room(self, folder: bytes) -> tuple[int, int]:
        found = os.statvfs(folder)
        return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize


def _facts(found: os.stat_result) -> Facts:
    return Facts(
        found.st_ino,
        found.st_dev,
        found.st_size,
        int(found.st_mtime),
        found.st_mode,
        found.st_uid,
        found.st_gid,
        found.st_nlink,
        found.st_ctime_ns,
    )


def _sync(path: bytes, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(descriptor: int, pieces: Sequence[bytes]) -> int:
    """All of it, in one call where the kernel takes it at once: a join costs less than an iovec."""
    data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    written = os.write(descriptor, data)
    while written < len(data):
        written += os.write(descriptor, data[written:])
    return written


def _reports_sync_errors(device: int) -> bool:
    """syncfs reports write-back errors from Linux 5.8 on; on the file systems named here it
    also reported those of metadata in every trial, from 5.17 on."""
    system = os.uname()
    if system.sysname != "Linux":
        return False
    release = system.release.split(".")
    if (int(release[0]), int(release[1].split("-")[0])) < (5, 17):
        return False
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            fields = line.split()
            if fields[2] == wanted:
                return fields[fields.index("-") + 1] in ("ext4", "xfs", "btrfs")
    return False


_libc = ctypes.CDLL(None, use_errno=True)  # made before the forks, and so shared
