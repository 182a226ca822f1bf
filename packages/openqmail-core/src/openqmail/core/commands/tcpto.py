"""`qmail-tcpto` and `qmail-tcpok`: show and clear the table of addresses that were silent.

Output, sentences and exit codes are qmail's (qmail-tcpto(8), qmail-tcpok(8)), IPv6 addresses as
inet_ntop(3) writes them: 0 done, 111 not, and `qmail-tcpto` says why on standard output.  100 is for
misuse.  Root may run them, and whoever owns the queue.  What lies in the queue leads root nowhere:
below it no link is followed, and who keeps the lock for long is not waited for.
"""

import errno
import fcntl
import os
import stat
import sys
import time
from collections.abc import Callable, Sequence
from io import FileIO

from openqmail.core.commands.sendmail import HOMES
from openqmail.core.remote.tcpto import SIZE, V4, V6, FileTable, address_of

DONE, MISUSE, FAILED = 0, 100, 111

PATIENCE = 5.0
"""Seconds for the lock; qmail's programs and ours hold it for moments."""
_AGAIN = 0.05

_WORDS = {
    errno.ENOENT: "file does not exist",
    errno.EACCES: "access denied",
    errno.ENOTDIR: "not a directory",
    errno.EISDIR: "is a directory",
    errno.ENOSPC: "out of disk space",
    errno.EIO: "input/output error",
}
"""qmail's own; for others the system's."""


class _Failed(Exception):
    """`what` qmail could not do: chdir, open, lock, read or clear; `path`: with what."""

    def __init__(self, what: str, path: str, error: OSError) -> None:
        super().__init__(_WORDS.get(error.errno or 0) or (error.strerror or str(error)).lower())
        self.what = what
        self.path = path


def show(argv: Sequence[str] | None = None) -> int:
    """The console script qmail-tcpto."""
    return _run("qmail-tcpto", argv, _show)


def clear(argv: Sequence[str] | None = None) -> int:
    """The console script qmail-tcpok."""
    return _run("qmail-tcpok", argv, _clear)


def _run(name: str, argv: Sequence[str] | None, work: Callable[[str], int]) -> int:
    words = sys.argv[1:] if argv is None else list(argv)
    if words and (words[0] != "--home" or len(words) != 2):
        print(f"usage: {name} [--home DIR]", file=sys.stderr)
        return DONE if words == ["--help"] else MISUSE
    return work(words[1] if words else _home())


def _home() -> str:
    named = os.environ.get("OPENQMAIL_HOME")
    if named:
        return named
    return next((home for home in HOMES if os.path.lexists(os.path.join(home, "queue"))), HOMES[0])


def _show(home: str) -> int:
    try:
        with _opened(home) as table:
            now = int(time.time())
            try:
                records = [one for form in (V4, V6) for one in FileTable(table.fileno(), form).read()]
            except OSError as error:
                raise _Failed("read", home, error) from None
    except _Failed as failure:
        thing = "" if failure.what == "chdir" else " tcpto"
        print(f"fatal: unable to {failure.what}{thing}: {failure}")
        return FAILED
    for one in records:
        if one.count:
            ago = max(0, now - one.when)
            print(f"{address_of(one)} timed out {ago} seconds ago; # recent timeouts: {one.count}")
    return DONE


def _clear(home: str) -> int:
    try:
        with _opened(home) as table:
            try:
                size = os.fstat(table.fileno()).st_size  # qmail's own is shorter, and stays so
                os.pwrite(table.fileno(), bytes(max(V4.end, min(size, SIZE))), 0)
            except OSError as error:
                raise _Failed("clear", os.path.join(home, "queue/lock/tcpto"), error) from None
    except _Failed as failure:
        verb = {"chdir": "chdir to", "open": "write"}.get(failure.what, failure.what)
        print(f"qmail-tcpok: fatal: unable to {verb} {failure.path}: {failure}", file=sys.stderr)
        return FAILED
    return DONE


def _opened(home: str) -> FileIO:
    """The file, open for reading and writing, and locked as long as it is.  Raises _Failed."""
    folder, lock = home, os.path.join(home, "queue", "lock")
    try:
        os.stat(os.path.join(home, "."))
        folder = lock
        queue = os.open(os.path.join(home, "queue"), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            inside = os.open("lock", os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=queue)
        finally:
            os.close(queue)
    except OSError as error:
        raise _Failed("chdir", folder, error) from None
    path = os.path.join(lock, "tcpto")
    try:
        flags = os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        opened = FileIO(os.open("tcpto", flags, dir_fd=inside), "r+")
    except OSError as error:
        raise _Failed("open", path, error) from None
    finally:
        os.close(inside)
    try:
        found = os.fstat(opened.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            raise _Failed("open", path, OSError(errno.EINVAL, "not a plain file with one name"))
        _lock(opened)
    except OSError as error:
        opened.close()
        raise _Failed("lock", path, error) from None
    except _Failed:
        opened.close()
        raise
    return opened


def _lock(opened: FileIO) -> None:
    """Raises OSError, also when somebody else does not let it go."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise OSError(errno.EAGAIN, "somebody else keeps the lock") from None
            time.sleep(_AGAIN)
        else:
            return
