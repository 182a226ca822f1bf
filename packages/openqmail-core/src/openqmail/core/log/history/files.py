"""The files of the record: a day has one, or several (DATE.2.jsonl) when it is a busy one.

What is older than so many days goes, and so does the oldest while all of them are too large.  Nothing
is written where less than a tenth of the disk is free: that is the queue's.  A line that was torn
is ended before the next one.  Blocks.
"""

import contextlib
import errno
import os
import re
import time

MOST = 1 << 30
"""Bytes of all files."""
PART = 64 << 20
"""Bytes after which a day has another file."""
ROOM = 0.10
DAY = 86_400

_NAME = re.compile(r"(\d{4}-\d\d-\d\d)(?:\.(\d{1,9}))?\.jsonl", re.ASCII)
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class Files:
    """Those of one folder, which is made when it is missing."""

    def __init__(self, folder: str, most: int = MOST, part: int = PART) -> None:
        self.folder = folder
        self._most = most
        self._part = part
        self._date = ""
        self._descriptor = -1
        self._size = 0
        self._whole = True

    def append(self, data: bytes, now: float, days: int) -> None:
        """At the end of the day's file, in one piece.  Raises OSError; a part may be written then."""
        date = _date(now)
        if date != self._date or self._size >= self._part or self._descriptor < 0:
            self._open(date)
            self.remove_old(now, days)
        room = os.fstatvfs(self._descriptor)
        if room.f_bavail < room.f_blocks * ROOM:
            raise OSError(errno.ENOSPC, "less than a tenth of the disk is free, which is the queue's")
        if not self._whole:
            data = b"\n" + data
        self._whole = False
        written = os.write(self._descriptor, data)
        self._size += written
        if written < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._whole = True

    def remove_old(self, now: float, days: int) -> None:
        """Of 0 days: all of them.  Raises OSError."""
        try:
            there = listing(self.folder)
        except FileNotFoundError:
            return
        if not days:
            self.close()
        oldest = _date(now - (days - 1) * DAY)
        sizes = {path: os.stat(path).st_size for _, _, path in there}
        total = sum(sizes.values())
        for date, _, path in there if not days else there[:-1]:
            if date < oldest or total > self._most - self._part:
                os.unlink(path)
                total -= sizes[path]

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self, date: str) -> None:
        self.close()
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.folder, 0o700)
        part = max((part for found, part, _ in listing(self.folder) if found == date), default=1)
        while True:
            name = f"{date}.jsonl" if part == 1 else f"{date}.{part}.jsonl"
            descriptor = os.open(os.path.join(self.folder, name), _FLAGS, 0o600)
            size = os.fstat(descriptor).st_size
            if size < self._part:
                break
            os.close(descriptor)
            part += 1
        self._date, self._descriptor, self._size = date, descriptor, size
        self._whole = not size or os.pread(descriptor, 1, size - 1) == b"\n"


def listing(folder: str) -> list[tuple[str, int, str]]:
    """Date, part and path of each file, oldest first.  Raises OSError."""
    found = [(_NAME.fullmatch(name), os.path.join(folder, name)) for name in os.listdir(folder)]
    return sorted((match[1], int(match[2] or 1), path) for match, path in found if match)


def _date(now: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(now))
