"""The number pool (rule 10): empty files in `pool/`, each named by its inode, each a number.

qmail's numbers are inodes of `mess/` files.  A file that is reserved here keeps its inode from
everybody else, so a message in the journal has a number that no foreign qmail-queue can come
by, and moving it out is a rename.  A number is handed out only when its file is durable.
`take` and `give` belong to the loop; what blocks runs in a thread, once at a time.
"""

import contextlib
import os
import stat
from collections import deque
from collections.abc import Callable

from openqmail.core.queue.layout.mover import MESS_MODE
from openqmail.core.queue.layout.paths import Layout, exists, plain_number
from openqmail.core.queue.layout.syncing import Syncer, Touched
from openqmail.core.world import Disk, Workers

MOST = 65_536
"""Numbers in all: given out to messages in the journal, and free."""

SPARE = 1024
"""Numbers beyond those, for bounces and forwards."""

KEPT = 1024
"""Free numbers that stay when the queue is closed."""


class Pool:
    """`taken`: whether a message in the layout has this number (as after a restore, when names
    are no longer inodes); `least`: free numbers that there should be at any time."""

    def __init__(
        self, disk: Disk, layout: Layout, syncer: Syncer, taken: Callable[[int], bool], least: int
    ) -> None:
        self._disk = disk
        self._layout = layout
        self._syncer = syncer
        self._taken = taken
        self._least = least
        self._free: deque[int] = deque()
        self._out: set[int] = set()
        self.unreserved: list[int] = []
        """Numbers in use of which no file of ours keeps the inode: the queue was copied, or the file
        is in `mess/` already."""
        self._growing = False
        self._serial = 0
        self._waiting: deque[Callable[[OSError | None], None]] = deque()
        self._workers: Workers | None = None

    # --- in the loop ------------------------------------------------------------------------

    def take(self, spare: bool = False) -> int | None:
        """A number; None when there is none just now (see `when_grown`).  `spare`: also one of those
        that are kept for bounces and forwards."""
        free = self._free
        if not free or (self.spent(spare)):
            return None
        number = free.popleft()
        self._out.add(number)
        if len(free) < self._least // 2:
            self._grow()
        return number

    def give(self, number: int) -> None:
        """Its file is in the pool, and empty or soon to be written over."""
        self._out.discard(number)
        if number not in self.unreserved:
            self._free.append(number)

    def moved(self, number: int) -> None:
        """Its file is in `mess/`, and the number the layout's."""
        self._out.discard(number)

    def when_grown(self, then: Callable[[OSError | None], None], spare: bool = False) -> None:
        """Call once, after the next growth (or at once when it may not grow), with what went wrong."""
        self._waiting.append(then)
        self._grow(spare)

    @property
    def out(self) -> int:
        """Numbers of messages in the journal."""
        return len(self._out)

    def spent(self, spare: bool = False) -> bool:
        """Whether all numbers are given out: but those for bounces and forwards, or these, too."""
        return len(self._out) >= (MOST + SPARE if spare else MOST)

    @property
    def wants(self) -> bool:
        """Whether a number that comes free in the layout is welcome."""
        return len(self._free) < 4 * self._least + len(self._out)

    def _grow(self, spare: bool = False) -> None:
        if self._growing or self._workers is None:
            return
        most = MOST + SPARE if spare else MOST
        count = min(max(self._least, len(self._out)), most - len(self._out) - len(self._free))
        if count <= 0:
            self._tell(None)
            return
        self._growing = True
        self._workers.do(self._grown, self.make, count)

    def _grown(self, numbers: list[int] | None, error: BaseException | None) -> None:
        self._growing = False
        self._free.extend(numbers or ())
        if error is not None and not isinstance(error, OSError):
            error = OSError(0, repr(error))
        self._tell(error)

    def _tell(self, error: OSError | None) -> None:
        waiting, self._waiting = self._waiting, deque()
        for then in waiting:
            then(error)

    # --- blocking ---------------------------------------------------------------------------

    def open(self, in_use: set[int], workers: Workers) -> list[str]:
        """Take over what is there; `in_use`: numbers of messages in the journal.  Sentences
        about what does not belong there.  Raises OSError."""
        self._workers = workers
        foreign = []
        reserved: set[int] = set()
        folder = os.path.join(self._layout.folder, b"pool")
        for name, is_folder in sorted(self._disk.scan(folder)):
            path = os.path.join(folder, name)
            if is_folder or not (plain_number(name) or name.startswith(b"new-")):
                foreign.append(
                    f"{os.fsdecode(path)} is not a reserved number; it is left alone, remove it when you "
                    "know what it is"
                )
                continue
            if plain_number(name):
                number = int(name)
                facts = self._disk.stat(path)
                if not stat.S_ISREG(facts.mode) or facts.links != 1:
                    foreign.append(
                        f"{os.fsdecode(path)} is not ours alone; remove it when you know what it is"
                    )
                    continue
                if number in in_use:
                    if facts.inode == number:
                        reserved.add(number)
                    continue
                if facts.inode == number and not self._taken(number):
                    if facts.size:
                        self._disk.truncate(path, 0)
                    self._free.append(number)
                    continue
            self._disk.unlink(path)  # made by halves, or copied from another disk
        self._syncer.sync((), (folder,))
        self._out = set(in_use)
        self.unreserved = [number for number in sorted(in_use - reserved) if not self._is_inode(number)]
        missing = self._least - len(self._free)
        if missing > 0:
            with contextlib.suppress(OSError):  # a full disk: accepted mail goes on, new mail is refused
                self._free.extend(self.make(missing))
        return foreign

    def make(self, count: int) -> list[int]:
        """Reserve so many more; durable when it returns.  Raises OSError."""
        folder = os.path.join(self._layout.folder, b"pool")
        made: list[int] = []
        touched = Touched()
        for _ in range(count):
            self._serial += 1
            new = os.path.join(folder, b"new-%d" % self._serial)
            with contextlib.suppress(FileNotFoundError):
                self._disk.unlink(new)
            self._disk.write_new(new, (b"",), MESS_MODE)
            self._disk.chmod(new, MESS_MODE)
            number = self._disk.stat(new).inode
            if number in self._out or self._taken(number) or exists(self._disk, self._layout.mess(number)):
                continue  # it stays, so that its inode does not come again
            path = self._layout.pool(number)
            self._disk.rename(new, path)
            touched.new(path)
            made.append(number)
        self._syncer.sync(touched.paths, touched.folders)
        return made

    def _is_inode(self, number: int) -> bool:
        """Whether `mess/N` is there, and ours to be named so."""
        if exists(self._disk, self._layout.todo(number)) or exists(self._disk, self._layout.intd(number)):
            return False
        try:
            return self._disk.stat(self._layout.mess(number)).inode == number
        except FileNotFoundError:
            return False

    def trim(self) -> None:
        """Leave `KEPT` free numbers.  Raises OSError."""
        while len(self._free) > KEPT:
            self._disk.unlink(self._layout.pool(self._free.pop()))
