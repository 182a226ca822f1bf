"""Where a message's files are in qmail's layout: names as functions of its number.

`find` reads the split (conf-split; 23 unless somebody chose another) and whether `todo` and
`intd` are split too (big-todo, eQmail) from the folders that are there; `make` makes an empty
queue as qmail's install does, all of it the caller's.  See INTERNALS and conf-split of netqmail.
"""

import contextlib
import errno
import os
import shlex
from collections.abc import Sequence

import msgspec

from openqmail.core.control.owner import BEGUN, to_make
from openqmail.core.values import HomeError
from openqmail.core.world import Disk

SPLIT = 23
"""conf-split, unless somebody chose another."""

_LAST = b"lock"

SPLIT_FOLDERS = (b"mess", b"info", b"local", b"remote")
FLAT_FOLDERS = (b"bounce", b"pid", b"lock")
EITHER_FOLDERS = (b"todo", b"intd")
SHARED = (b"mess", b"todo", b"lock")
"""Where the parts of a qmail that has a user for each look in as its group."""

OURS = (b"journal", b"pool", b"held")
"""What netqmail does not know and does not look into."""

BESIDE = (b"history",)
"""Ours as well, and no part of the queue: who writes it makes it."""

FILES = ((b"lock/sendmutex", b"", 0o600), (b"lock/tcpto", bytes(1024), 0o644))
"""Name, content and mode of the files of an empty layout; the FIFO `lock/trigger` is made by who reads it."""


ITS_OWN = frozenset(
    (errno.EISDIR, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.EINVAL, errno.EFBIG)
)
"""Errors that say what is wrong with a file of one message, and not with the disk."""


class Files(msgspec.Struct, frozen=True):
    """The files of one message."""

    mess: bytes
    info: bytes
    local: bytes
    remote: bytes
    bounce: bytes


class Layout(msgspec.Struct, frozen=True):
    """`split`: folders below mess, info, local and remote; `todo_split`: below todo and intd (0: none)."""

    folder: bytes
    split: int = SPLIT
    todo_split: int = 0

    def mess(self, number: int) -> bytes:
        return b"%s/mess/%d/%d" % (self.folder, number % self.split, number)

    def files(self, number: int) -> Files:
        """The files of a message that is not held."""
        folder, part = self.folder, b"%d/%d" % (number % self.split, number)
        return Files(
            b"%s/mess/%s" % (folder, part),
            b"%s/info/%s" % (folder, part),
            b"%s/local/%s" % (folder, part),
            b"%s/remote/%s" % (folder, part),
            b"%s/bounce/%d" % (folder, number),
        )

    def held(self, number: int) -> bytes:
        """The folder of a held message."""
        return b"%s/held/%d" % (self.folder, number)

    def held_files(self, number: int) -> Files:
        """The files of a message that is held."""
        folder = self.held(number)
        return Files(*(b"%s/%s" % (folder, name.encode()) for name in Files.__struct_fields__))

    def pool(self, number: int) -> bytes:
        """The empty file that reserves a number."""
        return b"%s/pool/%d" % (self.folder, number)

    def todo(self, number: int) -> bytes:
        return self._either(b"todo", number)

    def intd(self, number: int) -> bytes:
        return self._either(b"intd", number)

    def _either(self, kind: bytes, number: int) -> bytes:
        if self.todo_split:
            return b"%s/%s/%d/%d" % (self.folder, kind, number % self.todo_split, number)
        return b"%s/%s/%d" % (self.folder, kind, number)

    def below(self, kind: bytes) -> list[bytes]:
        """The folders in which the files of one kind are."""
        parts = self.todo_split if kind in EITHER_FOLDERS else self.split if kind in SPLIT_FOLDERS else 0
        if not parts:
            return [b"%s/%s" % (self.folder, kind)]
        return [b"%s/%s/%d" % (self.folder, kind, part) for part in range(parts)]


def find(disk: Disk, folder: bytes) -> Layout | None:
    """The layout of the queue at `folder`; None when there is nothing of one yet.

    Raises HomeError for half of one, naming what is missing; OSError."""
    there = set(disk.names(folder))
    if not _begun(disk, folder, there):
        return None
    if names := missing(disk, folder):
        where, more = os.fsdecode(os.path.join(folder, names[0])), len(names) - 1
        them = f", and {more} more folder{'s' * (more > 1)}" if more else ""
        remedy = remaking(folder, names, os.geteuid(), os.getegid())
        raise HomeError(f"{where} is missing{them}; restore what was there, or: {remedy}")
    return Layout(folder, _split(disk, folder, SPLIT_FOLDERS), _split(disk, folder, EITHER_FOLDERS))


def missing(disk: Disk, folder: bytes) -> list[bytes]:
    """The folders that half a layout has not, each after the one that it is in.  Raises OSError."""
    there = set(disk.names(folder))
    if not _begun(disk, folder, there):
        return []
    found = [name for name in (*SPLIT_FOLDERS, *EITHER_FOLDERS, *FLAT_FOLDERS) if name not in there]
    for kinds, least in ((SPLIT_FOLDERS, 1), (EITHER_FOLDERS, 0)):
        split = max(_split(disk, folder, [kind for kind in kinds if kind in there]), least)
        for kind in kinds:
            parts = _numbered(disk, os.path.join(folder, kind)) if kind in there else ()
            found += [b"%s/%d" % (kind, part) for part in range(split) if part not in parts]
    return found


def remaking(folder: bytes, names: Sequence[bytes], uid: int, gid: int) -> str:
    """The command that makes these folders of a layout, for the queue's user and group."""
    commands = [f"cd {shlex.quote(os.fsdecode(folder))}"]
    for mode in sorted({folder_mode(name) for name in names}, reverse=True):
        some = [os.fsdecode(name) for name in names if folder_mode(name) == mode]
        commands.append(to_make(some, mode, uid, gid))
    return " && ".join(commands)


def _begun(disk: Disk, folder: bytes, there: set[bytes]) -> bool:
    """Whether there is more of a layout than what a making that was broken off has left."""
    return bool(there.intersection(SPLIT_FOLDERS)) and (_LAST in there or _has_messages(disk, folder))


def make(disk: Disk, folder: bytes, split: int = SPLIT) -> Layout:
    """An empty layout in `folder`; what is there already stays.  `lock` comes last, when all the
    others are durable: without it the rest is not believed to be whole.  Raises OSError."""
    for name in folders(split):
        if name != _LAST:
            _folder(disk, os.path.join(folder, name), folder_mode(name))
    for kind in SPLIT_FOLDERS:
        disk.sync_folder(os.path.join(folder, kind))
    disk.sync_folder(folder)
    _folder(disk, os.path.join(folder, _LAST), folder_mode(_LAST))
    for name, content, mode in FILES:
        with contextlib.suppress(FileExistsError):
            disk.write_new(os.path.join(folder, name), (content,), mode)
    disk.sync_folder(os.path.join(folder, _LAST))
    disk.sync_folder(folder)
    return Layout(folder, split)


def folders(split: int = SPLIT) -> list[bytes]:
    """The folders of an empty layout, each after the one that it is in."""
    found = [*SPLIT_FOLDERS, *EITHER_FOLDERS, *FLAT_FOLDERS]
    return found + [b"%s/%d" % (kind, part) for kind in SPLIT_FOLDERS for part in range(split)]


def folder_mode(name: bytes) -> int:
    """The mode that qmail's install gives to one of `folders`; what is above them keeps others out."""
    return 0o750 if name.partition(b"/")[0] in SHARED else 0o700


def prepare(disk: Disk, folder: bytes) -> Layout:
    """The layout in `folder`, made where there is none yet, and the folders that only we have.

    Raises HomeError, OSError."""
    try:
        disk.names(folder)
    except FileNotFoundError:
        where = os.fsdecode(folder)
        remedy = to_make([where, os.path.join(where, BEGUN)], 0o700, os.geteuid(), os.getegid())
        raise HomeError(f"{where} is missing; restore what was there, or: {remedy}") from None
    layout = find(disk, folder) or make(disk, folder)
    for name in OURS:
        _folder(disk, os.path.join(folder, name))
    disk.sync_folder(folder)
    disk.sync_folder(os.path.dirname(folder))
    return layout


def _folder(disk: Disk, path: bytes, mode: int = 0o700) -> None:
    with contextlib.suppress(FileExistsError):
        disk.mkdir(path, mode)
        if mode & 0o077:
            disk.chmod(path, mode)  # whatever the umask is


def _numbered(disk: Disk, folder: bytes) -> set[int]:
    """The subfolders that are named by a plain number."""
    return {int(name) for name, is_folder in disk.scan(folder) if is_folder and plain_number(name)}


def _split(disk: Disk, folder: bytes, kinds: Sequence[bytes]) -> int:
    """Into how many subfolders 0, 1, 2 … these folders are split; 0 when they are flat.  A folder that
    only one of them has, and nothing is in, is a stray one."""
    numbers: dict[int, list[bytes]] = {}
    for kind in kinds:
        for number in _numbered(disk, os.path.join(folder, kind)):
            numbers.setdefault(number, []).append(os.path.join(folder, kind, b"%d" % number))
    shared = [
        number for number, found in numbers.items() if len(found) > 1 or any(disk.names(one) for one in found)
    ]
    return max(shared) + 1 if shared else 0


def plain_number(name: bytes) -> bool:
    """Whether a file name is a number as qmail writes it."""
    return name.isdigit() and (name == b"0" or not name.startswith(b"0")) and len(name) <= 19


def _has_messages(disk: Disk, folder: bytes) -> bool:
    mess = os.path.join(folder, b"mess")
    try:
        return any(disk.names(os.path.join(mess, b"%d" % part)) for part in _numbered(disk, mess))
    except FileNotFoundError:
        return False


def exists(disk: Disk, path: bytes) -> bool:
    """Whether there is such a name.  Raises OSError."""
    try:
        disk.stat(path)
    except FileNotFoundError:
        return False
    return True
