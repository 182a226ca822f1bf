"""The port LoginChecks as frames between gate and the spawner, and gate's side of it.

What is asked goes to the newest spawner; an older one ends what it has.  What a spawner that is lost has not
answered counts as a program that could not be run.
"""

import asyncio
import socket
from asyncio import Future

import msgspec

from openqmail.core.control.smtpauth import Rehash
from openqmail.core.ports.logins import Program
from openqmail.core.sasl.secret import Hidden
from openqmail.core.service.frames.channel import Channel
from openqmail.core.service.frames.codec import FrameError, understand

LARGEST = 16 * 1024
"""Bytes of a frame to the spawner."""


class Check(Hidden, frozen=True, array_like=True, tag=1, gc=False):
    """Run this program; `told` is for its descriptor 3."""

    id: int
    program: Program
    told: bytes
    client: str


class Strengthen(Hidden, frozen=True, array_like=True, tag=2, gc=False):
    """A `Rehash`; it is not answered."""

    login: bytes
    old: str
    new: str


ToSpawner = Check | Strengthen


class Checked(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """`code` of its end; None where there is none."""

    id: int
    code: int | None


understand(ToSpawner, Checked)


class LoginChecksClient:
    """Serves the port; needs a running loop."""

    def __init__(self) -> None:
        self._newest: _Link | None = None
        self._last = 0

    def attach(self, connection: socket.socket) -> None:
        """From now on ask this one."""
        older, self._newest = self._newest, _Link(connection)
        if older is not None:
            older.leave()

    def check(self, program: Program, told: bytes, client: str) -> "Future[int | None]":
        answer: Future[int | None] = asyncio.get_running_loop().create_future()
        if self._newest is None or self._newest.closed:
            answer.set_result(None)
        else:
            self._last += 1
            self._newest.ask(Check(self._last, program, told, client), answer)
        return answer

    def strengthen(self, rehash: Rehash) -> None:
        if self._newest is not None:
            self._newest.say(Strengthen(rehash.login, rehash.old, rehash.new))

    def close(self) -> None:
        """What is unanswered stays so for good."""
        if self._newest is not None:
            self._newest.end()
            self._newest = None


class _Link:
    """The connection to one spawner."""

    def __init__(self, connection: socket.socket) -> None:
        self._asked: dict[int, Future[int | None]] = {}
        self._leaving = False
        self._channel = Channel(connection, Checked, self._received, self._lost, descriptors=False)

    @property
    def closed(self) -> bool:
        return self._channel.closed

    def ask(self, question: Check, answer: "Future[int | None]") -> None:
        self._asked[question.id] = answer
        self._channel.send(question)

    def say(self, message: Strengthen) -> None:
        self._channel.send(message)

    def leave(self) -> None:
        self._leaving = True
        if not self._asked:
            self.end()

    def end(self) -> None:
        self._channel.close()
        self._lost(None)

    def _received(self, message: Checked, descriptors: list[int]) -> None:
        answer = self._asked.pop(message.id, None)
        if answer is None:
            raise FrameError("an answer to nothing")
        if not answer.done():
            answer.set_result(message.code)
        if self._leaving and not self._asked:
            self.end()

    def _lost(self, _: Exception | None) -> None:
        asked, self._asked = self._asked, {}
        for answer in asked.values():
            if not answer.done():
                answer.set_result(None)
