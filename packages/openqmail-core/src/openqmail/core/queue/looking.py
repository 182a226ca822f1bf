"""The queue while no service has it: read as it lies on the disk, and nothing is changed.

What the next start would do (results that are in the journal alone, moves that were not
finished) is seen here as it will be then.
"""

import os
from collections.abc import Callable, Iterator

from openqmail.core.ports import LARGE
from openqmail.core.queue.body import FileBody
from openqmail.core.queue.index import Resident
from openqmail.core.queue.journal.reading import body_of, stored
from openqmail.core.queue.journal.records import Kept
from openqmail.core.queue.journal.recovery import Found, recover
from openqmail.core.queue.layout import forms, paths, reader, whole
from openqmail.core.queue.layout.held import Held
from openqmail.core.queue.layout.scan import Scan
from openqmail.core.queue.opening import check_journal, oldest_first
from openqmail.core.queue.store import Stored
from openqmail.core.queue.unreadable import unreadable
from openqmail.core.values import (
    Body,
    BytesBody,
    Envelope,
    MessageId,
    OpenqmailError,
    Origin,
    QueueDamaged,
    Recipient,
    TemporaryFailure,
)
from openqmail.core.world import Disk, PosixDisk


def read(
    folder: bytes, disk: Disk | None = None, missed: Callable[[int, str], None] = lambda number, why: None
) -> Iterator[Stored]:
    """Every message of the queue at `folder`, oldest first; `missed` is told of those that cannot be
    read, and why.  Raises QueueDamaged (the journal is), HomeError, OSError."""
    queue = _Queue(folder, disk or PosixDisk())
    for number in oldest_first(queue.found.entries.values(), queue.residents):
        try:
            one = queue.load(number)
        except OpenqmailError as error:
            missed(number, str(error))
            continue
        if one is not None:
            yield one
    for number, why in queue.odd.items():
        missed(number, why)
    yield from queue.arriving(missed)


def read_body(folder: bytes, number: int, disk: Disk | None = None) -> Body | None:
    """A message of it; None when it is not there.  Raises QueueDamaged, HomeError, OSError,
    TemporaryFailure when it cannot be read."""
    return _Queue(folder, disk or PosixDisk()).body(number)


class _Queue:
    def __init__(self, folder: bytes, disk: Disk) -> None:
        self._disk = disk
        self.found = Found()
        self.residents: dict[int, Resident] = {}
        self.odd: dict[int, str] = {}
        self._todo: list[int] = []
        self._layout: paths.Layout | None = None
        self._kept: dict[int, list[Kept]] = {}
        journal = os.path.join(folder, b"journal")
        names = disk.names(folder)
        if b"journal" in names:
            self.found = recover(disk, journal)
        whole.require(disk, folder)
        check_journal(disk, folder, self.found)
        for record in self.found.kept:
            self._kept.setdefault(record.number, []).append(record)
        self._layout = paths.find(disk, folder)
        if self._layout is not None:
            held = _held(disk, self._layout) if b"held" in names else []
            self._todo = sorted(_todo(disk, self._layout))
            scanned = Scan(disk, self._layout, {*self.found.entries, *self._todo}, held).scan()
            self.residents = scanned.residents
            self.odd = {
                number: why for number, why in sorted(scanned.odd.items()) if not self._has_ended(number)
            }

    def load(self, number: int) -> Stored | None:
        """None for a message that has ended.  Raises TemporaryFailure, QueueDamaged."""
        try:
            return self._load(number)
        except OSError as error:
            path = os.fsencode(error.filename or self._files(number).info)
            raise TemporaryFailure(unreadable(path, error)) from error

    def _files(self, number: int) -> paths.Files:
        assert self._layout is not None
        held = number in self.residents and self.residents[number].held
        return self._layout.held_files(number) if held else self._layout.files(number)

    def _has_ended(self, number: int) -> bool:
        """Whether the journal says so of a message whose files are going."""
        ended = [record.key for record in self._kept.get(number, ()) if record.ended]
        if not ended or self._layout is None:
            return False
        for files in (self._layout.files(number), self._layout.held_files(number)):
            try:
                return reader.read_info(self._disk, files.info, number, self.found.queue).key in ended
            except FileNotFoundError:
                continue
            except (OSError, QueueDamaged):
                return False
        return True

    def _load(self, number: int) -> Stored | None:
        entry = self.found.entries.get(number)
        if entry is not None:
            return stored(self._disk, entry)
        resident = self.residents[number]
        assert self._layout is not None
        held, files = None, self._files(number)
        if resident.held:
            held = Held.reason_of(self._disk, self._layout, number).decode("utf-8", "replace")
        queue = self.found.queue
        one = reader.read(self._disk, files, number, resident, queue)
        pending = [record for record in self._kept.get(number, ()) if record.key == one.id.key]
        if any(record.ended for record in pending):
            return None
        if not pending and held is None:
            return one
        return reader.read(self._disk, files, number, resident, queue, pending, held)

    def arriving(self, missed: Callable[[int, str], None]) -> Iterator[Stored]:
        """What a foreign qmail-queue has put into `todo/`: the next start takes it in."""
        for number in self._todo:
            assert self._layout is not None
            path = self._layout.todo(number)
            try:
                content, mtime = self._disk.contents(path)
                todo = forms.decode_todo(content)
                path = self._layout.mess(number)
                size = self._disk.stat(path).size
            except (OSError, ValueError) as error:
                missed(number, unreadable(path, error))
                continue
            recipients = tuple([Recipient(address) for address in todo.recipients])
            envelope = Envelope(todo.sender, recipients, Origin(todo.uid, todo.pid))
            key = reader.foreign_key(self.found.queue, number, mtime)
            yield Stored(MessageId(number, key), mtime, size, envelope, (reader.FRESH,) * len(recipients))

    def body(self, number: int) -> Body | None:
        layout = self._layout
        entry = self.found.entries.get(number)
        if entry is not None and layout is not None:
            if entry.large and not paths.exists(self._disk, layout.mess(number)):
                return FileBody(self._disk, layout.pool(number), 0, entry.size, entry.digest)
            return body_of(self._disk, entry, layout.mess(number))
        if number in self.odd:
            raise TemporaryFailure(self.odd[number])
        if number not in self.residents and number not in self._todo:
            return None
        path = self._files(number).mess
        try:
            size = self._disk.stat(path).size
            if size >= LARGE:
                self._disk.open(path).close()
                return FileBody(self._disk, path, 0, size)
            return BytesBody(self._disk.contents(path)[0])
        except OSError as error:
            raise TemporaryFailure(unreadable(path, error)) from error


def _held(disk: Disk, layout: paths.Layout) -> list[int]:
    folder = os.path.join(layout.folder, b"held")
    numbers = [int(name) for name, is_folder in disk.scan(folder) if is_folder and paths.plain_number(name)]
    return [number for number in sorted(numbers) if paths.exists(disk, layout.held_files(number).info)]


def _todo(disk: Disk, layout: paths.Layout) -> set[int]:
    """Not taken in yet: the next start does that."""
    return {
        int(name)
        for folder in layout.below(b"todo")
        for name, is_folder in disk.scan(folder)
        if paths.plain_number(name) and not is_folder
    }
