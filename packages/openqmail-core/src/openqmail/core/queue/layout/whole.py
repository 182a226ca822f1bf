"""Whether a home's `queue/` is a queue at all: who made the home made all of its folders.

So a folder without any of them is no empty queue.  It is that of a file system which is not
mounted, or a lost one; and one that has a queue inside it was put beside, not in place of it.
Nothing is changed here, and what the folders hold is not looked at.
"""

import os
import shlex

from openqmail.core.control.owner import BEGUN, to_make
from openqmail.core.queue.layout.paths import BESIDE, EITHER_FOLDERS, FLAT_FOLDERS, OURS, SPLIT_FOLDERS
from openqmail.core.values import HomeError
from openqmail.core.world import Disk

_PARTS = frozenset((*SPLIT_FOLDERS, *EITHER_FOLDERS, *FLAT_FOLDERS, *OURS))
INNER = "looks like another queue, and nobody delivers from it"


def require(disk: Disk, folder: bytes) -> None:
    """Raises HomeError for a folder with nothing of a queue in it, with what to do; OSError."""
    if found := fault(disk, folder, os.geteuid(), os.getegid()):
        what, remedy = found
        raise HomeError(f"{os.fsdecode(folder)} {what}; {remedy}")


def fault(disk: Disk, folder: bytes, uid: int, gid: int) -> tuple[str, str] | None:
    """What is wrong with a folder that has nothing of a queue in it, and the remedy for the queue's user
    and group; None: it has some of one, or is not there, which is another matter.  Raises OSError."""
    try:
        there = disk.names(folder)
    except FileNotFoundError:
        return None
    if not _PARTS.isdisjoint(there):
        return None
    if inner := inside(disk, folder):
        return f"has nothing of a queue in it, but {os.fsdecode(inner[0])} {INNER}", remedy(inner[0])
    begin = to_make([os.path.join(os.fsdecode(folder), BEGUN)], 0o700, uid, gid)
    return (
        "has nothing of a queue in it, and even an empty queue has its folders: is its file system mounted?",
        f"restore what was there, or, to begin with an empty queue: {begin}",
    )


def inside(disk: Disk, folder: bytes) -> list[bytes]:
    """Queues that lie in the folder of a queue.  Raises OSError."""
    others = [name for name, is_folder in disk.scan(folder) if is_folder and name not in (*_PARTS, *BESIDE)]
    return [path for name in sorted(others) if is_queue(disk, path := os.path.join(folder, name))]


def is_queue(disk: Disk, path: bytes) -> bool:
    """Whether it looks like one: by its folders, or, where we may not look, by its name."""
    try:
        return {b"mess", b"info"} <= set(disk.names(path))
    except OSError:
        return os.path.basename(path) == b"queue"


def remedy(inner: bytes) -> str:
    """How a queue that was put into the folder of one takes its place."""
    folder, name = os.path.split(os.fsdecode(inner))
    home, queue = os.path.split(folder)
    aside = shlex.quote(f"{queue}.aside")
    there = shlex.quote(os.path.join(f"{queue}.aside", name))
    return (
        "to take it over instead of the one that it lies in, stop the service, then: "
        f"cd {shlex.quote(home)} && mv {queue} {aside} && mv {there} {queue}"
    )
