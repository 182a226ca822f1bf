"""What is kept in memory of the journal: its segments and, for each message, where it lies.

A message that waits costs an `Entry`; envelope and body are read again when they are
needed.  An entry is written to by the journal until its message is durable, and by the
store from then on.
"""

import msgspec

from openqmail.core.queue.records import LargeFile
from openqmail.core.queue.store import Progress


class Segment:
    """A file of the journal.  `live`: messages in it that have not ended, by synced records."""

    __slots__ = ("live", "nonce", "path", "sequence")

    def __init__(self, path: bytes, sequence: int, nonce: bytes) -> None:
        self.path, self.sequence, self.nonce = path, sequence, nonce
        self.live = 0


class Entry(msgspec.Struct, eq=False):
    """A message: its record begins at `offset` of its segment and is `head_size` long
    without the body.  `recipients`: how many it was accepted for.  `body`: the
    small body of a fresh message."""

    number: int
    birth: int
    size: int
    recipients: int
    head_size: int
    body_size: int
    key: bytes = b""
    segment: Segment | None = None
    offset: int = 0
    due: int = 0
    progress: dict[int, Progress] | None = None
    large: LargeFile | None = None
    body: bytes | None = None
    again: bool = False
    ended: bool = False
