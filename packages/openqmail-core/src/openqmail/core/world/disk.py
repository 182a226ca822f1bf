"""The disk, as a seam: the few POSIX calls that the queue and a Maildir are built on.

Everything here blocks and raises OSError.  Names are bytes.  Nothing is durable before
the call that says so: a file after `File.sync`, its name after `sync_folder` on each
folder that changed, everything on a file system after `Filesystem.sync`.
"""

import ctypes
import os
import platform
from collections.abc import Sequence
from typing import Protocol


class File(Protocol):
    """An open file."""

    def append(self, pieces: Sequence[bytes]) -> int:
        """Write all the pieces at the end, in order; how many bytes that was."""
        ...

    def read_at(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`; fewer only at the end."""
        ...

    def size(self) -> int: ...

    def truncate(self, size: int) -> None: ...

    def sync(self) -> None:
        """fdatasync: content and length are durable when it returns."""
        ...

    def close(self) -> None: ...


class Filesystem(Protocol):
    """A file system, opened: errors of what is written from now on reach its `sync`."""

    device: int

    def sync(self) -> None:
        """syncfs: all that was written to it before is durable when it returns."""
        ...

    def close(self) -> None: ...


class Disk(Protocol):
    """A tree of files."""

    def create(self, path: bytes, mode: int = 0o600) -> File:
        """A new file for writing and reading; FileExistsError when the name is taken."""
        ...

    def write_new(self, path: bytes, pieces: Sequence[bytes], mode: int = 0o600) -> int:
        """A new file that holds all the pieces, in order; how many bytes that was.

        FileExistsError when the name is taken.  After any other error it may be there in part."""
        ...

    def open(self, path: bytes, *, write: bool = False) -> File: ...

    def rename(self, old: bytes, new: bytes) -> None: ...

    def unlink(self, path: bytes) -> None: ...

    def mkdir(self, path: bytes, mode: int = 0o700) -> None: ...

    def names(self, folder: bytes) -> list[bytes]: ...

    def sync_folder(self, folder: bytes) -> None: ...

    def filesystem(self, folder: bytes) -> Filesystem | None:
        """The file system that holds `folder`; None where a sync of the whole cannot be
        trusted to report every error: sync each file and folder there instead."""
        ...

    def room(self, folder: bytes) -> tuple[int, int]:
        """Bytes free for us, and bytes in all, of the file system that holds `folder`."""
        ...


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

    def truncate(self, size: int) -> None:
        os.ftruncate(self._descriptor, size)

    def sync(self) -> None:
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


class PosixFilesystem:
    """A file system by a descriptor of one of its folders (Linux's syncfs(2))."""

    def __init__(self, folder: bytes) -> None:
        self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.device = os.fstat(self._descriptor).st_dev
        self._libc = ctypes.CDLL(None, use_errno=True)

    def sync(self) -> None:
        if self._libc.syncfs(self._descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def close(self) -> None:
        os.close(self._descriptor)


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
        return PosixFile(os.open(path, flags | os.O_CLOEXEC))

    rename = staticmethod(os.rename)
    unlink = staticmethod(os.unlink)

    def mkdir(self, path: bytes, mode: int = 0o700) -> None:
        os.mkdir(path, mode)

    def names(self, folder: bytes) -> list[bytes]:
        return os.listdir(folder)

    def sync_folder(self, folder: bytes) -> None:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def filesystem(self, folder: bytes) -> Filesystem | None:
        return PosixFilesystem(folder) if _reports_sync_errors(os.stat(folder).st_dev) else None

    def room(self, folder: bytes) -> tuple[int, int]:
        found = os.statvfs(folder)
        return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize


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
    if platform.system() != "Linux":
        return False
    release = platform.release().split(".")
    if (int(release[0]), int(release[1].split("-")[0])) < (5, 17):
        return False
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            fields = line.split()
            if fields[2] == wanted:
                return fields[fields.index("-") + 1] in ("ext4", "xfs", "btrfs")
    return False
