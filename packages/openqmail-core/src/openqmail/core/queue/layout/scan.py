"""What is in qmail's layout when the queue is opened: one look at every message, no more.

A message is an `info/N`; its lists say how many recipients are left and when they are due.
What does not belong, cannot be read or lies in the wrong place is told of, each by name and
with what to do about it, and is left as it is.  Nothing is changed here.
"""

import os
import stat
from collections.abc import Iterable

from openqmail.core.queue.index import Resident
from openqmail.core.queue.layout.forms import had_recipients
from openqmail.core.queue.layout.paths import (
    BESIDE,
    EITHER_FOLDERS,
    FLAT_FOLDERS,
    OURS,
    SPLIT_FOLDERS,
    Layout,
    plain_number,
)
from openqmail.core.queue.layout.whole import INNER, is_queue, remedy
from openqmail.core.queue.unreadable import unreadable
from openqmail.core.world import Disk, Facts

TOLD = 100
"""Sentences about one folder; the rest is counted."""

_STRANGE = "is not a message's; remove it when you know what it is"
_NO_TEXT = (
    "is missing: it is a message's text; put it back, or remove info, local, remote and bounce of that "
    "number, then start again"
)
_NO_LISTS = (
    "says that somebody was to be tried, but local and remote of that number are missing; put them back, or, "
    "if all is done, remove info and mess of it, then start again"
)
_ELSEWHERE = "has its lists where they do not belong (see there); move them, then start again"
_TOP = frozenset((*SPLIT_FOLDERS, *EITHER_FOLDERS, *FLAT_FOLDERS, *OURS, *BESIDE, b"lost+found"))
_LOCK = frozenset((b"sendmutex", b"tcpto", b"trigger"))
_OTHERS = stat.S_IRGRP | stat.S_IROTH


class Scanned:
    """`residents`: messages that can be delivered from here; `odd`: those that wait, as some file is not
    what or where it should be, and a sentence about it."""

    def __init__(self) -> None:
        self.residents: dict[int, Resident] = {}
        self.odd: dict[int, str] = {}
        self.reports: list[str] = []


class Scan:
    """One scan; blocks.  `elsewhere`: numbers whose message the journal or `todo/` has."""

    def __init__(self, disk: Disk, layout: Layout, elsewhere: set[int], held: Iterable[int]) -> None:
        self._disk = disk
        self._layout = layout
        self._elsewhere = elsewhere
        self._held = held
        self._found = Scanned()
        self._bounces: set[int] = set()
        self._owner = 0
        self._told: dict[bytes, int] = {}

    def scan(self) -> Scanned:
        """Raises OSError for a folder that cannot be read."""
        found = self._found
        self._owner = self._disk.stat(b"%s/mess" % self._layout.folder).uid
        self._folders()
        self._bounces = self._numbers(b"%s/bounce" % self._layout.folder, None)
        messages = self._elsewhere.union(self._held)
        self._find_odd()
        for part in range(self._layout.split):
            mess, info, local, remote = (
                self._numbers(b"%s/%s/%d" % (self._layout.folder, kind, part), part)
                for kind in (b"mess", b"info", b"local", b"remote")
            )
            for number in info:
                if number in self._elsewhere or number in found.odd:
                    continue
                if number in mess:
                    self._message(number, number in local, number in remote, number in self._bounces)
                else:
                    self._wait(number, self._layout.mess(number), _NO_TEXT)
            messages |= info
            self._alone(b"local", local - messages)
            self._alone(b"remote", remote - messages)
        for number in self._held:
            self._message(number, True, True, True, held=True)
        for folder in self._layout.below(b"intd"):
            self._numbers(folder, None)
        self._alone(b"bounce", self._bounces - messages)
        for number in list(found.odd):
            if number in self._elsewhere or number in found.residents:  # another message has it
                del found.odd[number]
        for folder, count in self._told.items():
            if count > TOLD:
                found.reports.append(f"{os.fsdecode(folder)}: {count - TOLD} more files like these")
        return found

    def _folders(self) -> None:
        """What lies between the folders, and where there are no messages' files."""
        folder = self._layout.folder
        parts = frozenset(b"%d" % part for part in range(self._layout.split))
        for path, known in (
            (folder, _TOP),
            (os.path.join(folder, b"lock"), _LOCK),
            *((os.path.join(folder, kind), parts) for kind in SPLIT_FOLDERS),
        ):
            for name, is_folder in self._disk.scan(path):
                if name in known:
                    continue
                odd = os.path.join(path, name)
                is_inner = path == folder and is_folder and is_queue(self._disk, odd)
                self._tell(odd, f"{INNER}; {remedy(odd)}" if is_inner else _STRANGE)
        pid = os.path.join(folder, b"pid")
        for name, is_folder in self._disk.scan(pid):  # PID.TIME.COUNT of a qmail-queue
            if is_folder or not name.replace(b".", b"").isdigit():
                self._tell(os.path.join(pid, name), _STRANGE)

    def _find_odd(self) -> None:
        """A list in the wrong place, or a folder of its name, must not look like no list at all."""
        odd = set()
        for kind in (b"local", b"remote"):
            for part, folder in enumerate(self._layout.below(kind)):
                for name, is_folder in self._disk.scan(folder):
                    if plain_number(name) and (is_folder or int(name) % self._layout.split != part):
                        odd.add(int(name))
        for number in sorted(odd):
            self._wait(number, self._layout.files(number).info, _ELSEWHERE)

    def _alone(self, kind: bytes, numbers: set[int]) -> None:
        for number in sorted(numbers):
            files = self._layout.files(number)
            path = {b"local": files.local, b"remote": files.remote, b"bounce": files.bounce}[kind]
            info = os.fsdecode(files.info)
            what = f"belongs to no message, as there is no {info}; put that back, or remove it"
            if kind == b"bounce":
                self._tell(path, what)
            else:
                self._wait(number, path, what)

    def _numbers(self, folder: bytes, part: int | None) -> set[int]:
        split = self._layout.split
        numbers = set()
        for name, is_folder in self._disk.scan(folder):
            if is_folder or not plain_number(name):
                self._tell(os.path.join(folder, name), _STRANGE)
                continue
            number = int(name)
            if part is not None and number % split != part:
                home = os.path.join(os.path.dirname(folder), b"%d" % (number % split))
                self._tell(
                    os.path.join(folder, name),
                    f"is in the wrong folder, so no qmail finds it; move it to {os.fsdecode(home)}",
                )
                continue
            numbers.add(number)
        return numbers

    def _message(
        self, number: int, has_local: bool, has_remote: bool, has_bounce: bool, held: bool = False
    ) -> None:
        layout = self._layout
        files = layout.held_files(number) if held else layout.files(number)
        due_local = due_remote = left = locals_ = remotes = 0
        path = files.mess
        try:
            size = self._facts(path).size
            path = files.info
            birth = self._facts(path).mtime
            if held:
                inside = self._disk.names(layout.held(number))
                has_local, has_remote, has_bounce = (
                    name in inside for name in (b"local", b"remote", b"bounce")
                )
            if not (has_local or has_remote or has_bounce) and self._lost_its_lists(number, path):
                return
            if has_local:
                path = files.local
                locals_, todo, mtime = self._list(path)
                left += todo
                due_local = mtime if todo else 0
            if has_remote:
                path = files.remote
                remotes, todo, mtime = self._list(path)
                left += todo
                due_remote = mtime if todo else 0
        except (OSError, ValueError) as error:
            self._waits(number, path, f"{unreadable(path, error)}, then start again")
            return
        begun = left < locals_ + remotes
        self._found.residents[number] = Resident(
            birth, due_local, due_remote, size, left, locals_, b"", held, has_remote, has_bounce, begun=begun
        )

    def _lost_its_lists(self, number: int, info: bytes) -> bool:
        """Of a message for which nobody is listed, and nobody failed.  Of ours no such thing is left by
        ourselves; a qmail-send that died as the message ended leaves it so."""
        if had_recipients(self._disk.contents(info)[0]):
            self._wait(number, info, _NO_LISTS)
            return True
        self._tell(info, f"names nobody who is left to be tried: message {number} ends, as in qmail")
        return False

    def _facts(self, path: bytes) -> Facts:
        """Of a file that can be read; it is opened only when its mode leaves a doubt.  Raises OSError."""
        facts = self._disk.stat(path)
        wanted = stat.S_IRUSR if facts.uid == self._owner else _OTHERS
        if facts.mode & wanted != wanted:
            self._disk.open(path).close()
        return facts

    def _list(self, path: bytes) -> tuple[int, int, int]:
        """Recipients in all, those that are left, and the mtime (at least 1).  Raises OSError, ValueError."""
        data, mtime = self._disk.contents(path)
        if not data.endswith(b"\0"):
            raise ValueError("it is no list of recipients")
        left = data.count(b"\0T") + data.startswith(b"T")
        return data.count(b"\0"), left, max(mtime, 1)

    def _wait(self, number: int, path: bytes, what: str) -> None:
        self._waits(number, path, f"{os.fsdecode(path)} {what}")

    def _waits(self, number: int, path: bytes, sentence: str) -> None:
        self._found.odd[number] = sentence
        self._say(path, f"{sentence}; message {number} waits")

    def _tell(self, path: bytes, what: str) -> None:
        self._say(path, f"{os.fsdecode(path)} {what}")

    def _say(self, path: bytes, sentence: str) -> None:
        folder = os.path.dirname(path)
        self._told[folder] = self._told.get(folder, 0) + 1
        if self._told[folder] <= TOLD:
            self._found.reports.append(sentence)
