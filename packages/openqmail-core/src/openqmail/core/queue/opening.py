"""Opening a queue: from what is on the disk to what is known in memory.

The journal is read first.  Results of mail in the layout that may not be in its files go
there; of a message that the journal still has, what a move had begun is withdrawn; held
messages are made whole; then one look at the layout.  A second opening after a crash in the
middle of this comes to the same.
"""

import contextlib
import os
from collections.abc import Iterable
from hashlib import blake2b

import msgspec

from openqmail.core.queue.index import Entry, Resident
from openqmail.core.queue.journal import FULL, RESERVE
from openqmail.core.queue.journal.records import Kept
from openqmail.core.queue.journal.recovery import Found
from openqmail.core.queue.layout.parts import Parts
from openqmail.core.queue.layout.paths import Layout, exists, plain_number
from openqmail.core.queue.layout.reader import read_info
from openqmail.core.queue.layout.results import Applying
from openqmail.core.queue.layout.scan import Scan
from openqmail.core.queue.layout.syncing import Touched
from openqmail.core.queue.unreadable import unreadable
from openqmail.core.values import QueueDamaged
from openqmail.core.values.body import CHUNK
from openqmail.core.world import Disk


class Opened(msgspec.Struct, frozen=True):
    """`odd`: messages that wait, and why (see `Scanned`); `waiting`: results that could not be brought into
    the files, of messages that are among the odd; `reports`: sentences about what is not as it should be."""

    residents: dict[int, Resident]
    odd: dict[int, str]
    waiting: list[Kept]
    reports: list[str]


class Opening:
    """Blocks.  `salvage`: drop a message whose large body is damaged, and say so."""

    def __init__(self, disk: Disk, layout: Layout, parts: Parts, found: Found, salvage: bool) -> None:
        self._disk = disk
        self._layout = layout
        self._parts = parts
        self._found = found
        self._salvage = salvage
        self._keys: dict[int, bytes] = {}
        self._waiting: list[Kept] = []
        self._aside: dict[int, str] = {}
        """Messages whose results wait, and why."""
        self._reports: list[str] = []

    def open(self) -> Opened:
        """Raises QueueDamaged, OSError."""
        numbers, foreign = self._parts.held.mend()
        held = set(numbers)
        try:
            self._apply(held)
        except OSError as error:
            if error.errno not in FULL:
                raise
            with contextlib.suppress(FileNotFoundError):  # what it is there for
                self._disk.unlink(os.path.join(self._layout.folder, b"journal", RESERVE))
            self._apply(held)
        for number in sorted(held.intersection(self._found.entries)):
            self._has_both(number, held)
        self._large_bodies()
        self._withdraw()
        self._withdraw_ended()
        self._renumber(held)
        for folder in (*self._layout.below(b"todo"), *self._layout.below(b"intd")):
            self._disk.sync_folder(folder)  # what a killed process took in does not come back
        # Of what waits, the files say less than is known: to go by them would be to deliver again.
        waiting = self._aside.keys()
        elsewhere = {*self._found.entries, *self._parts.arrivals.numbers(), *waiting}
        scanned = Scan(self._disk, self._layout, elsewhere, sorted(held - waiting)).scan()
        reports = foreign + self._reports + scanned.reports
        return Opened(scanned.residents, scanned.odd | self._aside, self._waiting, reports)

    # --- results in the journal -----------------------------------------------------------

    def _apply(self, held: set[int]) -> None:
        batch = []
        self._waiting, self._reports = [], []
        self._aside.clear()
        for record in self._found.kept:
            is_held = record.number in held
            if self._is_its(record, is_held):
                batch.append(Applying(record, is_held))
        if batch:
            wrong = self._parts.results.apply(batch, again=True)
            for one, fault in zip(batch, wrong, strict=True):
                if fault is not None:
                    where = os.fsdecode(fault.filename or self._layout.folder)
                    self._wait(one.record, f"{where}: {fault.strerror}")
                elif one.record.ended:
                    self._remove(one.record, held)

    def _remove(self, record: Kept, held: set[int]) -> None:
        """Its text goes, too, when it is surely that of the message that has ended."""
        number = record.number
        if number in held:
            held.discard(number)
            self._parts.held.remove(number)
        elif self._keys[number] == record.key:
            self._parts.mover.recycle(number)

    def _is_its(self, record: Kept, held: bool) -> bool:
        """Whether the message of that number in the layout is the one that the record is about; of
        one that has ended, what is left may go."""
        number = record.number
        key = self._keys.get(number)
        if key is None:
            files = self._layout.held_files(number) if held else self._layout.files(number)
            try:
                key = read_info(self._disk, files.info, number, self._found.queue).key
            except FileNotFoundError:
                key = b""
            except (QueueDamaged, PermissionError) as error:
                what = str(error) if isinstance(error, QueueDamaged) else unreadable(files.info, error)
                self._wait(record, what)
                return False
            self._keys[number] = key
        if key == record.key:
            return True
        return not key and record.ended and not exists(self._disk, self._layout.todo(number))

    def _wait(self, record: Kept, why: str) -> None:
        number = record.number
        if number not in self._aside:
            self._aside[number] = why
            self._reports.append(
                f"{why}; message {number} waits until that is mended: what became of it is in the journal "
                "only; then restart"
            )
        self._waiting.append(msgspec.structs.replace(record, waits=True))

    def _has_both(self, number: int, held: set[int]) -> None:
        """A held message was moved before it was held, so the word of its move is in a damaged part."""
        files = self._layout.held_files(number)
        with contextlib.suppress(FileNotFoundError, QueueDamaged):
            key = read_info(self._disk, files.info, number, self._found.queue).key
            if key == self._found.entries[number].key:
                del self._found.entries[number]
                return
        self._parts.held.release(number)
        held.discard(number)

    @property
    def _home(self) -> str:
        return os.fsdecode(os.path.dirname(self._layout.folder))

    def _renumber(self, held: set[int]) -> None:
        """In a queue that was copied numbers are no inodes, and one may have come up again: another
        message has it then, and neither would ever go on."""
        for number in sorted(held - self._aside.keys()):
            new = self._parts.held.renumber(number, {*self._found.entries, *self._aside})
            if new != number:
                held.remove(number)
                held.add(new)
                where = os.fsdecode(self._layout.mess(number))
                self._reports.append(f"{where} is another message's: held message {number} is now {new}")

    # --- bodies ---------------------------------------------------------------------------

    def _large_bodies(self) -> None:
        """Every one that a message claims must be there, whole, in `mess/`; those of messages that
        have ended go back to the pool when they are surely theirs."""
        touched = Touched()
        for number, entry in list(self._found.entries.items()):
            if not entry.large or self._claimed(number, entry.size, touched):
                continue
            path = self._layout.mess(number)
            size = self._size(path)
            state = "is missing" if size is None else f"has {size} bytes instead of {entry.size}"
            what = f"{os.fsdecode(path)} {state}: it is the body of message {number}"
            if not self._salvage:
                raise QueueDamaged(
                    f"{what}; to go on without that message: openqmail --home {self._home} run --salvage"
                )
            self._found.reports.append(f"{what}; the message is dropped")
            del self._found.entries[number]
        for number, (size, digest) in self._found.ended_large.items():
            if number not in self._found.entries and self._is_left_behind(number, size, digest):
                self._parts.mover.recycle(number)
        self._parts.syncer.sync(touched.paths, touched.folders)

    def _claimed(self, number: int, size: int, touched: Touched) -> bool:
        """The file is in `mess/`, by a repeated rename if need be, and has its size."""
        if self._size(self._layout.pool(number)) == size:
            self._parts.mover.claim(number, touched)
        return self._size(self._layout.mess(number)) == size

    def _size(self, path: bytes) -> int | None:
        try:
            return self._disk.stat(path).size
        except FileNotFoundError:
            return None

    def _is_left_behind(self, number: int, size: int, digest: bytes) -> bool:
        mess = self._layout.mess(number)
        if self._size(mess) != size:
            return False
        others = (self._layout.files(number).info, self._layout.intd(number), self._layout.todo(number))
        if any(exists(self._disk, path) for path in others):
            return False
        return self._digest(mess, len(digest)) == digest

    def _digest(self, path: bytes, length: int) -> bytes:
        hashed = blake2b(digest_size=length)
        file = self._disk.open(path)
        try:
            at = 0
            while chunk := file.read_at(at, CHUNK):
                hashed.update(chunk)
                at += len(chunk)
        finally:
            file.close()
        return hashed.digest()

    # --- moves that were not finished -------------------------------------------------------

    def _withdraw(self) -> None:
        """Before a message has moved the journal is right."""
        touched = Touched()
        for number, entry in self._found.entries.items():
            self._parts.mover.withdraw(number, large=entry.large, touched=touched)
            entry.written = False
        if self._found.entries:
            self._parts.syncer.sync(touched.paths, touched.folders)

    def _withdraw_ended(self) -> None:
        """Of messages that ended while they moved; their numbers may be another's by now."""
        touched = Touched()
        for number, key in self._found.withdrawn.items():
            if number in self._found.entries:
                continue
            files = self._layout.files(number)
            for path in (files.info, files.local, files.remote, files.bounce):
                touched.name(path)  # perhaps it went before, and not durably
            try:
                info = read_info(self._disk, files.info, number, self._found.queue)
            except FileNotFoundError:  # it went first; lists may be left, and nobody knows whose text
                ours, text_stays = not exists(self._disk, self._layout.todo(number)), True
            except QueueDamaged:  # torn: it was never said to be there
                ours, text_stays = True, False
            else:
                torn = info.extra is None and self._disk.stat(files.info).size > len(info.sender) + 2
                ours, text_stays = info.key == key or torn, False
            if ours:
                self._parts.mover.withdraw(number, large=text_stays, touched=touched)
        if touched.folders:
            self._parts.syncer.sync(touched.paths, touched.folders)


def check_journal(disk: Disk, queue: bytes, found: Found) -> None:
    """A queue that was in use has a segment: numbers are reserved only after the first is begun.

    Raises QueueDamaged, OSError."""
    pool = os.path.join(queue, b"pool")
    if found.segments or found.damaged or b"pool" not in disk.names(queue):
        return
    if any(plain_number(name) for name in disk.names(pool)):
        home = os.fsdecode(os.path.dirname(queue))
        raise QueueDamaged(
            f"{os.fsdecode(queue)}/journal has no segment, though this queue was in use: put it back; if it "
            f"is lost, and the mail in it: openqmail --home {home} run --salvage"
        )


def oldest_first(entries: Iterable[Entry], residents: dict[int, Resident]) -> list[int]:
    """Numbers of all messages."""
    births = {entry.number: entry.birth for entry in entries}
    numbers = sorted(births, key=births.__getitem__)
    settled = sorted(residents, key=lambda number: residents[number].birth)
    if not numbers:
        return settled
    both = [*settled, *numbers]
    both.sort(key=lambda number: births[number] if number in births else residents[number].birth)
    return both
