"""The message of one local submission, as it comes: what of it is stored, and what hooks hear of that.

A small one stays in memory; one of `LARGE` bytes is streamed to the queue, and while any is `pending` the
client should be read no further.  One whose lines all end with CRLF is stored with LF; whether they do is
known of a small one at its end, of a large one it is what the first line says.
"""

from asyncio import CancelledError, Future
from collections.abc import Callable

from openqmail.core.message.fresh import PlainHeader
from openqmail.core.ports import LARGE, LargeBody, Submission

FIRST = 2048
"""Bytes in which the end of the first line is looked for."""


class Incoming:
    """`head`: a line of ours, before those of the client.  `heard` is told what is kept of those.  `went` is
    told when the disk has taken something, or what it had to say instead."""

    def __init__(
        self,
        head: bytes,
        size: int,
        submission: Submission,
        header: PlainHeader,
        heard: Callable[[bytes], None] | None,
        went: Callable[[BaseException | None], None],
    ) -> None:
        self.head = head
        self.pending = 0  # pieces that the disk has not taken yet
        self._header = header
        self._heard = heard
        self._went = went
        self._pieces: list[bytes] = []
        self._text = TextLines()
        self._failed = False
        self._large: LargeBody | None = None
        if len(head) + size + 1 >= LARGE:  # one more: the header may get its end
            self._large = submission.large()
            self._store(head)

    @property
    def too_large(self) -> bool:
        """Its header is, so it should not be stored."""
        return self._header.too_large

    def add(self, data: bytes) -> None:
        """The next piece."""
        if self._large is None:
            self._pieces.append(data)
        else:
            self._keep(self._header.feed(self._text.feed(data)))

    def end(self) -> bytes | LargeBody:
        """What to submit: all has come."""
        if self._large is None:
            text = as_text(b"".join(self._pieces))
            self._pieces.clear()
            self._keep(self._header.feed(text) + self._header.end())
            return self.head + b"".join(self._pieces)
        self._keep(self._header.feed(self._text.end()) + self._header.end())
        return self._large

    def abort(self) -> None:
        """Nothing of it is wanted any more."""
        self._pieces.clear()
        if self._large is not None:
            self._large.abort()

    def _keep(self, data: bytes) -> None:
        if data:
            self._store(data)
            if self._heard is not None:
                self._heard(data)

    def _store(self, data: bytes) -> None:
        if self._large is None:
            self._pieces.append(data)
        elif not self._failed:
            self.pending += 1
            self._large.write(data).add_done_callback(self._written)

    def _written(self, done: Future[None]) -> None:
        self.pending -= 1
        error = CancelledError() if done.cancelled() else done.exception()
        if not self._failed:
            self._failed = error is not None
            self._went(error)


class TextLines:
    """A large message in its stored form, in pieces: with LF for CRLF, if its first line ends so."""

    def __init__(self) -> None:
        self._held = b""
        self._is_text: bool | None = None

    def feed(self, data: bytes) -> bytes:
        """What is sure by now."""
        if self._is_text is False:
            return data
        data, self._held = self._held + data, b""
        if self._is_text is None:
            end = data.find(b"\n", 0, FIRST)
            if end < 0 and len(data) < FIRST:
                self._held = data
                return b""
            self._is_text = end > 0 and data[end - 1 : end] == b"\r"
        return self._stored(data) if self._is_text else data

    def end(self) -> bytes:
        """What is left."""
        rest, self._held = self._held, b""
        return rest

    def _stored(self, data: bytes) -> bytes:
        if data.endswith(b"\r"):  # its LF may come
            data, self._held = data[:-1], b"\r"
        return data.replace(b"\r\n", b"\n")


def as_text(message: bytes) -> bytes:
    """A message whose lines all end with CRLF in the stored form; any other as it is."""
    ends = message.count(b"\r\n")
    if ends and ends == message.count(b"\r") == message.count(b"\n"):
        return message.replace(b"\r", b"")
    return message
