"""Bodies too large for the journal: each a file in `large/`, written while it comes in.

A file is named at random and belongs to nobody until a record claims it; then it stays
until the record that ended its message is synced.  Recovery removes what no record
claims.  Chunks of one body are written in order, by a few threads for all bodies.
"""

import contextlib
import os
from asyncio import AbstractEventLoop, Future
from collections.abc import Callable
from concurrent.futures import Executor
from hashlib import blake2b
from typing import TypeVar

from openqmail.core.queue.journal import FULL
from openqmail.core.queue.records import LargeFile
from openqmail.core.values import QueueFull, TemporaryFailure
from openqmail.core.world import Disk, File

_T = TypeVar("_T")


class LargeFolder:
    """The folder `large/` of a journal.  `full`: whether the watermark is reached."""

    def __init__(
        self, disk: Disk, folder: bytes, loop: AbstractEventLoop, threads: Executor, full: Callable[[], bool]
    ) -> None:
        self.disk, self.folder, self.loop, self.threads, self.full = disk, folder, loop, threads, full

    def path(self, name: str) -> bytes:
        return os.path.join(self.folder, name.encode())

    def remove(self, name: str) -> None:
        """Unlink it, soon; recovery does what is left undone."""
        self.run(self.unlink, name)

    def run(self, call: Callable[..., _T], *arguments: object) -> "Future[_T]":
        """Call it in one of the threads."""
        return self.loop.run_in_executor(self.threads, call, *arguments)

    def unlink(self, name: str) -> None:
        with contextlib.suppress(OSError):
            self.disk.unlink(self.path(name))

    def sweep(self, claimed: set[str]) -> None:
        """Remove what no message claims.  Blocks."""
        for name in self.disk.names(self.folder):
            if os.fsdecode(name) not in claimed:
                self.unlink(os.fsdecode(name))


class LargeWriter:
    """A `LargeBody`: the file under way of one message."""

    def __init__(self, folder: LargeFolder) -> None:
        self._folder = folder
        self._file: File | None = None
        self._name = os.urandom(12).hex()
        self._hash = blake2b(digest_size=32)
        self._pending: list[tuple[bytes, Future[None]]] = []
        self._writing = False
        self._finished: Future[LargeFile] | None = None
        self._aborted = False
        self._error: TemporaryFailure | None = None
        self.size = 0

    def write(self, chunk: bytes) -> "Future[None]":
        future: Future[None] = self._folder.loop.create_future()
        if self._aborted or self._finished is not None:
            future.set_exception(TemporaryFailure("the body was given up or handed in already"))
        elif self._error is not None:
            future.set_exception(self._error)
        elif self._folder.full():
            future.set_exception(QueueFull("the queue's file system has too little room left"))
        else:
            self.size += len(chunk)
            self._pending.append((chunk, future))
            self._go_on()
        return future

    def abort(self) -> None:
        if not self._aborted and self._finished is None:
            self._aborted = True
            self._go_on()

    def finish(self) -> "Future[LargeFile]":
        """Make it durable, with its name.  Raises QueueFull, TemporaryFailure."""
        if self._aborted or self._finished is not None:
            again: Future[LargeFile] = self._folder.loop.create_future()
            again.set_exception(TemporaryFailure("the body was given up or handed in already"))
            return again
        self._finished = self._folder.loop.create_future()
        self._go_on()
        return self._finished

    def discard(self) -> None:
        """The message was refused after all."""
        self._folder.remove(self._name)

    # --- one step at a time, in a thread ----------------------------------------------------

    def _go_on(self) -> None:
        if self._writing:
            return
        if self._pending and not self._aborted and self._error is None:
            taken, self._pending = self._pending, []
            self._start(self._append, [chunk for chunk, _ in taken], [future for _, future in taken])
            return
        for _, future in self._pending:
            if not future.done():
                future.set_exception(self._error or TemporaryFailure("the body was given up"))
        self._pending = []
        if self._aborted:
            self._folder.run(self._remove)
        elif self._finished is not None and not self._finished.done():
            if self._error is not None:
                self._folder.run(self._remove)
                self._finished.set_exception(self._error)
            else:
                self._start(self._seal, None, [])

    def _start(
        self, step: "Callable[..., LargeFile | None]", argument: object, told: "list[Future[None]]"
    ) -> None:
        self._writing = True
        running: Future[LargeFile | None] = self._folder.run(step, argument)
        running.add_done_callback(lambda done: self._stepped(done, told))

    def _stepped(self, done: "Future[LargeFile | None]", told: "list[Future[None]]") -> None:
        self._writing = False
        error = done.exception()
        if isinstance(error, OSError):
            kind = QueueFull if error.errno in FULL else TemporaryFailure
            self._error = kind(f"a large message could not be stored: {error.strerror}")
        elif error is not None:
            self._error = TemporaryFailure(f"a large message could not be stored: {error!r}")
        for future in told:
            if future.done():
                continue
            if self._error is not None:
                future.set_exception(self._error)
            else:
                future.set_result(None)
        sealed = None if self._error is not None else done.result()
        if sealed is not None and self._finished is not None and not self._finished.done():
            self._finished.set_result(sealed)
        else:
            self._go_on()

    def _open(self) -> File:
        if self._file is None:
            self._file = self._folder.disk.create(self._folder.path(self._name))
        return self._file

    def _append(self, chunks: list[bytes]) -> None:
        self._open().append(chunks)
        for chunk in chunks:
            self._hash.update(chunk)

    def _seal(self, _: None) -> LargeFile:
        file = self._open()
        file.sync()
        file.close()
        self._file = None
        self._folder.disk.sync_folder(self._folder.folder)
        return LargeFile(self._name, self._hash.digest())

    def _remove(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self._folder.unlink(self._name)
