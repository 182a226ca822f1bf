"""Files of a home that are put in another's place: whole, synced, by one writer at a time."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from openqmail.core.values import TemporaryFailure

LOCK = ".lock"

PATIENCE = 30.0
"""Seconds."""


def replace(path: str, content: bytes, mode: int = 0o644, owner: tuple[int, int] | None = None) -> None:
    """Put a new content in a file's place: whoever reads sees the old one or the new.

    `owner`: uid and gid, before anything is written."""
    temporary = f"{path}.tmp"
    with suppress(FileNotFoundError):
        os.unlink(temporary)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode & 0o600)
    try:
        with naming(path), os.fdopen(descriptor, "wb") as opened:
            if owner is not None:
                os.fchown(opened.fileno(), *owner)
            os.fchmod(opened.fileno(), mode)
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        os.rename(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(os.path.dirname(path))


@contextmanager
def naming(path: str) -> Iterator[None]:
    """An OSError that leaves the block names this file, as those of write(2) and fsync(2) do not."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = path
        raise


def sync_folder(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def one_writer(folder: str) -> Iterator[None]:
    """Alone among those who write into a folder by this rule.  Raises TemporaryFailure where another does for
    `PATIENCE` seconds, and OSError.

    What is locked is a file that nobody else can open: whoever can open one may lock it."""
    path = os.path.join(folder, LOCK)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        _lock(descriptor, path)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: str) -> None:
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise TemporaryFailure(
                    f"{path}: another 'openqmail user' or 'openqmail mailbox' has had it for {PATIENCE:g} "
                    "seconds; see what it waits for, or end it, and try again"
                ) from None
        time.sleep(0.02)
