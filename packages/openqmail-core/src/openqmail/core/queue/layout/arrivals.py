"""What a foreign qmail-queue has put into `todo/`: sorted into info, local and remote (rule 16).

As qmail-send does it (S4 and S5 of INTERNALS), with every step durable before the next: the
three files and their folders, then `intd/N` and `todo/N` go, and only when that is durable is
the message told of.  A crash at any point makes it start again.  Also the litter of writers
that died.
"""

import contextlib
import os
from collections.abc import Callable, Iterable

import msgspec

from openqmail.core.log import Seldom
from openqmail.core.queue.layout.forms import (
    Extra,
    Listed,
    Todo,
    decode_todo,
    encode_info,
    encode_recipients,
)
from openqmail.core.queue.layout.paths import ITS_OWN, Layout, plain_number
from openqmail.core.queue.layout.reader import Info, stored
from openqmail.core.queue.layout.syncing import Syncer, Touched
from openqmail.core.queue.store import Router, Stored
from openqmail.core.world import Clock, Disk

TELL_AGAIN = 3600.0
"""Seconds until it is told again that a file cannot be taken in."""

BATCH = 256
"""Messages that are taken in at once."""

LITTER = 60 * 3600
"""Seconds after which what a dead writer left is removed: netqmail's 36 hours, and a day in which
the clock may have been set forward (a writer kills itself after 24)."""


class Arrived(msgspec.Struct, frozen=True):
    """A message that was taken in."""

    number: int
    key: bytes
    birth: int
    size: int
    todo: Todo
    local: tuple[bytes, ...]
    remote: tuple[bytes, ...]

    def stored(self) -> Stored:
        """As the queue has it."""
        todo = self.todo
        info = Info(todo.sender, Extra(self.key.hex(), self.birth, todo.uid, todo.pid), self.key, self.birth)
        lists = [Listed(False, one) for one in self.local], [Listed(False, one) for one in self.remote]
        due = self.birth if self.local else 0, self.birth if self.remote else 0
        return stored(self.number, self.size, info, lists, b"", due)


class Arrivals:
    """Blocks; belongs to one thread."""

    def __init__(
        self,
        disk: Disk,
        clock: Clock,
        layout: Layout,
        syncer: Syncer,
        route: Router,
        report: Callable[[str], None],
        entropy: Callable[[int], bytes],
    ) -> None:
        self._disk = disk
        self._clock = clock
        self._layout = layout
        self._syncer = syncer
        self._route = route
        self._report = report
        self._entropy = entropy
        self._seldom = Seldom(TELL_AGAIN)
        self._sorted: list[Arrived] = []
        """Their files are durable; `intd` and `todo` may not be gone yet."""

    def numbers(self) -> list[int]:
        """What lies in `todo/`.  Raises OSError."""
        found = []
        for folder in self._layout.below(b"todo"):
            for name, is_folder in self._disk.scan(folder):
                if plain_number(name) and not is_folder:
                    found.append(int(name))
                else:
                    self._complain(os.path.join(folder, name), "is not a message that was queued")
        return sorted(found)

    def take(self, busy: Callable[[int], bool]) -> list[Arrived]:
        """Take in some of what is there; empty when there is nothing (more).  `busy`: whether a number
        is another message's.  Raises OSError: the next call goes on."""
        if not self._sorted:
            self._sorted = self._sort_some(busy)
        if not self._sorted:
            return []
        touched = Touched()
        for one in self._sorted:
            for path in (self._layout.intd(one.number), self._layout.todo(one.number)):
                with contextlib.suppress(FileNotFoundError):
                    self._disk.unlink(path)
                touched.name(path)
        self._syncer.sync(touched.paths, touched.folders)
        taken, self._sorted = self._sorted, []
        return taken

    def _sort_some(self, busy: Callable[[int], bool]) -> list[Arrived]:
        """Up to `BATCH` messages, of which info, local and remote are durable when it returns."""
        touched = Touched()
        found = []
        for number in self.numbers():
            if busy(number):  # in a queue that was copied numbers are no inodes
                path = self._layout.todo(number)
                what = "waits: its number is another message's"
                self._complain(path, what, "it comes when that has ended, or is held and we start again")
                continue
            try:
                arrived = self._sort(number, touched)
            except OSError as error:
                if error.errno not in ITS_OWN:
                    raise
                where = os.fsdecode(error.filename or self._layout.todo(number))
                self._complain(self._layout.todo(number), f"waits: {where}: {error.strerror}", "mend that")
                continue
            if arrived is not None:
                found.append(arrived)
            if len(found) == BATCH:
                break
        if found:
            self._syncer.sync(touched.paths, touched.folders)
        return found

    def _sort(self, number: int, touched: Touched) -> Arrived | None:
        path = self._layout.todo(number)
        files = self._layout.files(number)
        try:
            todo = decode_todo(self._disk.contents(path)[0])
            size = self._disk.stat(files.mess).size
        except ValueError as error:
            self._complain(path, f"cannot be read: {error}")
            return None
        except FileNotFoundError as error:
            gone = error.filename or files.mess
            self._complain(path, f"cannot be taken in: {os.fsdecode(gone)} is missing")
            return None
        except OSError as error:
            self._complain(path, f"cannot be taken in: {error.strerror}; mend its owner and mode")
            return None
        key = self._entropy(24)
        birth = int(self._clock.now())
        routed = [self._route(address) for address in todo.recipients]
        local = tuple(address for channel, address in routed if channel == "local")
        remote = tuple(address for channel, address in routed if channel == "remote")
        extra = Extra(key.hex(), birth, todo.uid, todo.pid, left=len(routed))
        info = encode_info(todo.sender, extra)
        for file, content in (
            (files.local, encode_recipients([Listed(False, address) for address in local])),
            (files.remote, encode_recipients([Listed(False, address) for address in remote])),
            (files.info, info),
            (files.bounce, b""),
        ):
            with contextlib.suppress(FileNotFoundError):  # a crash has left an attempt half done
                self._disk.unlink(file)
            touched.name(file)
            if content:
                self._disk.write_new(file, (content,))
                self._disk.touch(file, birth)
                touched.new(file)
        return Arrived(number, key, birth, size, todo, local, remote)

    def _complain(self, path: bytes, what: str, remedy: str = "look at it and remove it") -> None:
        """Not too often: it is looked at again each time."""
        if self._seldom.may_say(path, self._clock.monotonic()):
            self._report(f"{os.fsdecode(path)} {what}; it is left alone, {remedy}")

    # --- litter -------------------------------------------------------------------------------

    def sweep(self, alive: Callable[[int], bool]) -> int:
        """Remove what writers left that died: `pid/` files, `intd/N` without `todo/N`, and `mess/N`
        that belongs to nobody.  How many.  Raises OSError."""
        oldest = int(self._clock.now()) - LITTER
        count = self._sweep(self._names(b"pid"), oldest)
        todo = set(self.numbers())
        lost = [number for number, _ in self._numbered(b"intd") if number not in todo]
        count += self._sweep([self._layout.intd(number) for number in lost], oldest)
        claimed = todo.union(number for number, _ in self._numbered(b"intd"))
        for kind in (b"info", b"local", b"remote", b"bounce"):  # somebody may put a lost `info` back
            claimed.update(number for number, _ in self._numbered(kind))
        orphans = [
            path for number, path in self._numbered(b"mess") if number not in claimed and not alive(number)
        ]
        return count + self._sweep(orphans, oldest)

    def _names(self, kind: bytes) -> list[bytes]:
        return [
            os.path.join(folder, name)
            for folder in self._layout.below(kind)
            for name, is_folder in self._disk.scan(folder)
            if not is_folder
        ]

    def _numbered(self, kind: bytes) -> Iterable[tuple[int, bytes]]:
        for path in self._names(kind):
            name = os.path.basename(path)
            if plain_number(name):
                yield int(name), path

    def _sweep(self, paths: Iterable[bytes], oldest: int) -> int:
        count = 0
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                if self._disk.stat(path).mtime < oldest:
                    self._disk.unlink(path)
                    count += 1
        return count
