"""What is kept in memory of the queue: segments and, for each message, where it lies.

A message that waits costs an `Entry` (in the journal) or a `Resident` (in qmail's layout);
envelope and body are read again when they are needed.  An entry is written to by the journal
until its message is durable, and by the store from then on.
"""

import msgspec

from openqmail.core.queue.store import Due, Progress


class Segment:
    """A file of the journal.  `live`: what in it is still needed, by synced records: messages that
    have not ended or moved, and results whose files in the layout are not durable yet.  `begun`:
    when, on the monotonic clock."""

    __slots__ = ("begun", "live", "nonce", "path", "sequence")

    def __init__(self, path: bytes, sequence: int, nonce: bytes, begun: float = 0.0) -> None:
        self.path, self.sequence, self.nonce, self.begun = path, sequence, nonce, begun
        self.live = 0


class Entry(msgspec.Struct, eq=False):
    """A message in the journal: its record begins at `offset` of its segment and is `head_size`
    long without the body.  `recipients`: how many it was accepted for.  `body`: the small body of
    a fresh message; `digest`: of a body that has a file of its own (`large`).

    `moving`: files of it are being written to the layout; `changed`: a result came since then;
    `written`: such files may be there; `closing`: submissions under way that close it, or some of its
    recipients; `gone`: it has ended, durably, by a record that `pinned` has
    to keep until those files are gone.
    """

    number: int
    birth: int
    size: int
    recipients: int
    head_size: int
    body_size: int
    key: bytes = b""
    segment: Segment | None = None
    offset: int = 0
    due: Due = (0, 0)
    progress: dict[int, Progress] | None = None
    digest: bytes = b""
    body: bytes | None = None
    again: bool = False
    ended: bool = False
    moving: bool = False
    changed: bool = False
    written: bool = False
    closing: int = 0
    gone: bool = False
    pinned: Segment | None = None

    @property
    def left(self) -> int:
        """Recipients not done with."""
        done = [one for one in (self.progress or {}).values() if one.outcome is not None]
        return self.recipients - len(done)

    @property
    def deferred(self) -> bool:
        """Somebody was tried, or is to be tried at a later time, and not all is done."""
        return any(self.due) or bool(self.progress and self.left)

    @property
    def large(self) -> bool:
        return bool(self.digest)


class Resident(msgspec.Struct, eq=False, gc=False):
    """A message in qmail's layout.  `left`: recipients not done with; `locals`: how many its
    `local` file lists.  `key` is empty until `info` has been read.  `has_remote`, `has_bounce`: whether
    there may be such files; `begun`: somebody was tried."""

    birth: int
    due_local: int
    due_remote: int
    size: int
    left: int
    locals: int
    key: bytes = b""
    held: bool = False
    has_remote: bool = True
    has_bounce: bool = True
    ended: bool = False
    begun: bool = False

    @property
    def deferred(self) -> bool:
        """As of an `Entry`; mail that was not tried yet has been due since it came."""
        waits = self.due_local not in (0, self.birth) or self.due_remote not in (0, self.birth)
        return not self.held and self.left > 0 and (self.begun or waits)

    @property
    def due(self) -> int:
        """When the first recipient is due."""
        if not self.due_local or not self.due_remote:
            return self.due_local or self.due_remote
        return min(self.due_local, self.due_remote)
