"""Held messages: their files lie in `held/N/`, out of netqmail's sight (rule 14).

Where `info` is decides: in the folder, the message is held, and what is still outside is
pulled in after it; not in the folder, it is not, and what is inside is put back.  So a crash
at any point leaves one or the other, and `mend` completes it.
"""

import contextlib
import errno
import os
from collections.abc import Set

from openqmail.core.queue.layout.paths import Files, Layout, exists, plain_number
from openqmail.core.queue.layout.syncing import Syncer, Touched
from openqmail.core.world import Disk

_REASON = b"reason"


class Held:
    """Blocks; belongs to one thread."""

    def __init__(self, disk: Disk, layout: Layout, syncer: Syncer) -> None:
        self._disk = disk
        self._layout = layout
        self._syncer = syncer

    def hold(self, number: int, reason: bytes) -> None:
        """Durable when it returns.  Raises OSError."""
        folder = self._layout.held(number)
        with contextlib.suppress(FileExistsError):
            self._disk.mkdir(folder)
        path = os.path.join(folder, _REASON)
        with contextlib.suppress(FileNotFoundError):
            self._disk.unlink(path)
        self._disk.write_new(path, (reason,))
        touched = Touched()
        touched.new(path)
        touched.name(folder)
        self._syncer.sync(touched.paths, touched.folders)
        self._move(self._layout.files(number), self._layout.held_files(number), ("info",))
        self._move(self._layout.files(number), self._layout.held_files(number), _REST)

    def release(self, number: int) -> None:
        """Durable when it returns.  Raises OSError; FileExistsError: another message has the number, too
        (see `renumber`)."""
        self._move(self._layout.held_files(number), self._layout.files(number), _REST)
        self._move(self._layout.held_files(number), self._layout.files(number), ("info",))
        self._remove(number)

    def reason(self, number: int) -> bytes:
        return self.reason_of(self._disk, self._layout, number)

    @staticmethod
    def reason_of(disk: Disk, layout: Layout, number: int) -> bytes:
        """Why it is held; empty when nobody said."""
        with contextlib.suppress(FileNotFoundError):
            return disk.contents(os.path.join(layout.held(number), _REASON))[0]
        return b""

    def remove(self, number: int) -> None:
        """The message has ended: nothing of it stays.  Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            self._disk.unlink(self._layout.held_files(number).mess)
        self._remove(number)

    def mend(self) -> tuple[list[int], list[str]]:
        """Complete what a crash interrupted: the numbers that are held, and sentences about what
        does not belong there.  Raises OSError."""
        numbers, foreign = [], []
        folder = os.path.join(self._layout.folder, b"held")
        for name, is_folder in sorted(self._disk.scan(folder)):
            if not (is_folder and plain_number(name)):
                where = os.fsdecode(os.path.join(folder, name))
                foreign.append(
                    f"{where} is not a held message; it is left alone, remove it when you know what it is"
                )
                continue
            try:
                if self.mend_one(int(name)):
                    numbers.append(int(name))
            except FileExistsError as error:
                where = os.fsdecode(os.path.join(folder, name))
                foreign.append(
                    f"{where} waits: {error.strerror}; it is put right when that has ended, at a start"
                )
            foreign += self._strange(int(name))
        return numbers, foreign

    def _strange(self, number: int) -> list[str]:
        """Sentences about what others have put beside a held message's files."""
        with contextlib.suppress(FileNotFoundError):
            names = sorted(set(self._disk.names(self._layout.held(number))) - _PARTS)
            paths = [os.path.join(self._layout.held(number), name) for name in names]
            return [
                f"{os.fsdecode(path)} is not a held message's; it is left alone, remove it when you know "
                "what it is"
                for path in paths
            ]
        return []

    def mend_one(self, number: int) -> bool:
        """Complete what was begun; whether the message is held.  Raises OSError."""
        inside, outside = self._layout.held_files(number), self._layout.files(number)
        try:
            there = set(self._disk.names(self._layout.held(number)))
        except FileNotFoundError:
            return False
        if b"info" in there:  # what is inside already has a stranger's namesake outside, if any
            self._move(outside, inside, tuple(part for part in _REST if part.encode() not in there))
            return True
        if there & _PARTS - {_REASON}:
            self._move(inside, outside, _REST)
        self._remove(number)
        return False

    def renumber(self, number: int, taken: Set[int]) -> int:
        """The number of a held message, from now on: while another message's text has it outside, the
        inode of its own, by which nobody else can come.  `taken`: numbers that are not to be had.

        Durable when it returns.  Raises OSError."""
        if not self._is_strangers(number):
            return number
        new = self._disk.stat(self._layout.held_files(number).mess).inode
        layout = self._layout
        there = layout.held(new), layout.mess(new), layout.files(new).info, layout.todo(new)
        if new in taken or any(exists(self._disk, path) for path in there):
            return number
        self._disk.rename(layout.held(number), layout.held(new))
        self._disk.sync_folder(os.path.dirname(layout.held(new)))
        return new

    def _is_strangers(self, number: int) -> bool:
        """Whether `mess/N` outside is not that of the held message."""
        inside, outside = self._layout.held_files(number).mess, self._layout.mess(number)
        return exists(self._disk, outside) and exists(self._disk, inside)

    def _move(self, source: Files, target: Files, parts: tuple[str, ...]) -> None:
        touched = Touched()
        for part in parts:
            old, new = getattr(source, part), getattr(target, part)
            with contextlib.suppress(FileNotFoundError):
                if exists(self._disk, old) and exists(self._disk, new):  # another message has this number now
                    raise FileExistsError(errno.EEXIST, f"{os.fsdecode(new)} is another message's", new)
                self._disk.rename(old, new)
            touched.name(old)  # even if it was done before: perhaps that could not be synced
            touched.name(new)
        self._syncer.sync(touched.paths, touched.folders)

    def _remove(self, number: int) -> None:
        folder = self._layout.held(number)
        with contextlib.suppress(FileNotFoundError):
            self._disk.unlink(os.path.join(folder, _REASON))
        with contextlib.suppress(FileNotFoundError):
            if not self._disk.names(folder):  # else it has a stranger's
                self._disk.rmdir(folder)


_REST = ("mess", "local", "remote", "bounce")
_PARTS = frozenset((_REASON, *(part.encode() for part in ("info", *_REST))))
