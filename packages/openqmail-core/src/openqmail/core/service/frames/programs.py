"""The port `Programs` between a front end and a worker that runs them, which the spawner makes when
the first is wanted.

What is to be run goes to the newest spawner's worker; an older one ends what it has.  When a worker is
lost, nobody knows what became of its programs, and the result says so.
"""

import asyncio
import socket
from asyncio import Future
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from openqmail.core.hooks.body import MessageBody, Rest, without
from openqmail.core.ports import ProgramResult, Programs
from openqmail.core.service.frames.bodies import DescriptorBody, pack, release, unpack
from openqmail.core.service.frames.channel import Channel
from openqmail.core.service.frames.codec import FrameError, understand
from openqmail.core.service.frames.rights import close_all
from openqmail.core.service.frames.serving import DeliveryServer
from openqmail.core.service.frames.spawning import Refused, Spawner, Started
from openqmail.core.values import Body, BytesBody

LOST = ProgramResult(None, why="was lost with the process that ran it")
ENDED = ProgramResult(None, why="is not run: this process ends")
BROKE = ProgramResult(None, why="could not be run: a fault of this service")


class Run(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """`size`, `digest`, `body` and a descriptor as `bodies` says: its input."""

    id: int
    argv: tuple[bytes, ...]
    env: tuple[tuple[bytes, bytes], ...] | None
    timeout: float
    size: int
    digest: bytes
    body: bytes | None
    skip: int = 0
    """Bytes of its beginning that are not meant."""


class Ran(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """A `ProgramResult`."""

    id: int
    code: int | None
    output: bytes
    errors: bytes
    why: str


understand(Run, Ran)


class ProgramsServer(DeliveryServer):
    """A worker's side."""

    def __init__(self, programs: Programs) -> None:
        super().__init__(Run)
        self._programs = programs

    def _take(self, channel: Channel, message: Run, descriptors: list[int]) -> None:
        body = unpack(message.size, message.digest, message.body, descriptors)

        def run(argv: tuple[bytes, ...]) -> "Future[ProgramResult]":
            env = None if message.env is None else dict(message.env)
            given = without(body, message.skip) if body.size else b""
            return self._programs.run(argv, given, env, message.timeout)

        self._begin(run, message.argv).add_done_callback(partial(self._ran, channel, message.id, body))

    def _ran(self, channel: Channel, number: int, body: Body, done: "Future[ProgramResult]") -> None:
        release(body)
        result = self._end(done) or BROKE
        channel.send(Ran(number, result.code, result.output, result.errors, result.why))


class ProgramsClient:
    """Serves the port; needs a running loop."""

    def __init__(self) -> None:
        self._worker: _Worker | None = None
        self._older: set[_Worker] = set()
        self._waiting: list[tuple[Run, tuple[int, ...], Future[ProgramResult]]] = []
        self._last = 0
        self._closed = False

    def attach(self, connection: socket.socket) -> None:
        """A spawner: from now on its worker is asked."""
        if self._closed:
            connection.close()
            return
        older, self._worker = self._worker, _Worker(connection, self._gone)
        if older is not None:
            self._older.add(older)
            older.leave()
        waiting, self._waiting = self._waiting, []
        for asked in waiting:
            self._worker.run(*asked)

    def run(
        self,
        argv: Sequence[bytes],
        stdin: bytes | Body = b"",
        env: Mapping[bytes, bytes] | None = None,
        timeout: float = 30.0,
    ) -> "Future[ProgramResult]":
        answer: Future[ProgramResult] = asyncio.get_running_loop().create_future()
        if self._closed:
            answer.set_result(ENDED)
            return answer
        body: Body = BytesBody(stdin) if isinstance(stdin, bytes) else stdin
        if isinstance(body, MessageBody):
            body = body.base
        skip = 0
        if isinstance(body, Rest) and isinstance(body.base, DescriptorBody):
            skip, body = body.skip, body.base
        try:
            size, digest, data, descriptors = pack(body)
        except (Exception, SystemExit) as error:  # a hook may have made the body
            why = f"cannot be given its input: {str(error) or repr(error)}"
            answer.set_result(ProgramResult(None, why=why))
            return answer
        self._last += 1
        given = None if env is None else tuple(env.items())
        asked = Run(self._last, tuple(argv), given, timeout, size, digest, data, skip)
        if self._worker is None:
            self._waiting.append((asked, descriptors, answer))
        else:
            self._worker.run(asked, descriptors, answer)
        return answer

    def close(self) -> None:
        """Nothing more is run; what runs is killed."""
        self._closed = True
        for _, descriptors, answer in self._waiting:
            close_all(descriptors)
            _settle(answer, ENDED)
        self._waiting.clear()
        for worker in [self._worker, *self._older]:
            if worker is not None:
                worker.end(ENDED)

    def _gone(self, worker: "_Worker") -> None:
        self._older.discard(worker)
        if self._worker is worker:
            self._worker = None


class _Worker:
    """The worker of one spawner, asked for when something is to be run; `gone` is told when it is of no
    more use."""

    def __init__(self, connection: socket.socket, gone: Any) -> None:
        self._gone = gone
        self._spawner = Spawner(connection, lambda _: self.end(LOST))
        self._channel: Channel | None = None
        self._asked = False
        self._leaving = False
        self._waiting: list[tuple[Run, tuple[int, ...]]] = []
        self._under_way: dict[int, Future[ProgramResult]] = {}

    def run(self, asked: Run, descriptors: tuple[int, ...], answer: "Future[ProgramResult]") -> None:
        self._under_way[asked.id] = answer
        if self._channel is not None:
            self._send(self._channel, asked, descriptors)
            return
        self._waiting.append((asked, descriptors))
        if not self._asked:
            self._asked = True
            self._spawner.programs(self._started)

    def leave(self) -> None:
        """Nothing new comes: end when nothing is under way."""
        self._leaving = True
        if not self._under_way:
            self.end(LOST)

    def end(self, result: ProgramResult) -> None:
        self._spawner.close()
        if self._channel is not None:
            self._channel.close()
        self._fail(result)
        self._gone(self)

    def _started(self, answer: "Started | Refused | None", connection: socket.socket | None) -> None:
        self._asked = False
        if connection is None:
            why = answer.text.decode("utf-8", "replace").strip() if isinstance(answer, Refused) else LOST.why
            self._fail(ProgramResult(None, why=why))
            return
        self._channel = Channel(connection, Ran, self._received, self._lost, descriptors=False)
        waiting, self._waiting = self._waiting, []
        for asked, descriptors in waiting:
            self._send(self._channel, asked, descriptors)

    def _send(self, channel: Channel, asked: Run, descriptors: tuple[int, ...]) -> None:
        try:
            channel.send(asked, descriptors)
        except FrameError as error:
            _settle(self._under_way.pop(asked.id), ProgramResult(None, why=f"cannot be run: {error}"))

    def _received(self, message: Ran, descriptors: list[int]) -> None:
        answer = self._under_way.pop(message.id, None)
        if answer is None:
            raise FrameError("not an answer to what was asked")
        _settle(answer, ProgramResult(message.code, message.output, message.errors, message.why))
        if self._leaving and not self._under_way:
            self.end(LOST)

    def _lost(self, _: Exception | None) -> None:
        """The worker is gone; the next is asked for when something is to be run."""
        self._channel = None
        self._fail(LOST)
        if self._leaving:
            self.end(LOST)

    def _fail(self, result: ProgramResult) -> None:
        for _, descriptors in self._waiting:
            close_all(descriptors)
        self._waiting.clear()
        under_way, self._under_way = self._under_way, {}
        for answer in under_way.values():
            _settle(answer, result)


def _settle(answer: "Future[ProgramResult]", result: ProgramResult) -> None:
    if not answer.done():
        answer.set_result(result)
