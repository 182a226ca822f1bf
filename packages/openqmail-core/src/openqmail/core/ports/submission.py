"""The port by which mail comes in."""

from asyncio import Future
from typing import Protocol

from openqmail.core.values import Body, Envelope, MessageId

LARGE = 128 * 1024
"""From this size on a body is streamed through a `LargeBody` instead of being held."""


class LargeBody(Protocol):
    """A body on its way to the disk, written in order by one front end.

    Errors of the disk are raised by `write` or, later, by `submit`.
    """

    def write(self, chunk: bytes) -> Future[None]:
        """Append; the sender of the mail should be read no further until this is done.

        Raises QueueFull, TemporaryFailure."""
        ...

    def so_far(self) -> Future[Body]:
        """What has been written, to be read until the body is submitted or given up.

        Raises QueueFull, TemporaryFailure."""
        ...

    def abort(self) -> None:
        """Forget it; may be called at any time before `submit`, and again."""
        ...


class Submission(Protocol):
    """Served by send."""

    def large(self) -> LargeBody:
        """A place for a body of `LARGE` bytes or more."""
        ...

    def submit(self, envelope: Envelope, body: bytes | LargeBody, hold: str = "") -> Future[MessageId]:
        """Done only when the message is durable on disk: then, and only then, say 250.

        `hold`: a reason; the message is held before it is done, and nothing of it is tried until it is
        released.  After a crash just before, it may not be.

        Raises QueueFull (452), TemporaryFailure (451); the message is then not in the queue."""
        ...
