"""Looks up in the record what happened to one message.

Numbers come again, so what is found is divided into lives, each of which begins where a message was
accepted.  Files of hundreds of MiB are searched, not read: the lines of a message have a
beginning that nothing else has.  Lines that were torn are passed over.
"""

import mmap
from collections.abc import Iterator
from typing import Any

import msgspec

from openqmail.core.log.history.files import listing
from openqmail.core.log.history.lines import beginning

Entry = dict[str, Any]
"""A line: `msg`, `time` (seconds UTC), `event`, and what that has (see lines.py)."""

Life = list[Entry]

_DECODER = msgspec.json.Decoder(Entry)


def happened(folder: str, number: int, *, all_lives: bool = False) -> list[Life]:
    """The latest life of the message, or all that are on record, the oldest first; empty for none.

    The begin of one may be missing.  Raises OSError."""
    try:
        paths = [path for _, _, path in listing(folder)]
    except FileNotFoundError:
        return []
    found: Life = []
    for path in reversed(paths):
        entries = list(_entries(path, number))
        found = entries + found
        if not all_lives and any(entry["event"] == "accepted" for entry in entries):
            break
    lives: list[Life] = []
    for entry in found:
        if entry["event"] == "accepted" or not lives:
            lives.append([])
        lives[-1].append(entry)
    return lives if all_lives else lives[-1:]


def _entries(path: str, number: int) -> Iterator[Entry]:
    needle = beginning(number)
    with open(path, "rb") as opened:
        try:
            content = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # it is empty
            return
        with content:
            at = content.find(needle)
            while at >= 0:
                end = content.find(b"\n", at)
                line = content[at : end if end >= 0 else len(content)]
                entry = _decoded(line)
                if entry is not None:
                    yield entry
                at = content.find(needle, at + len(needle))


def _decoded(line: bytes) -> Entry | None:
    try:
        entry = _DECODER.decode(line)
    except msgspec.DecodeError:
        return None
    fits = isinstance(entry.get("time"), float | int) and isinstance(entry.get("event"), str)
    return entry if fits else None
