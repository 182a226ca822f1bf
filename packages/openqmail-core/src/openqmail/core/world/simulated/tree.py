"""The folders of a simulated disk: who has which name, and what of that is on the disk.

What changes names is an operation, whole or not at all.  Those since the last sync are a log;
of it a power cut leaves an ordered prefix (ext4, xfs: the journal orders metadata, so a sync
makes durable all that came before it, too), or, less kindly, any of them: then only operations
on one same name keep their order, and nothing but the sync of a folder makes its names durable.
Files are known by inodes; the lowest number that is free is used next.
"""

import errno
import os
import stat
from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from random import Random

from openqmail.core.world.clock import Clock
from openqmail.core.world.simulated.content import Content

ROOT = 2
"""The inode of the uppermost folder."""


class Inode:
    """A file or folder.  `attributes`: the times and mode that are on the disk."""

    __slots__ = (
        "attributes",
        "changed",
        "content",
        "durable",
        "entries",
        "errors",
        "gid",
        "links",
        "mode",
        "mtime",
        "number",
        "opened",
        "position",
        "reported",
        "sized",
        "uid",
    )

    def __init__(self, number: int, mode: int, uid: int, gid: int) -> None:
        self.number, self.mode, self.uid, self.gid = number, mode, uid, gid
        self.mtime = self.changed = 0
        self.attributes = (0, mode)
        self.links = self.opened = 0
        self.position = self.sized = 0  # of the log, when it or its size last changed
        self.errors = 0  # syncs that failed, and whether somebody was told of the last
        self.reported = True
        self.content = Content()
        self.entries: dict[bytes, Inode] = {}
        self.durable: dict[bytes, Inode] = {}

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)


Change = tuple[Inode, bytes, Inode | None]
"""In this folder this name is now that inode's, or nobody's."""


Token = tuple[Inode, bytes] | Inode | int
"""What operations depend on each other by: a name, all names of a folder, the number of an inode."""


class Operation:
    """Some changes that happen together.

    `offers` what it changes; everything before it that offers one of `needs` must have happened."""

    __slots__ = ("changes", "needs", "number", "offers")

    def __init__(self, number: int, changes: tuple[Change, ...], needs: set[Token]) -> None:
        self.number, self.changes = number, changes
        self.offers: set[Token] = {(folder, name) for folder, name, _ in changes}
        self.needs = self.offers | needs
        self.offers |= {folder for folder, _, _ in changes}


class Tree:
    """All folders and files, from `/` on."""

    def __init__(self, clock: Clock, ordered: bool) -> None:
        self._clock = clock
        self._ordered = ordered
        self._log: list[Operation] = []
        self._operations = 0
        self._free: list[int] = []
        self._next = ROOT
        self._changed = 0
        self.root = self.inode(stat.S_IFDIR | 0o755)
        self.root.links = 2

    # --- looking ----------------------------------------------------------------------

    def find(self, path: bytes) -> Inode:
        """Raises FileNotFoundError, NotADirectoryError."""
        found = self.root
        for name in _names(path):
            found = self._entry(found, name, path)
        if path.endswith((b"/", b"/.")) and not found.is_folder:
            raise _error(errno.ENOTDIR, path)
        return found

    def place(self, path: bytes) -> tuple[Inode, bytes]:
        """The folder that a name is in or would be, and the name."""
        names = _names(path)
        if not names:
            raise _error(errno.EBUSY, path)
        found = self.root
        for name in names[:-1]:
            found = self._entry(found, name, path)
        if not found.is_folder:
            raise _error(errno.ENOTDIR, path)
        return found, names[-1]

    def inodes(self) -> list[Inode]:
        """All files and folders that have a name, each once, in the order of their numbers."""
        found: dict[int, Inode] = {}
        waiting = [self.root]
        while waiting:
            inode = waiting.pop()
            found[inode.number] = inode
            waiting += inode.entries.values()
        return [found[number] for number in sorted(found)]

    @staticmethod
    def _entry(folder: Inode, name: bytes, path: bytes) -> Inode:
        if not folder.is_folder:
            raise _error(errno.ENOTDIR, path)
        found = folder.entries.get(name)
        if found is None:
            raise _error(errno.ENOENT, path)
        return found

    # --- changing ---------------------------------------------------------------------

    def inode(self, mode: int) -> Inode:
        """A new one, without a name."""
        if self._free:
            number = heappop(self._free)
        else:
            number = self._next
            self._next += 1
        made = Inode(number, mode, os.getuid(), os.getgid())
        self.stamp(made)
        made.attributes = (made.mtime, made.mode)
        return made

    def stamp(self, inode: Inode, *, content: bool = True, sized: bool = True) -> None:
        """It has just changed: its content, in its size too, or something else about it."""
        now = self._clock.now()
        # No two changes have one time: who remembers a folder by it sees each.
        self._changed = inode.changed = max(int(now * 1e9), self._changed + 1)
        # What is written over in place need not be in the journal.
        if sized or not content:
            inode.position = self._operations
        if content:
            inode.mtime = int(now)
            if sized:
                inode.sized = self._operations

    def add(self, path: bytes, inode: Inode) -> None:
        """Give it a name.  Raises FileExistsError."""
        folder, name = self.place(path)
        if name in folder.entries:
            raise _error(errno.EEXIST, path)
        self._do(((folder, name, inode),), set() if inode.links else {inode.number})
        if not inode.links:
            inode.sized = self._operations
        inode.links += 1
        if inode.is_folder:
            inode.links, folder.links = 2, folder.links + 1

    def remove(self, path: bytes, *, folder: bool = False) -> Inode:
        """Take its name away."""
        parent, name = self.place(path)
        gone = self._entry(parent, name, path)
        if gone.is_folder != folder:
            raise _error(errno.ENOTDIR if folder else errno.EISDIR, path)
        if gone.entries:
            raise _error(errno.ENOTEMPTY, path)
        self._do(((parent, name, None),), {gone})
        self._unlinked(parent, gone)
        return gone

    def rename(self, old: bytes, new: bytes) -> Inode | None:
        """Give it another name; what had that one."""
        source, name = self.place(old)
        moved = self._entry(source, name, old)
        target, other = self.place(new)
        gone = target.entries.get(other)
        if gone is moved:
            return None
        if gone is not None:
            if moved.is_folder != gone.is_folder:
                raise _error(errno.EISDIR if gone.is_folder else errno.ENOTDIR, new)
            if gone.entries:
                raise _error(errno.ENOTEMPTY, new)
        self._do(((source, name, None), (target, other, moved)), {gone} if gone else set())
        if moved.is_folder:
            source.links, target.links = source.links - 1, target.links + 1
        self.stamp(moved, content=False)
        if gone is not None:
            self._unlinked(target, gone)
        return gone

    def free(self, inode: Inode) -> bool:
        """Its number may be used again, if nobody has it any more; whether that is so."""
        if inode.links or inode.opened:
            return False
        heappush(self._free, inode.number)
        return True

    def _unlinked(self, parent: Inode, gone: Inode) -> None:
        if gone.is_folder:
            gone.links, parent.links = 0, parent.links - 1
        else:
            gone.links -= 1
        self.stamp(gone, content=False)

    def _do(self, changes: tuple[Change, ...], needs: set[Token]) -> None:
        self._operations += 1
        operation = Operation(self._operations, changes, needs)
        for folder, name, inode in changes:
            before = folder.entries.get(name)
            if before is not None and before is not inode:
                operation.offers.add(before.number)
            _set(folder.entries, name, inode)
            self.stamp(folder)
            if inode is not None:
                self.stamp(inode, content=False)
        self._log.append(operation)

    # --- syncing ----------------------------------------------------------------------

    def sync_folder(self, folder: Inode) -> None:
        """The names in it are durable."""
        folder.attributes = (folder.mtime, folder.mode)
        touching = [
            operation for operation in self._log if any(change[0] is folder for change in operation.changes)
        ]
        if not self._ordered:
            self._commit(self._with_needs(touching))
        elif touching:
            self._commit_until(touching[-1].number)

    def sync_file(self, inode: Inode, *, times: bool) -> None:
        """Its last change, or of its size when not of its `times`, is durable, with all that the
        journal had before it."""
        if self._ordered:
            self._commit_until(inode.position if times else inode.sized)

    def sync(self) -> None:
        """All names are durable."""
        self._commit(self._log)

    def _commit_until(self, number: int) -> None:
        self._commit([operation for operation in self._log if operation.number <= number])

    def _commit(self, operations: list[Operation]) -> None:
        for operation in operations:
            for folder, name, inode in operation.changes:
                _set(folder.durable, name, inode)
        done = {operation.number for operation in operations}
        self._log = [operation for operation in self._log if operation.number not in done]

    def _with_needs(self, wanted: Iterable[Operation]) -> list[Operation]:
        """These, and all before them that they cannot do without."""
        numbers = {operation.number for operation in wanted}
        needed: set[Token] = set()
        found = []
        for operation in reversed(self._log):
            if operation.number in numbers or not needed.isdisjoint(operation.offers):
                found.append(operation)
                needed |= operation.needs
        return found[::-1]

    # --- what is found afterwards -----------------------------------------------------

    def after_kill(self) -> "Tree":
        """All of it, and as little of it on the disk as now."""
        tree, copied = self._empty(), dict[int, Inode]()

        def copy(inode: Inode) -> Inode:
            known = copied.get(id(inode))
            if known is None:
                known = copied[id(inode)] = _copy(inode, inode.content.copy())
                known.links, known.errors, known.reported = inode.links, inode.errors, inode.reported
                known.entries = {name: copy(found) for name, found in inode.entries.items()}
                known.durable = {name: copy(found) for name, found in inode.durable.items()}
            return known

        def copy_token(token: Token) -> Token:
            if isinstance(token, tuple):
                return copy(token[0]), token[1]
            return copy(token) if isinstance(token, Inode) else token

        tree.root = copy(self.root)
        for operation in self._log:
            changes = tuple(
                (copy(folder), name, inode and copy(inode)) for folder, name, inode in operation.changes
            )
            same = Operation(operation.number, changes, set())
            same.needs = {copy_token(token) for token in operation.needs}
            same.offers = {copy_token(token) for token in operation.offers}
            tree._log.append(same)
        tree._number_inodes()
        return tree

    def after_power_cut(self, random: Random) -> "Tree":
        """What was synced, and of the rest what is drawn."""
        names: dict[int, dict[bytes, Inode]] = {}

        def entries(folder: Inode) -> dict[bytes, Inode]:
            return names.setdefault(id(folder), folder.durable.copy())

        for operation in self._surviving(random):
            for folder, name, inode in operation.changes:
                _set(entries(folder), name, inode)
        tree, copied = self._empty(), dict[int, Inode]()

        def copy(inode: Inode) -> Inode:
            known = copied.get(id(inode))
            if known is None:
                known = copied[id(inode)] = _copy(inode, inode.content.after_power_cut(random))
                then = (known.mtime, known.mode) if random.random() < 0.5 else inode.attributes
                known.mtime, known.mode = known.attributes = then
                found = entries(inode)
                known.entries = {name: copy(found[name]) for name in sorted(found)}
                known.durable = known.entries.copy()
                known.links = 2 * known.is_folder
            known.links += not known.is_folder
            return known

        tree.root = copy(self.root)
        tree._number_inodes()
        return tree

    def _surviving(self, random: Random) -> list[Operation]:
        if self._ordered:
            return self._log[: random.choice((0, len(self._log), random.randint(0, len(self._log))))]
        share = random.choice((0.0, 0.1, 0.5, 0.9, 1.0))
        return self._with_needs([operation for operation in self._log if random.random() < share])

    def _empty(self) -> "Tree":
        tree = Tree(self._clock, self._ordered)
        tree._operations, tree._changed = self._operations, self._changed
        return tree

    def _number_inodes(self) -> None:
        """Know which numbers are free, and how many folders are in each."""
        inodes = self.inodes()
        for inode in inodes:
            if inode.is_folder:
                inode.links = 2 + sum(found.is_folder for found in inode.entries.values())
        used = {inode.number for inode in inodes}
        self._next = max(used) + 1
        self._free = [number for number in range(ROOT, self._next) if number not in used]
        heapify(self._free)


def _copy(inode: Inode, content: Content) -> Inode:
    copy = Inode(inode.number, inode.mode, inode.uid, inode.gid)
    copy.mtime, copy.changed, copy.attributes = inode.mtime, inode.changed, inode.attributes
    copy.position, copy.sized, copy.content = inode.position, inode.sized, content
    return copy


def _names(path: bytes) -> list[bytes]:
    names: list[bytes] = []
    for name in path.split(b"/"):
        if name == b"..":
            del names[-1:]
        elif name not in (b"", b"."):
            names.append(name)
    return names


def _set(entries: dict[bytes, Inode], name: bytes, inode: Inode | None) -> None:
    if inode is None:
        entries.pop(name, None)
    else:
        entries[name] = inode


def _error(number: int, path: bytes) -> OSError:
    return OSError(number, os.strerror(number), path)
