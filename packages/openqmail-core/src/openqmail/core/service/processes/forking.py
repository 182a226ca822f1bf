"""A child of this process, which does one thing and is no more."""

import gc
import os
import sys
from collections.abc import Callable
from contextlib import suppress

from openqmail.core.log import Alert, Form, LogWriter
from openqmail.core.service.loops import GARBAGE, give_back
from openqmail.core.world import SystemClock

_BLOCKS = (48, 513, 16)
"""Sizes of the blocks that Python's allocator has for small objects, down to an empty `bytes`."""

_ROW = 8
"""So many blocks one behind the other are no gaps any more."""

_LIBRARY = ".so"
"""In the name of what Python, or the dynamic linker, has loaded and never unloads."""

_GAPS = 32 << 10
"""More bytes than there are in gaps between blocks of one size."""


def forked(name: str, body: Callable[[], int], form: Form = "qmail") -> int:
    """Fork; the child does `body` and ends with the code that it returns, or says what broke and ends
    with 111.  Returns the child's pid, and only in the parent.  Raises OSError."""
    pid = os.fork()
    if pid:
        return pid
    code = 111
    try:
        code = body()
    except BaseException as error:  # whatever it is: the parent must not return twice
        LogWriter(sys.stderr.fileno(), SystemClock(), form=form)(Alert(f"{name} broke: {error!r}"))
    finally:
        os._exit(code)


_plugs: list[bytes] = []
_files: list[tuple[int, int]] = []  # where the memory is that Python's own files fill, and how much


def share_memory() -> None:
    """To be called before the first fork, when all is imported: makes that less of the memory which
    parent and children share is copied because one of them writes to it.

    A process writes where it makes objects, and, until Python 3.12, wherever it looks at one."""
    _find_files()
    give_back_files()
    gc.collect()
    gc.freeze()  # what is imported stays: no collection looks at it
    gc.set_threshold(*GARBAGE)
    if sys.version_info < (3, 12):
        sys._clear_type_cache()  # what it has of the imports would be let go of name by name
    for size in range(*_BLOCKS):
        _plug(size)


def give_back_files() -> None:
    """Keep nothing of Python and libraries in memory that only the start has needed: what is wanted
    again comes from the file.  Nothing happens before `share_memory`."""
    for begin, size in _files:
        give_back(begin, size)


def _find_files() -> None:
    """Now: who is behind walls may not look into /proc.  Only what stays where it is as long as the process
    is: where something else may lie some day, giving back would be losing."""
    python = os.path.realpath(sys.executable)
    _files.clear()
    with suppress(OSError), open("/proc/self/smaps") as areas:
        for line in areas:
            name, *words = line.split()
            if not name.endswith(":"):  # where it begins and ends, what may be done with it, ..., its file
                begin, end = (int(one, 16) for one in name.split("-"))
                stays = words[-1] == python or _LIBRARY in os.path.basename(words[-1])
                read, untouched = words[0] in ("r-xp", "r--p") and stays, 0
            elif name in ("Anonymous:", "Swap:"):
                untouched += words[0] == "0"  # else the linker has written there
            elif name == "VmFlags:" and read and untouched == 2:
                _files.append((begin, end - begin))


def _plug(size: int) -> None:
    """Take what is free among the blocks of this size: what comes next lies together on new pages,
    not in gaps of many shared ones."""
    row, last = 0, 0
    for _ in range(_GAPS // size):
        plug = bytes(size - sys.getsizeof(b""))
        _plugs.append(plug)
        row = row + 1 if id(plug) == last + size else 0
        if row == _ROW:
            break
        last = id(plug)
