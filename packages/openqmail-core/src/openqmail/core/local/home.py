"""A user's home, as the `.qmail` interpreter may see it: checked, then looked into.

The checks and their texts are qmail-local's.  What the user is just editing (a sticky home)
or what anybody else could have written is not obeyed.  Nothing is written here.
"""

import errno
import os
import stat

from openqmail.core.dotqmail import DotFile

FOREIGN = stat.S_IWOTH
"""Who else may write: qmail's conf-patrn, 002."""

LARGEST = 1 << 20
"""Bytes of a `.qmail` file that are read; a longer one is refused."""

_ABSENT = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ENXIO))
_WORDS = {
    errno.ENOENT: b"file does not exist",
    errno.EACCES: b"access denied",
    errno.EPERM: b"permission denied",
    errno.ENOTDIR: b"not a directory",
    errno.EIO: b"input/output error",
    errno.ELOOP: b"symbolic link loop",
}


def check_home(home: bytes) -> os.stat_result | bytes:
    """What stat(2) says of `home`; or why nothing may be delivered in it now, as the text of a deferral."""
    if not home.startswith(b"/"):
        return b"The home %s of users/assign is not an absolute path. (#4.3.0)\n" % home
    try:
        found = os.stat(home)
    except OSError as error:
        return b"Unable to switch to %s: %s. (#4.3.0)\n" % (home, _word(error))
    if not stat.S_ISDIR(found.st_mode):
        return b"Unable to switch to %s: not a directory. (#4.3.0)\n" % home
    if found.st_mode & FOREIGN:
        return b"Uh-oh: home directory is writable. (#4.7.0)\n"
    if found.st_mode & stat.S_ISVTX:
        return b"Home directory is sticky: user is editing his .qmail file. (#4.2.1)\n"
    return found


def look(home: bytes, name: bytes) -> DotFile | None:
    """The `.qmail` file of that name; None when there is no such regular file."""
    if b"\0" in name:
        return None
    try:
        # Without O_NONBLOCK a FIFO of that name would stop everything.
        opened = os.open(home + b"/" + name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        return _unusable(b"Unable to open %s: %s. (#4.3.0)\n" % (name, _word(error)))
    try:
        mode = os.fstat(opened).st_mode
        if not stat.S_ISREG(mode):
            return None
        if mode & FOREIGN:
            return _unusable(b"Uh-oh: .qmail file is writable. (#4.7.0)\n")
        content = _read(opened)
    except OSError as error:
        return _unusable(b"Unable to read %s: %s. (#4.3.0)\n" % (name, _word(error)))
    finally:
        os.close(opened)
    if len(content) > LARGEST:
        return _unusable(b"%s is longer than %d bytes. (#4.3.0)\n" % (name, LARGEST))
    return DotFile(content, bool(mode & stat.S_IXUSR))


def _read(opened: int) -> bytes:
    """Up to a byte more than may be."""
    content = b""
    while len(content) <= LARGEST and (more := os.read(opened, LARGEST + 1 - len(content))):
        content += more
    return content


def _unusable(problem: bytes) -> DotFile:
    return DotFile(b"", problem=problem)


def _word(error: OSError) -> bytes:
    number = error.errno or 0
    return _WORDS.get(number) or os.strerror(number).lower().encode()
