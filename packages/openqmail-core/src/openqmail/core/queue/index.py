"""What is kept in memory of the journal: its segments and, for each message, where it lies.

A message that waits costs an `Entry`; envelope and body are read again when they are
needed.  An entry is written to by the journal until its message is durable, and by the
store from then on.
"""

from openqmail.core.queue.store import Progress


class Segment:
    """A file of the journal.  `live`: messages in it that have not ended, by synced records."""

    __slots__ = ("live", "nonce", "path", "sequence")

    def __init__(self, path: bytes, sequence: int, nonce: bytes) -> None:
        self.path, self.sequence, self.nonce = path, sequence, nonce
        self.live = 0


class Entry:
    """A message: its record begins at `offset` of its segment and is `head_size` long
    without the body.  `recipients`: how many it was accepted for.  `body`: the
    small body of a fresh message."""

    __slots__ = (
        "again",
        "birth",
        "body",
        "body_size",
        "due",
        "ended",
        "head_size",
        "key",
        "large",
        "number",
        "offset",
        "progress",
        "recipients",
        "segment",
        "size",
    )

    def __init__(
        self, number: int, birth: int, size: int, recipients: int, head_size: int, body_size: int
    ) -> None:
        self.number = number
        self.recipients = recipients
        self.birth = birth
        self.size = size
        self.head_size = head_size
        self.body_size = body_size
        self.key = b""
        self.segment: Segment | None = None
        self.offset = 0
        self.due = 0
        self.progress: dict[int, Progress] | None = None
        self.large: str | None = None
        self.body: bytes | None = None
        self.again = False
        self.ended = False
