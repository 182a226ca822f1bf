"""A user's home, as the `.qmail` interpreter may see it: checked, then looked into.

The checks and their texts are qmail-local's.  What the user is just editing (a sticky home)
or what anybody else could have written is not obeyed.  Nothing is written here.
"""

import errno
import os
import stat

from openqmail.core.dotqmail import DotFile
from openqmail.core.world import Disk, Facts

FOREIGN = stat.S_IWOTH
"""Who else may write: qmail's conf-patrn, 002."""

LARGEST = 1 << 20
"""Bytes of a `.qmail` file that are read; a longer one is refused."""

ABSENT = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ENXIO))
"""Errors that say that no such file is there."""

_WORDS = {
    errno.ENOENT: b"file does not exist",
    errno.EACCES: b"access denied",
    errno.EPERM: b"permission denied",
    errno.ENOTDIR: b"not a directory",
    errno.EIO: b"input/output error",
    errno.ELOOP: b"symbolic link loop",
}


def check_home(disk: Disk, home: bytes) -> Facts | bytes:
    """What `home` is; or why nothing may be delivered in it now, as the text of a deferral."""
    if not home.startswith(b"/"):
        return b"The home %s of users/assign is not an absolute path. (#4.3.0)\n" % home
    try:
        found = disk.stat(home + b"/.")
    except OSError as error:
        return b"Unable to switch to %s: %s. (#4.3.0)\n" % (home, word_of(error))
    if found.mode & FOREIGN:
        return b"Uh-oh: home directory is writable. (#4.7.0)\n"
    if found.mode & stat.S_ISVTX:
        return b"Home directory is sticky: user is editing his .qmail file. (#4.2.1)\n"
    return found


def look(disk: Disk, home: bytes, name: bytes) -> DotFile | None:
    """The `.qmail` file of that name; None when there is no such regular file."""
    if b"\0" in name:
        return None
    try:
        opened = disk.open(home + b"/" + name)
    except OSError as error:
        if error.errno in ABSENT:
            return None
        return _unusable(b"Unable to open %s: %s. (#4.3.0)\n" % (name, word_of(error)))
    try:
        mode = opened.facts().mode
        if not stat.S_ISREG(mode):
            return None
        if mode & FOREIGN:
            return _unusable(b"Uh-oh: .qmail file is writable. (#4.7.0)\n")
        content = opened.read_at(0, LARGEST + 1)  # a byte more than may be
    except OSError as error:
        return _unusable(b"Unable to read %s: %s. (#4.3.0)\n" % (name, word_of(error)))
    finally:
        opened.close()
    if len(content) > LARGEST:
        return _unusable(b"%s is longer than %d bytes. (#4.3.0)\n" % (name, LARGEST))
    return DotFile(content, bool(mode & stat.S_IXUSR))


def _unusable(problem: bytes) -> DotFile:
    return DotFile(b"", problem=problem)


def word_of(error: OSError) -> bytes:
    """What qmail's programs say of an error."""
    number = error.errno or 0
    return _WORDS.get(number) or os.strerror(number).lower().encode()
