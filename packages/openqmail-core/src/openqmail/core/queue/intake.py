"""Messages in: from an envelope and a body to a record that is durable (rules 9, 10 and 13).

A number is taken from the pool, a large body streams into its file, the watermark is watched;
what cannot be taken is refused, and leaves nothing behind.  Bodies of fresh small messages
stay in memory up to a budget.
"""

import contextlib
import os
from asyncio import AbstractEventLoop, Future
from collections.abc import Callable

from openqmail.core.ports import LARGE, LargeBody
from openqmail.core.queue.index import Entry
from openqmail.core.queue.journal import Item
from openqmail.core.queue.journal.commit import Committer
from openqmail.core.queue.journal.reading import FRESH
from openqmail.core.queue.journal.records import MAX_RECORD, Kept, Recorded, Submitted, encode_record
from openqmail.core.queue.large import NO_NUMBER, LargeBodies, LargeWriter, Sealed
from openqmail.core.queue.layout.paths import Layout
from openqmail.core.queue.limits import Limits
from openqmail.core.queue.pool import Pool
from openqmail.core.queue.store import Change, Closes, Stored
from openqmail.core.values import (
    Envelope,
    MessageId,
    OpenqmailError,
    PermanentFailure,
    QueueFull,
    TemporaryFailure,
)
from openqmail.core.world import Clock, Disk, Workers

FLOOR = 4
"""Times the reserve: what large bounces and forwards leave free below the watermark (on a small disk
a quarter of it), for moves and deliveries."""

Closing = tuple[Recorded | Kept, Entry | None]
"""What a submission records of another message, and that one's entry, if it is in the journal."""


class Intake:
    """`closing`: makes the record of what a submission closes; `closed`: that is durable;
    `crowded`: numbers have run out, mail should leave the journal; `full`: there is too little room, from
    now on; `claims`: gets the large messages
    that are durable, while their files are just getting their names."""

    def __init__(
        self,
        loop: AbstractEventLoop,
        disk: Disk,
        clock: Clock,
        layout: Layout,
        limits: Limits,
        pool: Pool,
        workers: Workers,
        committer: Committer,
        entries: dict[int, Entry],
        claims: list[Item],
        closing: Callable[[Closes], Closing],
        closed: Callable[[Recorded | Kept, tuple[Change, ...], Item], None],
        crowded: Callable[[], None],
        full: Callable[[], None],
        report: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._disk = disk
        self._clock = clock
        self._layout = layout
        self._limits = limits
        self._pool = pool
        self._workers = workers
        self._committer = committer
        self._entries = entries
        self._claims = claims
        self._closing = closing
        self._closed = closed
        self._crowded = crowded
        self._told_full = full
        self._report = report
        self._bodies = LargeBodies(disk, layout, pool, loop, workers, self._full)
        self._memory = 0
        self._room_at = float("-inf")
        self._is_full = self._is_scarce = False

    def large(self, closes: bool) -> LargeBody:
        return LargeWriter(self._bodies, closes)

    def submit(
        self, envelope: Envelope, body: bytes | LargeBody, closes: Closes | None = None
    ) -> "Future[Stored]":
        future: Future[Stored] = self._loop.create_future()
        if isinstance(body, bytes):
            number = self._pool.take()
            if number is not None:
                self._submit(future, number, envelope, body, closes)
            else:
                self._when_numbered(future, envelope, body, closes)
        elif isinstance(body, LargeWriter):
            writer = body
            writer.finish().add_done_callback(
                lambda done: self._sealed(future, envelope, writer, done, closes)
            )
        else:
            raise TypeError("a large body comes from this store's large()")
        return future

    def _when_numbered(
        self, future: "Future[Stored]", envelope: Envelope, body: bytes, closes: Closes | None
    ) -> None:
        spare = closes is not None

        def grown(error: OSError | None) -> None:
            number = self._pool.take(spare) if error is None else None
            if number is not None:
                self._submit(future, number, envelope, body, closes)
            elif error is not None:
                future.set_exception(QueueFull(f"no number can be reserved in the queue: {error.strerror}"))
            elif not self._pool.spent(spare):  # others were faster
                self._when_numbered(future, envelope, body, closes)
            else:
                self._crowded()
                future.set_exception(QueueFull(NO_NUMBER))

        self._pool.when_grown(grown, spare)

    def _sealed(
        self,
        future: "Future[Stored]",
        envelope: Envelope,
        writer: LargeWriter,
        done: "Future[Sealed]",
        closes: Closes | None,
    ) -> None:
        error = done.exception()
        if error is None:
            sealed = done.result()
            self._submit(future, sealed.number, envelope, b"", closes, sealed, writer)
        elif not future.done():
            future.set_exception(error)

    def _submit(
        self,
        future: "Future[Stored]",
        number: int,
        envelope: Envelope,
        body: bytes,
        closes: Closes | None,
        sealed: Sealed | None = None,
        writer: LargeWriter | None = None,
    ) -> None:
        def refuse(error: OpenqmailError) -> None:
            self._refuse(future, number, writer, error)

        if closes is None and self._full(False):
            refuse(QueueFull("the queue's file system has too little room left"))
            return
        changes = closes.changes if closes is not None else ()
        closing: Recorded | Kept | None = None
        parent: Entry | None = None
        if closes is not None:
            try:
                closing, parent = self._closing(closes)
            except (KeyError, OpenqmailError, OSError) as error:
                refuse(error if isinstance(error, OpenqmailError) else TemporaryFailure(f"gone: {error}"))
                return
        size = len(body) if writer is None else writer.size
        birth = int(self._clock.now())
        digest = sealed.digest if sealed is not None else b""
        data = encode_record(Submitted(number, birth, size, envelope, digest, closing), len(body))
        if len(data) + len(body) > MAX_RECORD:
            refuse(PermanentFailure(f"the message is longer than {MAX_RECORD} bytes; have it streamed"))
            return
        entry = Entry(number, birth, size, len(envelope.recipients), len(data), len(body))
        entry.digest = digest
        if not digest and len(body) < LARGE and self._memory + len(body) <= self._limits.memory:
            entry.body = body
            self._memory += len(body)

        if parent is not None:
            parent.closing += 1  # its files in the layout, if they are being written, are out of date
            parent.changed = True

        def closed(item: Item) -> None:
            if parent is not None:
                parent.closing -= 1
            if closing is not None and item.error is None:
                self._closed(closing, changes, item)

        def settled(item: Item) -> None:
            self._submitted(item, future, envelope, writer, closed)

        ends = parent if closing is not None and closing.ended else None
        pins = isinstance(closing, Kept) or (closing is not None and bool(closing.key))
        item = Item(data, body, entry, ends, pins, None, True, closing is not None, settled)
        self._committer.add(item)

    def _refuse(
        self, future: "Future[Stored]", number: int, writer: LargeWriter | None, error: OpenqmailError
    ) -> None:
        if writer is not None:
            writer.discard()
        else:
            self._pool.give(number)
        if not future.done():
            future.set_exception(error)

    @property
    def full(self) -> bool:
        """Whether new mail is refused, as there is too little room."""
        return self._full(False)

    def _full(self, closes: bool) -> bool:
        """Whether the watermark is reached, or the floor of large mail that closes other mail; looks at
        the disk at most once a second."""
        now = self._clock.monotonic()
        if now - self._room_at >= self._limits.room_every:
            self._room_at = now
            with contextlib.suppress(OSError):
                free, total = self._disk.room(self._layout.folder)
                watermark = total * self._limits.watermark
                self._note_room(free, free < watermark)
                self._is_scarce = free < min(FLOOR * self._limits.reserve, watermark / 4)
        return self._is_scarce if closes else self._is_full

    def _note_room(self, free: int, full: bool) -> None:
        if full != self._is_full:
            self._is_full = full
            what = "new mail is refused (452) until there is more" if full else "new mail is taken again"
            where = os.fsdecode(self._layout.folder)
            self._report(f"{free >> 20} MiB are free on the file system of {where}: {what}")
            if full:
                self._told_full()

    def _submitted(
        self,
        item: Item,
        future: "Future[Stored]",
        envelope: Envelope,
        writer: LargeWriter | None,
        closed: Callable[[Item], None],
    ) -> None:
        entry = item.entry
        assert entry is not None
        if item.error is not None:
            closed(item)
            self.forget_body(entry)
            if self._committer.error is None:
                self._refuse(future, entry.number, writer, item.error)
            elif not future.done():  # the file may yet hold the message: recovery decides
                future.set_exception(item.error)
            return

        def accepted() -> None:
            closed(item)  # not before: a number that comes free may be another's at once
            self._accepted(entry, envelope, future)

        if not entry.large:
            accepted()
            return
        pool, mess = self._layout.pool(entry.number), self._layout.mess(entry.number)
        self._claims.append(item)

        def claimed(_: None, error: BaseException | None) -> None:
            self._claims.remove(item)
            if error is not None:  # accepted all the same: its move, or the next opening, repeats it
                self._report(f"message {entry.number} waits: {error}")
            accepted()

        self._workers.do(claimed, self._disk.rename, pool, mess)

    def _accepted(self, entry: Entry, envelope: Envelope, future: "Future[Stored]") -> None:
        self._entries[entry.number] = entry
        if not future.done():
            progress = (FRESH,) * len(envelope.recipients)
            identity = MessageId(entry.number, entry.key)
            future.set_result(Stored(identity, entry.birth, entry.size, envelope, progress))

    def forget_body(self, entry: Entry) -> None:
        if entry.body is not None:
            self._memory -= len(entry.body)
            entry.body = None
