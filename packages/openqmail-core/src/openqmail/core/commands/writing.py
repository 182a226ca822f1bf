"""New files and folders of a home: made whole or not at all, and taken back on failure."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from openqmail.core.control.replacing import naming, sync_folder

MAILDIR = ("tmp", "new", "cur")


class Made:
    """Makes files and folders that must not be there yet, and remembers them in order."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    def folder(self, path: str, mode: int) -> str:
        os.mkdir(path, mode)
        self.paths.append(path)
        return path

    def file(self, path: str, content: bytes, mode: int) -> str:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        self.paths.append(path)
        with naming(path), os.fdopen(descriptor, "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        return path

    def maildir(self, home: str) -> None:
        """The folder of a user and a Maildir in it (maildir(5))."""
        self.folder(home, 0o700)
        maildir = self.folder(os.path.join(home, "Maildir"), 0o700)
        for name in MAILDIR:
            self.folder(os.path.join(maildir, name), 0o700)


@contextmanager
def all_or_nothing() -> Iterator[Made]:
    """What was made inside is removed again when an exception leaves the block."""
    made = Made()
    before = os.umask(0o022)
    try:
        yield made
        for path in made.paths:
            if os.path.isdir(path):
                sync_folder(path)
    except BaseException:
        for path in reversed(made.paths):
            with suppress(OSError):
                os.rmdir(path) if os.path.isdir(path) else os.unlink(path)
        raise
    finally:
        os.umask(before)
