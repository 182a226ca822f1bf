"""A message on its way in: the recipients that were accepted, and the body so far.

A body stays in memory until it reaches `LARGE` bytes; from then on it is streamed to the
queue, and while any is `pending` the client should be read no further.
"""

from asyncio import Future
from collections.abc import Callable

from openqmail.core.ports import LARGE, LargeBody, Submission
from openqmail.core.smtp.events import Mail
from openqmail.core.values import Envelope, OpenqmailError, Origin, Recipient, TemporaryFailure


class Incoming:
    """One mail transaction, from MAIL to the answer to its end of data."""

    __slots__ = (
        "_head",
        "_large",
        "_pieces",
        "_resume",
        "_size",
        "_submission",
        "error",
        "mail",
        "pending",
        "recipients",
    )

    def __init__(self, mail: Mail, submission: Submission, resume: Callable[[], None]) -> None:
        self.mail = mail
        self.recipients: list[Recipient] = []
        self._submission = submission
        self._resume = resume
        self._pieces: list[bytes] = []
        self._size = 0
        self._head = b""
        self._large: LargeBody | None = None
        self.pending = 0  # pieces that the disk has not yet taken
        self.error: OpenqmailError | None = None

    def add(self, chunk: bytes) -> None:
        """Take the next piece of the body."""
        if self._large is not None:
            self._stream(chunk)
            return
        self._pieces.append(chunk)
        self._size += len(chunk)
        if self._size >= LARGE:
            self._head = b"".join(self._pieces)
            self._pieces.clear()
            self._large = self._submission.large()
            self._stream(self._head)

    def end(self) -> bytes:
        """No more will come; the beginning of the message: all of it, or `LARGE` bytes and more."""
        if self._large is None:
            self._head = b"".join(self._pieces)
        return self._head

    def envelope(self, origin: Origin) -> Envelope:
        mail = self.mail
        return Envelope(mail.sender, tuple(self.recipients), origin, mail.smtputf8, mail.ret, mail.envid)

    def body(self) -> bytes | LargeBody:
        """What to submit after the end.  Raises what the disk had to say on the way."""
        if self.error is not None:
            raise self.error
        return self._head if self._large is None else self._large

    def abort(self) -> None:
        """Nothing of it is wanted any more."""
        self._pieces.clear()
        if self._large is not None:
            self._large.abort()

    def _stream(self, chunk: bytes) -> None:
        if self._large is None or self.error is not None:
            return
        self.pending += 1
        self._large.write(chunk).add_done_callback(self._written)

    def _written(self, done: Future[None]) -> None:
        self.pending -= 1
        if not done.cancelled() and (error := done.exception()) is not None and self.error is None:
            self.error = error if isinstance(error, OpenqmailError) else TemporaryFailure(str(error))
        if not self.pending:
            self._resume()
