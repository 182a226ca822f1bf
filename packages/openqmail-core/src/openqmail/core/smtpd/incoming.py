"""A message on its way in: the recipients that were accepted, and the body so far.

A body stays in memory until it reaches `LARGE` bytes; from then on it is streamed to the
queue, and while any is `pending` the client should be read no further.  However small the pieces are
in which it comes, it takes little more memory than its size.
"""

from asyncio import Future
from collections.abc import Callable

from openqmail.core.message.fresh import FreshHeader, PlainHeader
from openqmail.core.message.header import hops
from openqmail.core.ports import LARGE, LargeBody, Submission
from openqmail.core.smtp.events import Mail
from openqmail.core.values import Envelope, OpenqmailError, Origin, Recipient, TemporaryFailure

MANY = 256
"""Pieces in a row that are put together: an object for every two bytes would cost many times their size."""

LEAST = 4096
"""Bytes of a streamed body that are worth a write; fewer wait for what comes next, or for the end."""


class Incoming:
    """One mail transaction, from MAIL to the answer to its end of data.

    `unchecked`: its sender is not to be judged.  `head`: lines of ours, before those of the client.  `fresh`:
    through which what comes from the client goes.  `heard` is told what is kept of that."""

    __slots__ = (
        "_blocks",
        "_hops",
        "_large",
        "_pieces",
        "_resume",
        "_size",
        "_submission",
        "error",
        "fresh",
        "head",
        "heard",
        "mail",
        "pending",
        "recipients",
        "unchecked",
    )

    def __init__(self, mail: Mail, submission: Submission, resume: Callable[[], None]) -> None:
        self.mail = mail
        self.unchecked = False
        self.head = b""
        self.fresh: FreshHeader | PlainHeader | None = None
        self.heard: Callable[[bytes], None] | None = None
        self.recipients: list[Recipient] = []
        self._submission = submission
        self._resume = resume
        self._pieces: list[bytes] = []
        self._blocks = 0  # so many of them, the first, were put together already, and are not again
        self._size = 0
        self._hops = 0
        self._large: LargeBody | None = None
        self.pending = 0  # pieces that the disk has not yet taken
        self.error: OpenqmailError | None = None

    def begin(self, head: bytes) -> None:
        """The body is about to come; `head` is ours, and stands before it."""
        self.head = head
        self._take(head)

    def add(self, chunk: bytes) -> None:
        """Take the next piece of the body."""
        if self.fresh is not None:
            chunk = self.fresh.feed(chunk)
        if chunk:
            self._keep(chunk)

    def _keep(self, chunk: bytes) -> None:
        self._take(chunk)
        if self.heard is not None:
            self.heard(chunk)

    def _take(self, chunk: bytes) -> None:
        self._pieces.append(chunk)
        self._size += len(chunk)
        if len(self._pieces) - self._blocks > MANY:
            self._pieces[self._blocks :] = [b"".join(self._pieces[self._blocks :])]
            self._blocks += 1
        if self._size < (LARGE if self._large is None else LEAST):
            return
        if self._large is None:
            self._hops = hops(self._whole())  # now, so that nothing of it need stay
            self._large = self._submission.large()
        self._stream()

    def end(self) -> int:
        """No more will come; how often it was handed on, as its first `LARGE` bytes and more tell."""
        if self.fresh is not None and (rest := self.fresh.end()):
            self._keep(rest)
        if self._large is None:
            self._hops = hops(self._whole())
        return self._hops

    def envelope(self, origin: Origin) -> Envelope:
        mail = self.mail
        return Envelope(mail.sender, tuple(self.recipients), origin, mail.smtputf8, mail.ret, mail.envid)

    def body(self) -> bytes | LargeBody:
        """What to submit after the end.  Raises what the disk had to say on the way."""
        if self._large is not None and self._pieces:
            self._stream()
        if self.error is not None:
            raise self.error
        return self._whole() if self._large is None else self._large

    def abort(self) -> None:
        """Nothing of it is wanted any more."""
        self._pieces.clear()
        if self._large is not None:
            self._large.abort()

    def _whole(self) -> bytes:
        """What is in memory, in one piece."""
        if len(self._pieces) != 1:
            self._pieces = [b"".join(self._pieces)]
        return self._pieces[0]

    def _stream(self) -> None:
        """What is in memory goes to the disk."""
        chunk = self._whole()
        self._pieces.clear()
        self._size = self._blocks = 0
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
