"""The port LockoutAdmin as frames between send, which answers people, and gate, which locks out."""

import asyncio
import socket
from asyncio import Future
from collections.abc import Sequence
from typing import Annotated

import msgspec

from openqmail.core.gate import LocalGate
from openqmail.core.ports.lockouts import LockedNow
from openqmail.core.service.frames.channel import Channel
from openqmail.core.service.frames.codec import FrameError, understand
from openqmail.core.values import TemporaryFailure

PATIENCE = 5.0
"""Seconds that gate has for an answer."""

NAMES = 1000
"""That one question may have."""


class AskLocked(msgspec.Struct, frozen=True, array_like=True, tag=1):
    id: int


class Unlock(msgspec.Struct, frozen=True, array_like=True, tag=2):
    id: int
    names: Annotated[tuple[str, ...], msgspec.Meta(max_length=NAMES)]


ToGate = AskLocked | Unlock


class Locked(msgspec.Struct, frozen=True, array_like=True, tag=1):
    id: int
    found: LockedNow


class Lifted(msgspec.Struct, frozen=True, array_like=True, tag=2):
    id: int
    counts: tuple[int, ...]


FromGate = Locked | Lifted

understand(ToGate, FromGate)


class LockoutsClient:
    """Serves the port; needs a running loop."""

    def __init__(self) -> None:
        self._channel: Channel | None = None
        self._asked: dict[int, Future[FromGate]] = {}
        self._last = 0

    def attach(self, connection: socket.socket) -> None:
        """From now on ask this one; what the one before has not answered, it does not."""
        self.close()
        self._channel = Channel(connection, FromGate, self._received, self._lost, descriptors=False)

    async def locked(self) -> LockedNow:
        answer = await self._answer(AskLocked(self._next()))
        assert isinstance(answer, Locked)
        return answer.found

    async def unlock(self, names: Sequence[str]) -> tuple[int, ...]:
        answer = await self._answer(Unlock(self._next(), tuple(names)))
        assert isinstance(answer, Lifted)
        return answer.counts

    def close(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()
        self._lost(None)

    def _next(self) -> int:
        self._last += 1
        return self._last

    async def _answer(self, question: ToGate) -> FromGate:
        if self._channel is None:
            raise _absent()
        answer: Future[FromGate] = asyncio.get_running_loop().create_future()
        self._asked[question.id] = answer
        self._channel.send(question)
        try:
            async with asyncio.timeout(PATIENCE):
                return await answer
        except TimeoutError:
            raise _absent() from None
        finally:
            self._asked.pop(question.id, None)

    def _received(self, message: FromGate, descriptors: list[int]) -> None:
        if not 0 < message.id <= self._last:
            raise FrameError("an answer to nothing")
        answer = self._asked.get(message.id)
        if answer is not None and not answer.done():
            answer.set_result(message)

    def _lost(self, _: Exception | None) -> None:
        self._channel = None
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(_absent())


class LockoutsServer:
    """Asks `gate` for each of its clients; needs a running loop."""

    def __init__(self, gate: LocalGate) -> None:
        self._gate = gate
        self._channels: set[Channel] = set()

    def serve(self, connection: socket.socket) -> None:
        def received(message: ToGate, descriptors: list[int]) -> None:
            if channel.full:
                raise FrameError("does not read its answers")
            if isinstance(message, AskLocked):
                channel.send(Locked(message.id, self._gate.locked_now()))
            else:
                channel.send(Lifted(message.id, self._gate.lift(message.names)))

        def lost(_: Exception | None) -> None:
            self._channels.discard(channel)

        channel = Channel(connection, ToGate, received, lost, descriptors=False)
        self._channels.add(channel)

    def close(self) -> None:
        for channel in self._channels:
            channel.close()
        self._channels.clear()


def _absent() -> TemporaryFailure:
    return TemporaryFailure("the process gate does not answer; try again, or restart the service")
