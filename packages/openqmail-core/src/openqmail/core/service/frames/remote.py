"""The port `RemoteDelivery` between two processes: send asks, remote delivers.

A message goes out with the newest connection; older ones end what they have, and are then
closed.  Without a connection deliveries wait.  When one is lost, nobody knows what became of
what was under way there: it is deferred.
"""

import asyncio
import socket
from asyncio import Future
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from openqmail.core.ports import RemoteDelivery, RemoteJob
from openqmail.core.service.frames.bodies import pack, release, unpack
from openqmail.core.service.frames.channel import Channel
from openqmail.core.service.frames.codec import LARGEST, FrameError, understand
from openqmail.core.service.frames.results import (
    BROKE,
    LETTERS,
    OUTCOMES,
    REMOTE_LOST,
    STOPPED,
    TOO_LARGE,
    UNREADABLE,
    Letter,
)
from openqmail.core.service.frames.serving import DeliveryServer
from openqmail.core.values import MOST_WHY, Body, MessageId, OpenqmailError, Result

Answer = Future[tuple[Result, ...]]
Wire = tuple[Letter, bytes, bool, bool, str]
"""A `Result` as it crosses."""


class Deliver(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """A `RemoteJob`; `size`, `digest`, `body` and a descriptor as `bodies` says."""

    id: int
    delivery: int
    message: MessageId
    sender: bytes
    domain: bytes
    recipients: tuple[bytes, ...]
    smtputf8: bool
    size: int
    digest: bytes
    body: bytes | None
    envid: bytes
    ret: bytes
    dsn: tuple[tuple[bytes, bytes], ...]


class Results(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """A result for each recipient of a `Deliver`, in their order."""

    id: int
    results: tuple[Wire, ...]


understand(Deliver, Results)


class RemoteClient:
    """Serves the port."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._newest: _Asked | None = None
        self._all: set[_Asked] = set()
        self._waiting: deque[tuple[RemoteJob, Answer]] = deque()
        self._closed = False

    def attach(self, connection: socket.socket) -> None:
        """Ask there from now on."""
        if self._closed:
            connection.close()
            return
        older, self._newest = self._newest, _Asked(connection, self._gone)
        self._all.add(self._newest)
        if older is not None:
            older.leave()
        while self._waiting:
            self._newest.deliver(*self._waiting.popleft())

    def deliver(self, job: RemoteJob) -> Answer:
        answer: Answer = self._loop.create_future()
        if self._closed:
            _settle(answer, len(job.recipients), STOPPED)
        elif self._newest is None:
            self._waiting.append((job, answer))
        else:
            self._newest.deliver(job, answer)
        return answer

    async def close(self) -> None:
        """Ask nothing more; what is under way, or waits, is deferred."""
        self._closed = True
        for job, answer in self._waiting:
            _settle(answer, len(job.recipients), STOPPED)
        self._waiting.clear()
        for asked in list(self._all):
            asked.close()

    def _gone(self, asked: "_Asked") -> None:
        self._all.discard(asked)
        if self._newest is asked:
            self._newest = None


class _Asked:
    """One connection to who delivers; `gone` is told when it is of no more use."""

    def __init__(self, connection: socket.socket, gone: "Callable[[_Asked], None]") -> None:
        self._gone = gone
        self._under_way: dict[int, tuple[Answer, int]] = {}
        self._last = 0
        self._leaving = False
        self._channel = Channel(connection, Results, self._received, self._lost, descriptors=False)

    def deliver(self, job: RemoteJob, answer: Answer) -> None:
        count = len(job.recipients)
        try:
            size, digest, data, descriptors = pack(job.body)
        except (OSError, OpenqmailError):
            _settle(answer, count, UNREADABLE)
            return
        self._last += 1
        message = Deliver(
            self._last,
            job.delivery,
            job.message,
            job.sender,
            job.domain,
            job.recipients,
            job.smtputf8,
            size,
            digest,
            data,
            job.envid,
            job.ret,
            job.dsn,
        )
        try:
            self._channel.send(message, descriptors)
        except FrameError:
            _settle(answer, count, TOO_LARGE)
            return
        self._under_way[self._last] = answer, count

    def leave(self) -> None:
        """End what is under way, then close."""
        self._leaving = True
        if not self._under_way:
            self.close()

    def close(self) -> None:
        self._channel.close()
        self._end(STOPPED)

    def _received(self, message: Results, _: list[int]) -> None:
        answer, count = self._under_way.get(message.id, (None, 0))
        if answer is None or len(message.results) != count:
            raise FrameError("results of a delivery that was not asked for")
        del self._under_way[message.id]
        if not answer.done():
            answer.set_result(
                tuple(
                    [
                        Result(OUTCOMES[letter], text, host, dsn, why)
                        for letter, text, host, dsn, why in message.results
                    ]
                )
            )
        if self._leaving and not self._under_way:
            self.close()

    def _lost(self, _: Exception | None) -> None:
        self._end(REMOTE_LOST)

    def _end(self, result: Result) -> None:
        self._gone(self)
        for answer, count in self._under_way.values():
            _settle(answer, count, result)
        self._under_way.clear()


class RemoteServer(DeliveryServer):
    """Hands what is asked to who can do it."""

    def __init__(self, remote: RemoteDelivery) -> None:
        super().__init__(Deliver)
        self._remote = remote

    def _take(self, channel: Channel, message: Deliver, descriptors: list[int]) -> None:
        body = unpack(message.size, message.digest, message.body, descriptors)
        job = RemoteJob(
            message.delivery,
            message.message,
            message.sender,
            message.domain,
            message.recipients,
            body,
            message.smtputf8,
            message.envid,
            message.ret,
            message.dsn,
        )
        answer = partial(self._answer, channel, message.id, len(message.recipients), body)
        future = self._begin(self._remote.deliver, job)
        if future.done():
            answer(future)
        else:
            future.add_done_callback(answer)

    def _answer(self, channel: Channel, number: int, count: int, body: Body, done: Answer) -> None:
        release(body)
        results = self._end(done) or (BROKE,) * count
        try:
            channel.send(Results(number, tuple([_wire(each, each.text) for each in results])))
        except FrameError:
            channel.send(Results(number, _shortened(results)))


def _settle(answer: Answer, count: int, result: Result) -> None:
    if not answer.done():
        answer.set_result((result,) * count)


def _shortened(results: Sequence[Result]) -> tuple[Wire, ...]:
    """Results that fit into a frame: what became of each is worth more than its words."""
    most = (LARGEST - 4 * MOST_WHY) // len(results) - 16
    return tuple([_wire(each, each.text[:most], told=not at) for at, each in enumerate(results)])


def _wire(result: Result, text: bytes, *, told: bool = True) -> Wire:
    return LETTERS[result.outcome], text, result.host, result.dsn, result.why[:MOST_WHY] if told else ""
