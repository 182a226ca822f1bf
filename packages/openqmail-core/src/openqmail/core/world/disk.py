"""The disk, as a seam: the few POSIX calls that the queue and a Maildir are built on.

Everything here blocks and raises OSError.  Names are bytes.  Nothing is durable before
the call that says so: a file after `File.sync`, its times and mode too after `sync_file`,
its name after `sync_folder` on each folder that changed, everything on a file system after
`Filesystem.sync`.  After a sync that failed, what it was to sync may look durable and never
become so: write it anew.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec


class Facts(msgspec.Struct, frozen=True, gc=False):
    """What stat(2) says of a file or folder.

    `mtime`: whole seconds UTC, of the content.  `mode`: with the file's type (see `stat`).
    `changed`: nanoseconds UTC of the last change of anything about it, which nobody can set."""

    inode: int
    device: int
    size: int
    mtime: int
    mode: int
    uid: int
    gid: int
    links: int
    changed: int = 0


class File(Protocol):
    """An open file."""

    def append(self, pieces: Sequence[bytes]) -> int:
        """Write all the pieces at the end, in order; how many bytes that was."""
        ...

    def read_at(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`; fewer only at the end."""
        ...

    def size(self) -> int: ...

    def facts(self) -> Facts: ...

    def truncate(self, size: int) -> None: ...

    def lock(self, seconds: float) -> bool:
        """flock, for nobody else, until it is closed; False when that took longer than so many seconds."""
        ...

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


WHOLE = 64 * 1024 * 1024
"""Bytes of a file that is read whole: beyond that it is none that we or qmail wrote."""


class Disk(Protocol):
    """A tree of files."""

    def create(self, path: bytes, mode: int = 0o600) -> File:
        """A new file for writing and reading; FileExistsError when the name is taken."""
        ...

    def write_new(self, path: bytes, pieces: Sequence[bytes], mode: int = 0o600) -> int:
        """A new file that holds all the pieces, in order; how many bytes that was.

        FileExistsError when the name is taken.  After any other error it may be there in part."""
        ...

    def open(self, path: bytes, *, write: bool = False) -> File:
        """An existing file; never waits, not even for the other end of a FIFO."""
        ...

    def open_mbox(self, path: bytes) -> File:
        """An existing file, or a new one (0600), for reading and writing at its end; never waits."""
        ...

    def contents(self, path: bytes) -> tuple[bytes, int]:
        """All of a file, and when it was last changed (whole seconds UTC).

        Of a regular file of at most `WHOLE` bytes: EINVAL or EFBIG for any other."""
        ...

    def overwrite(self, path: bytes, offset: int, data: bytes) -> None:
        """Write over what is there, from `offset` on; not synced."""
        ...

    def truncate(self, path: bytes, size: int) -> None: ...

    def sync_file(self, path: bytes) -> None:
        """fsync: content, length, times and mode are durable when it returns; its name may not be."""
        ...

    def stat(self, path: bytes) -> Facts:
        """Of the name itself, not of what a symbolic link leads to; of `folder/.` for a folder
        that may be behind one."""
        ...

    def resolve(self, path: bytes) -> bytes:
        """The same without symbolic links and dots, whether there is something or not."""
        ...

    def touch(self, path: bytes, mtime: int) -> None:
        """Set the time of its last change (and reading), seconds UTC."""
        ...

    def chmod(self, path: bytes, mode: int) -> None: ...

    def rename(self, old: bytes, new: bytes) -> None: ...

    def unlink(self, path: bytes) -> None: ...

    def mkdir(self, path: bytes, mode: int = 0o700) -> None: ...

    def rmdir(self, path: bytes) -> None: ...

    def names(self, folder: bytes) -> list[bytes]: ...

    def scan(self, folder: bytes) -> list[tuple[bytes, bool]]:
        """Each name, and whether it is a folder's (not a symbolic link's to one)."""
        ...

    def sync_folder(self, folder: bytes) -> None: ...

    def filesystem(self, folder: bytes) -> Filesystem | None:
        """The file system that holds `folder`; None where a sync of the whole cannot be
        trusted to report every error: sync each file and folder there instead."""
        ...

    def room(self, folder: bytes) -> tuple[int, int]:
        """Bytes free for us, and bytes in all, of the file system that holds `folder`."""
        ...
