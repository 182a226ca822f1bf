"""The front end's side: asks whoever is attached, and keeps what is unanswered.

Without a connection, what is asked waits.  Small messages are kept until they are answered; of
large ones nothing is kept, so one that had begun fails with its connection.
"""

import asyncio
import socket
from asyncio import Future
from collections import deque
from itertools import count
from typing import Any

from openqmail.core.ports import LargeBody
from openqmail.core.service.frames.bodies import DescriptorBody
from openqmail.core.service.frames.channel import Channel
from openqmail.core.service.frames.codec import FrameError
from openqmail.core.service.frames.rights import close_all
from openqmail.core.service.frames.submission.messages import (
    GONE,
    KINDS,
    Abort,
    Accepted,
    Begin,
    Bye,
    Chunk,
    Finish,
    Open,
    Opened,
    Submit,
    ToClient,
    ToServer,
    Wrote,
)
from openqmail.core.values import (
    Body,
    Envelope,
    MessageId,
    OpenqmailError,
    PermanentFailure,
    TemporaryFailure,
)

PIECE = 256 * 1024
"""Bytes of a chunk at most."""

LOST = "the queue was lost with the message under way, and nobody knows whether it has it: send it again"
_ENDED = "this process ends; send the message again"


class SubmissionClient:
    """Serves the port Submission by asking a server; needs a running loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ids = count(1)
        self._link: _Link | None = None
        self._older: set[_Link] = set()
        self._waiting: list[_Small | SentBody] = []
        self._closed = False

    def attach(self, connection: socket.socket) -> None:
        """From now on ask this one; an older one may finish what it has."""
        older, self._link = self._link, _Link(self, connection)
        if older is not None:
            self._older.add(older)
            older.rest()
        waiting, self._waiting = self._waiting, []
        for asked in waiting:
            asked.go(self._link)

    def large(self) -> LargeBody:
        return SentBody(self, next(self._ids))

    def submit(self, envelope: Envelope, body: bytes | LargeBody, hold: str = "") -> "Future[MessageId]":
        """As the port says; also PermanentFailure for an envelope that is too large for a frame."""
        answer: Future[MessageId] = self._loop.create_future()
        if isinstance(body, bytes):
            self.hand(_Small(next(self._ids), envelope, body, hold, answer))
        elif isinstance(body, SentBody):
            body.finish(envelope, hold, answer)
        else:
            raise TypeError("a large body comes from this client's large()")
        return answer

    def close(self) -> None:
        """End every connection; what is unanswered fails."""
        self._closed = True
        waiting, self._waiting = self._waiting, []
        for asked in waiting:
            asked.fail(TemporaryFailure(_ENDED))
        for link in [self._link, *self._older]:
            if link is not None:
                link.end(LOST)

    def hand(self, asked: "_Small | SentBody") -> None:
        """Ask it now, or when there is somebody to ask."""
        if self._link is not None:
            asked.go(self._link)
        elif self._closed:
            asked.fail(TemporaryFailure(_ENDED))
        else:
            self._waiting.append(asked)

    def withdraw(self, asked: "SentBody") -> None:
        """What waits need not be asked."""
        if asked in self._waiting:
            self._waiting.remove(asked)

    def future(self) -> "Future[Any]":
        return self._loop.create_future()

    def gone(self, link: "_Link") -> None:
        self._older.discard(link)
        if self._link is link:
            self._link = None


class _Link:
    """One connection of a client, and what is unanswered on it."""

    def __init__(self, client: SubmissionClient, connection: socket.socket) -> None:
        self._client = client
        self._resting = False
        self.asked: dict[int, _Small | SentBody] = {}
        self.channel = Channel(connection, ToClient, self._received, self._lost)

    def rest(self) -> None:
        """Nothing new comes: end when nothing is unanswered."""
        self._resting = True
        self.rested()

    def rested(self) -> None:
        if self._resting and not self.asked:
            self.channel.close()
            self._client.gone(self)

    def end(self, why: str) -> None:
        self.channel.close()
        self._lost(TemporaryFailure(why))

    def _received(self, message: Any, descriptors: list[int]) -> None:
        kind = type(message)
        if len(descriptors) != (kind is Opened):
            close_all(descriptors)
            raise FrameError("a descriptor where there should be none, or none")
        if kind is Bye:
            self._leave()
            return
        asked = self.asked.get(message.id)
        if asked is None:  # it was given up meanwhile
            close_all(descriptors)
            return
        if kind is Opened:
            asked.opened(DescriptorBody(descriptors[0], message.size, b""))
            return
        if kind is Wrote:
            asked.wrote()
            return
        if kind is Accepted:
            asked.accept(message.message)
        else:
            error = KINDS[message.kind] if 0 <= message.kind < len(KINDS) else TemporaryFailure
            asked.fail(error(message.text))
        self.asked.pop(message.id, None)
        self.rested()

    def _leave(self) -> None:
        """Nothing of what is unanswered was taken."""
        asked, self.asked = self.asked, {}
        self.channel.close()
        self._client.gone(self)
        for one in asked.values():
            one.again(self._client)

    def _lost(self, error: Exception | None) -> None:
        asked, self.asked = self.asked, {}
        self._client.gone(self)
        for one in asked.values():
            one.fail(TemporaryFailure(LOST))


class _Small:
    """A message that is one frame; it is kept until it is answered."""

    __slots__ = ("_answer", "_id", "_message")

    def __init__(
        self, id: int, envelope: Envelope, body: bytes, hold: str, answer: "Future[MessageId]"
    ) -> None:
        self._id, self._answer = id, answer
        self._message = Submit(id, envelope, body, hold)

    def go(self, link: _Link) -> None:
        if self._answer.done():  # nobody wants it any more
            return
        try:
            link.channel.send(self._message)
        except FrameError as error:
            self.fail(PermanentFailure(str(error)))
        else:
            link.asked[self._id] = self

    def wrote(self) -> None:
        raise FrameError("an answer to another question")

    def opened(self, body: DescriptorBody) -> None:
        body.close()
        self.wrote()

    def accept(self, message: MessageId) -> None:
        if not self._answer.done():
            self._answer.set_result(message)

    def fail(self, error: OpenqmailError) -> None:
        if not self._answer.done():
            self._answer.set_exception(error)

    def again(self, client: SubmissionClient) -> None:
        client.hand(self)


class SentBody:
    """A `LargeBody`: its chunks go to the connection that it began with."""

    def __init__(self, client: SubmissionClient, id: int) -> None:
        self._client, self._id = client, id
        self._link: _Link | None = None
        self._begun = False
        self._unsent: list[ToServer] = [Begin(id)]
        self._writes: deque[Future[None] | None] = deque()
        self._opening: deque[Future[Body]] = deque()
        self._opened: list[DescriptorBody] = []
        self._answer: Future[MessageId] | None = None
        self._error: OpenqmailError | None = None

    def write(self, chunk: bytes) -> "Future[None]":
        future = self._client.future()
        if self._error is None and self._answer is None:
            for at in range(0, len(chunk) or 1, PIECE):
                last = at + PIECE >= len(chunk)
                self._writes.append(future if last else None)
                self._say(Chunk(self._id, chunk[at : at + PIECE]))
        else:
            future.set_exception(self._error or TemporaryFailure(GONE))
        return future

    def so_far(self) -> "Future[Body]":
        future: Future[Body] = self._client.future()
        if self._error is None and self._answer is None:
            self._opening.append(future)
            self._say(Open(self._id))
        else:
            future.set_exception(self._error or TemporaryFailure(GONE))
        return future

    def finish(self, envelope: Envelope, hold: str, answer: "Future[MessageId]") -> None:
        """Hand it in."""
        if self._error is not None or self._answer is not None:
            answer.set_exception(self._error or TemporaryFailure(GONE))
            return
        self._answer = answer
        self._close()
        try:
            self._say(Finish(self._id, envelope, hold))
        except FrameError as error:
            self._give_up(PermanentFailure(str(error)))

    def abort(self) -> None:
        if self._answer is None:
            self._give_up(TemporaryFailure(GONE))

    def go(self, link: _Link) -> None:
        self._link = link
        link.asked[self._id] = self
        unsent, self._unsent = self._unsent, []
        try:
            for message in unsent:
                link.channel.send(message)
        except FrameError as error:
            self._give_up(PermanentFailure(str(error)))

    def wrote(self) -> None:
        if not self._writes:
            raise FrameError("an answer to nothing")
        future = self._writes.popleft()
        if future is not None and not future.done():
            future.set_result(None)

    def opened(self, body: DescriptorBody) -> None:
        if not self._opening:
            body.close()
            raise FrameError("an answer to nothing")
        future = self._opening.popleft()
        if future.done() or self._answer is not None:
            body.close()
        else:
            self._opened.append(body)
            future.set_result(body)

    def accept(self, message: MessageId) -> None:
        if self._answer is None:
            raise FrameError("an answer to another question")
        while self._writes:
            self.wrote()
        if not self._answer.done():
            self._answer.set_result(message)

    def fail(self, error: OpenqmailError) -> None:
        """The server's word, or there is no server any more."""
        if self._answer is None:  # so that it forgets it, too
            self._give_up(error)
        else:
            self._settle(error)

    def again(self, client: SubmissionClient) -> None:
        self._settle(TemporaryFailure(LOST))  # nobody has kept what was sent

    def _give_up(self, error: OpenqmailError) -> None:
        if self._error is not None:
            return
        if self._link is not None:
            self._link.channel.send(Abort(self._id))
            self._link.asked.pop(self._id, None)
            self._link.rested()
        else:
            self._client.withdraw(self)
        self._settle(error)

    def _settle(self, error: OpenqmailError) -> None:
        self._error = error
        self._close()
        for future in [*self._writes, *self._opening, self._answer]:
            if future is not None and not future.done():
                future.set_exception(error)
        self._writes.clear()
        self._opening.clear()

    def _close(self) -> None:
        """What was opened is not read any more."""
        for body in self._opened:
            body.close()
        self._opened.clear()

    def _say(self, message: ToServer) -> None:
        if self._link is not None:
            self._link.channel.send(message)
            return
        self._unsent.append(message)
        if not self._begun:
            self._begun = True
            self._client.hand(self)
