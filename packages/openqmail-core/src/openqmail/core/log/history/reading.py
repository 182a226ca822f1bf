"""Looks up in the record what happened to one message.

Numbers come again, so what is found is divided into lives, each of which begins where a message was
accepted.  Files of hundreds of MiB are searched, not read: the lines of a message have a
beginning that nothing else has.  Lines that were torn are passed over, and so is, with a word, whatever
is no file or no line of ours: who reads may be root, and who wrote somebody else.
"""

import errno
import mmap
import os
import stat
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import msgspec

from openqmail.core.log.history.files import listing
from openqmail.core.log.history.lines import beginning

Entry = dict[str, Any]
"""A line: `msg`, `time` (seconds UTC), `event`, and what that has (see lines.py)."""

Life = list[Entry]

LONGEST = 64 * 1024
"""Bytes of a line; ours are shorter by far."""

_Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
_Seconds = Annotated[float, msgspec.Meta(ge=0, lt=253_402_300_800)]
"""Up to the year 9999."""


class _Line(msgspec.Struct, gc=False):
    """What a line has to be (see lines.py); of what is not there nothing is asked."""

    msg: _Count
    time: _Seconds
    event: str
    bytes: _Count = 0
    sender: str = ""
    uid: _Count = 0
    pid: _Count = 0
    made: str = ""
    parent: _Count | None = None
    delivery: _Count = 0
    channel: str = ""
    recipient: str = ""
    outcome: str = ""
    text: str = ""
    child: _Count = 0


_FITS = msgspec.json.Decoder(_Line)
_DECODER = msgspec.json.Decoder(Entry)
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # no link is followed, no pipe waited for


def happened(
    folder: str, number: int, *, all_lives: bool = False, tell: Callable[[str], object] = str
) -> list[Life]:
    """The latest life of the message, or all that are on record, the oldest first; empty for none.

    The begin of one may be missing.  `tell` is told what was passed over.  Raises OSError."""
    try:
        paths = [path for _, _, path in listing(folder)]
    except FileNotFoundError:
        return []
    found: Life = []
    for path in reversed(paths):
        entries = list(_entries(path, number, tell))
        found = entries + found
        if not all_lives and any(entry["event"] == "accepted" for entry in entries):
            break
    lives: list[Life] = []
    for entry in found:
        if entry["event"] == "accepted" or not lives:
            lives.append([])
        lives[-1].append(entry)
    return lives if all_lives else lives[-1:]


def _entries(path: str, number: int, tell: Callable[[str], object]) -> Iterator[Entry]:
    needle = beginning(number)
    content = _content(path, tell)
    if content is None:
        return
    with content:
        at = content.find(needle)
        while at >= 0:
            end = content.find(b"\n", at, at + LONGEST)
            line = content[at : end if end >= 0 else at + LONGEST]
            try:
                _FITS.decode(line)
                yield _DECODER.decode(line)
            except (msgspec.ValidationError, RecursionError):
                tell(f"{path}: has a line about message {number} that is none of ours")
            except msgspec.DecodeError:  # it was torn
                pass
            at = content.find(needle, at + len(needle))


def _content(path: str, tell: Callable[[str], object]) -> mmap.mmap | None:
    """None when there is none.  Raises OSError."""
    try:
        descriptor = os.open(path, _FLAGS)
    except FileNotFoundError:  # it was too old meanwhile
        return None
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):  # a link, a socket
            raise
        tell(f"{path}: is no file")
        return None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            tell(f"{path}: is no file")
        elif found.st_size:
            return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    finally:
        os.close(descriptor)
    return None
