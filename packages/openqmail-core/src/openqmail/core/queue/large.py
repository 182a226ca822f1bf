"""Bodies too large for the journal: each streams into the file of its number (rule 9).

The file is `pool/N` while the body comes in, by a few threads for all bodies, and `mess/N` once
a record claims it; recovery repeats that rename, and empties what no record claims.  Memory
does not grow with a body: its sender is read no further than it is written.
"""

from asyncio import AbstractEventLoop, Future
from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from typing import Any

import msgspec

from openqmail.core.queue.body import FileBody
from openqmail.core.queue.journal import FULL
from openqmail.core.queue.layout.paths import Layout
from openqmail.core.queue.pool import Pool
from openqmail.core.values import Body, QueueFull, TemporaryFailure
from openqmail.core.world import Disk, File, Workers

NO_NUMBER = "too many messages are under way in the queue; try again later"


class Sealed(msgspec.Struct, frozen=True):
    """A body that is durable in `pool/N`."""

    number: int
    digest: bytes


class LargeBodies:
    """What the writers share.  `full`: whether there is too little room for new mail; or, if told so, for
    mail that closes other mail."""

    def __init__(
        self,
        disk: Disk,
        layout: Layout,
        pool: Pool,
        loop: AbstractEventLoop,
        workers: Workers,
        full: Callable[[bool], bool],
    ) -> None:
        self.disk, self.layout, self.pool, self.loop = disk, layout, pool, loop
        self.workers, self.full = workers, full

    def empty(self, number: int) -> None:
        """Nobody wants what is in `pool/N`: the number is free."""
        path = self.layout.pool(number)
        self.workers.do(lambda _, __: self.pool.give(number), self.disk.truncate, path, 0)


class LargeWriter:
    """A `LargeBody`: the file under way of one message.  `closes`: as in `QueueStore.large`."""

    def __init__(self, bodies: LargeBodies, closes: bool) -> None:
        self._bodies = bodies
        self._closes = closes
        self._number: int | None = None
        self._file: File | None = None
        self._hash = blake2b(digest_size=32)
        self._pending: list[tuple[bytes, Future[None]]] = []
        self._busy = False
        self._finished: Future[Sealed] | None = None
        self._aborted = False
        self._error: TemporaryFailure | None = None
        self.size = 0

    def write(self, chunk: bytes) -> "Future[None]":
        future: Future[None] = self._bodies.loop.create_future()
        if self._aborted or self._finished is not None:
            future.set_exception(TemporaryFailure("the body was given up or handed in already"))
        elif self._error is not None:
            future.set_exception(self._error)
        elif self._bodies.full(self._closes):
            future.set_exception(QueueFull("the queue's file system has too little room left"))
        else:
            self.size += len(chunk)
            self._pending.append((chunk, future))
            self._go_on()
        return future

    def so_far(self) -> "Future[Body]":
        future: Future[Body] = self._bodies.loop.create_future()
        self.write(b"").add_done_callback(partial(self._readable, future, self.size))
        return future

    def abort(self) -> None:
        if not self._aborted and self._finished is None:
            self._aborted = True
            self._go_on()

    def finish(self) -> "Future[Sealed]":
        """Make it durable.  Raises QueueFull, TemporaryFailure."""
        future: Future[Sealed] = self._bodies.loop.create_future()
        if self._aborted or self._finished is not None:
            future.set_exception(TemporaryFailure("the body was given up or handed in already"))
            return future
        self._finished = future
        self._go_on()
        return future

    def discard(self) -> None:
        """The message was refused after all."""
        self._let_go()

    def _readable(self, future: "Future[Body]", size: int, done: "Future[None]") -> None:
        error = done.exception()
        if error is not None:
            future.set_exception(error)
        elif self._number is not None:
            path = self._bodies.layout.pool(self._number)
            future.set_result(FileBody(self._bodies.disk, path, 0, size))
        else:
            future.set_exception(TemporaryFailure("the body was given up"))

    # --- one step at a time, in a thread ----------------------------------------------------

    def _go_on(self) -> None:
        if self._busy:
            return
        if self._aborted or self._error is not None:
            self._give_up()
        elif self._number is None and (self._pending or self._finished is not None):
            self._take_number()
        elif self._pending:
            taken, self._pending = self._pending, []
            told = [future for _, future in taken]
            self._step(self._append, [chunk for chunk, _ in taken], told)
        elif self._finished is not None and not self._finished.done():
            self._step(self._seal, None, [])

    def _take_number(self) -> None:
        pool = self._bodies.pool
        self._number = pool.take(self._closes)
        if self._number is not None:
            self._go_on()
        elif pool.spent(self._closes):
            self._error = QueueFull(NO_NUMBER)
            self._give_up()
        else:
            self._busy = True
            pool.when_grown(self._grown, self._closes)

    def _grown(self, error: OSError | None) -> None:
        self._busy = False
        if error is not None:
            self._fail(error)
        self._go_on()

    def _give_up(self) -> None:
        error = self._error or TemporaryFailure("the body was given up")
        for _, future in self._pending:
            if not future.done():
                future.set_exception(error)
        self._pending = []
        if self._finished is not None and not self._finished.done():
            self._finished.set_exception(error)
        self._let_go()

    def _let_go(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._number is not None:
            self._bodies.empty(self._number)
            self._number = None

    def _step(
        self, step: Callable[[Any], Sealed | None], argument: object, told: "list[Future[None]]"
    ) -> None:
        self._busy = True
        self._bodies.workers.do(lambda sealed, error: self._stepped(sealed, error, told), step, argument)

    def _stepped(
        self, sealed: Sealed | None, error: BaseException | None, told: "list[Future[None]]"
    ) -> None:
        self._busy = False
        if error is not None:
            self._fail(error)
        for future in told:
            if future.done():
                continue
            if self._error is not None:
                future.set_exception(self._error)
            else:
                future.set_result(None)
        if sealed is not None and self._finished is not None and not self._finished.done():
            self._finished.set_result(sealed)
        else:
            self._go_on()

    def _fail(self, error: BaseException) -> None:
        why = error.strerror if isinstance(error, OSError) else repr(error)
        kind = QueueFull if isinstance(error, OSError) and error.errno in FULL else TemporaryFailure
        self._error = kind(f"a large message could not be stored: {why}")

    def _open(self) -> File:
        if self._file is None:
            assert self._number is not None
            self._file = self._bodies.disk.open(self._bodies.layout.pool(self._number), write=True)
            if self._file.size():
                self._file.truncate(0)
        return self._file

    def _append(self, chunks: list[bytes]) -> None:
        self._open().append(chunks)
        for chunk in chunks:
            self._hash.update(chunk)

    def _seal(self, _: None) -> Sealed:
        file = self._open()
        file.sync()
        file.close()
        self._file = None
        assert self._number is not None
        return Sealed(self._number, self._hash.digest())
