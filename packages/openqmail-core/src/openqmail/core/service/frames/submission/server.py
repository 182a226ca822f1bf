"""The queue's side: hands what comes to the real thing, and answers when that does.

Nothing is read while more than `MOST` bytes wait for the disk.  A front end that is gone takes its
unfinished bodies with it; what it had handed in is the queue's.
"""

import asyncio
import socket
from asyncio import Future
from collections.abc import Callable
from functools import partial
from typing import Any

from openqmail.core.ports import LargeBody, Submission
from openqmail.core.service.frames.bodies import pack
from openqmail.core.service.frames.channel import Channel
from openqmail.core.service.frames.codec import FrameError
from openqmail.core.service.frames.submission.messages import (
    GONE,
    KINDS,
    Abort,
    Accepted,
    Begin,
    Bye,
    Chunk,
    Failed,
    Finish,
    Open,
    Opened,
    Submit,
    ToServer,
    Wrote,
)
from openqmail.core.values import Body, Envelope, MessageId, OpenqmailError, TemporaryFailure
from openqmail.core.values.address import may_be_queued

MOST = 16 << 20
"""Bytes of bodies that wait for the disk, beyond which no more is read."""


class SubmissionServer:
    """Asks `submission` for each of its clients; needs a running loop."""

    def __init__(self, submission: Submission) -> None:
        self.submission = submission
        self.leaving = False
        self._talks: set[_Talk] = set()
        self._held = 0
        self._paused = False
        self._quiet: Future[None] | None = None

    def serve(self, connection: socket.socket) -> None:
        talk = _Talk(self, connection)
        self._talks.add(talk)
        if self.leaving:
            self._end(talk)
        elif self._paused:
            talk.channel.pause()

    async def leave(self, seconds: float) -> None:
        """Take nothing new, end what was begun, for so long; then say so and close."""
        self.leaving = True
        if self._busy():
            self._quiet = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._quiet,), timeout=seconds)
        for talk in list(self._talks):
            self._end(talk)

    def hold(self, size: int) -> None:
        """So many bytes more wait for the disk."""
        self._held += size
        if self._held > MOST and not self._paused:
            self._paused = True
            for talk in self._talks:
                talk.channel.pause()

    def settled(self, size: int) -> None:
        """So many bytes are the disk's, or nobody's."""
        self._held -= size
        if self._paused and self._held <= MOST:
            self._paused = False
            for talk in list(self._talks):
                talk.channel.resume()
        if self.leaving:
            self.look()

    def look(self) -> None:
        """Is all that was begun at its end?"""
        if self._quiet is not None and not self._quiet.done() and not self._busy():
            self._quiet.set_result(None)

    def gone(self, talk: "_Talk") -> None:
        self._talks.discard(talk)
        self.look()

    def _busy(self) -> bool:
        return any(talk.owed or talk.bodies for talk in self._talks)

    def _end(self, talk: "_Talk") -> None:
        self._talks.discard(talk)
        talk.leave()


class _Talk:
    """One connection of a server; `owed`: answers of the queue that are not there yet, `bodies`: the
    large ones that have begun, None where one has failed and more of it is on its way."""

    def __init__(self, server: SubmissionServer, connection: socket.socket) -> None:
        self._server = server
        self.owed = 0
        self.bodies: dict[int, LargeBody | None] = {}
        self.channel = Channel(connection, ToServer, self._received, self._lost, descriptors=False)

    def leave(self) -> None:
        self._abort_all()
        if not self.owed:  # else that word would not be true
            self.channel.send(Bye())
        self.channel.close()

    def _received(self, message: Any, descriptors: list[int]) -> None:
        if self.channel.full:
            raise FrameError("does not read its answers")
        _ACTIONS[type(message)](self, message)

    def _on_submit(self, message: Submit) -> None:
        if not self._server.leaving:
            self._submit(message.id, message.envelope, message.body, len(message.body), message.hold)

    def _on_begin(self, message: Begin) -> None:
        if message.id in self.bodies:
            raise FrameError("begins the same body twice")
        if not self._server.leaving:
            self.bodies[message.id] = self._server.submission.large()

    def _on_chunk(self, message: Chunk) -> None:
        body = self._body(message.id)
        if body is not None:
            size = len(message.data)
            self._server.hold(size)
            body.write(message.data).add_done_callback(partial(self._wrote, message.id, size))

    def _on_finish(self, message: Finish) -> None:
        body = self._body(message.id)
        self.bodies.pop(message.id, None)
        if body is not None:
            self._submit(message.id, message.envelope, body, 0, message.hold)
        self._server.look()

    def _on_abort(self, message: Abort) -> None:
        body = self.bodies.pop(message.id, None)
        if body is not None:
            body.abort()
        self._server.look()

    def _body(self, id: int) -> LargeBody | None:
        if id not in self.bodies and not self._server.leaving:
            raise FrameError("a part of a body that was not begun")
        return self.bodies.get(id)

    def _on_open(self, message: Open) -> None:
        body = self._body(message.id)
        if body is not None:
            body.so_far().add_done_callback(partial(self._opened, message.id))

    def _opened(self, id: int, done: "Future[Body]") -> None:
        """A descriptor of the message's own file, which holds nothing else, and for reading alone."""
        error = _error_of(done)
        try:
            if error is not None:
                raise error
            size, _, _, descriptors = pack(done.result())
        except Exception as failure:  # the disk's, the queue's, or a fault of ours
            self.channel.send(_failed(id, failure))
            return
        if descriptors:
            self.channel.send(Opened(id, size), descriptors)
        else:
            self.channel.send(_failed(id, TemporaryFailure("the body is in no file of its own")))

    def _submit(self, id: int, envelope: Envelope, body: bytes | LargeBody, size: int, hold: str) -> None:
        # A front end checks what strangers say; should one be a stranger's now, the queue's files hold.
        if not all(map(may_be_queued, (envelope.sender, *[one.address for one in envelope.recipients]))):
            raise FrameError("an address with a NUL or a line end, or longer than any is")
        self.owed += 1
        self._server.hold(size)
        answer = self._server.submission.submit(envelope, body, hold)
        answer.add_done_callback(partial(self._answered, id, size))

    def _answered(self, id: int, size: int, done: "Future[MessageId]") -> None:
        self.owed -= 1
        error = _error_of(done)
        self.channel.send(Accepted(id, done.result()) if error is None else _failed(id, error))
        self._server.settled(size)

    def _wrote(self, id: int, size: int, done: "Future[None]") -> None:
        error = _error_of(done)
        body = self.bodies.get(id)
        if error is None:
            self.channel.send(Wrote(id))
        elif body is not None:
            self.bodies[id] = None
            body.abort()
            self.channel.send(_failed(id, error))
        self._server.settled(size)

    def _lost(self, error: Exception | None) -> None:
        self._abort_all()
        self._server.gone(self)

    def _abort_all(self) -> None:
        bodies, self.bodies = self.bodies, {}
        for body in bodies.values():
            if body is not None:
                body.abort()


_ACTIONS: dict[type, Callable[[_Talk, Any], None]] = {
    Submit: _Talk._on_submit,
    Begin: _Talk._on_begin,
    Chunk: _Talk._on_chunk,
    Finish: _Talk._on_finish,
    Open: _Talk._on_open,
    Abort: _Talk._on_abort,
}


def _error_of(done: "Future[Any]") -> BaseException | None:
    return TemporaryFailure(GONE) if done.cancelled() else done.exception()


def _failed(id: int, error: BaseException) -> Failed:
    kind = next((place for place in (1, 2) if isinstance(error, KINDS[place])), 0)
    text = str(error) if isinstance(error, OpenqmailError) else f"the queue is at fault: {error!r}"
    return Failed(id, kind, text.encode("utf-8", "backslashreplace").decode())
