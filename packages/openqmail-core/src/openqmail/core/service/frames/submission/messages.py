"""What is said on a connection for mail coming in."""

import msgspec

from openqmail.core.service.frames.codec import understand
from openqmail.core.values import (
    Envelope,
    MessageId,
    OpenqmailError,
    PermanentFailure,
    QueueFull,
    TemporaryFailure,
)

GONE = "the body was given up or handed in already"


class Submit(msgspec.Struct, frozen=True, array_like=True, tag=1):
    id: int
    envelope: Envelope
    body: bytes
    hold: str = ""


class Begin(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    id: int


class Chunk(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    id: int
    data: bytes


class Finish(msgspec.Struct, frozen=True, array_like=True, tag=4):
    id: int
    envelope: Envelope
    hold: str = ""


class Abort(msgspec.Struct, frozen=True, array_like=True, tag=5, gc=False):
    id: int


class Open(msgspec.Struct, frozen=True, array_like=True, tag=6, gc=False):
    """Let me read what I have written."""

    id: int


ToServer = Submit | Begin | Chunk | Finish | Abort | Open


class Accepted(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """It is durable."""

    id: int
    message: MessageId


class Wrote(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """The disk has taken the next chunk."""

    id: int


class Failed(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """It is not in the queue; `kind` is a place in `KINDS`."""

    id: int
    kind: int
    text: str


class Bye(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """Nothing more is taken, and nothing of what is unanswered was."""


class Opened(msgspec.Struct, frozen=True, array_like=True, tag=5, gc=False):
    """The answer to `Open`, with a descriptor for reading."""

    id: int
    size: int


ToClient = Accepted | Wrote | Failed | Bye | Opened

understand(ToServer, ToClient)

KINDS: tuple[type[OpenqmailError], ...] = (TemporaryFailure, QueueFull, PermanentFailure)
