"""The serving end of a port of deliveries: connections in, answers out as futures are done.

Several connections may be open: those of a client that has been replaced end what they have.  A
client that is gone gets no answers; what it has asked for goes on to its end.  One that does
not keep to the form is cut off, and only that one.
"""

import asyncio
import socket
from abc import ABC, abstractmethod
from asyncio import Future
from collections.abc import Callable
from typing import Any, TypeVar

from openqmail.core.service.frames.channel import Channel

T = TypeVar("T")


class DeliveryServer(ABC):
    """`messages`: the union of what clients ask."""

    def __init__(self, messages: Any) -> None:
        self.active = 0
        """Deliveries (and syncs) under way."""
        self.on_end: Callable[[], None] = _nothing
        """Called whenever it becomes idle."""
        self.on_gone: Callable[[], None] = _nothing
        """Called when nobody is there any more to be answered."""
        self._loop = asyncio.get_running_loop()
        self._messages = messages
        self._channels: set[Channel] = set()

    def serve(self, connection: socket.socket) -> None:
        """Answer what is asked there, until it is closed."""

        def received(message: Any, descriptors: list[int]) -> None:
            self._take(channel, message, descriptors)

        def lost(_: Exception | None) -> None:
            self._channels.discard(channel)
            if not self._channels:
                self.on_gone()
            self._look()

        channel = Channel(connection, self._messages, received, lost)
        self._channels.add(channel)

    @property
    def idle(self) -> bool:
        """Nothing is under way, and nobody is there to ask for more."""
        return not self.active and not self._channels

    def close(self) -> None:
        """Say what is to be said still, and hear no more."""
        for channel in self._channels:
            channel.close()
        self._channels.clear()
        self._look()

    @abstractmethod
    def _take(self, channel: Channel, message: Any, descriptors: list[int]) -> None:
        """Do what is asked.  Raises FrameError for what cannot be meant, its descriptors closed."""

    def _begin(self, call: "Callable[[T], Future[Any]]", argument: T) -> "Future[Any]":
        """Ask the real thing, which promises never to raise: a fault of ours is a future's, too."""
        self.active += 1
        try:
            return call(argument)
        except Exception as error:
            future: Future[Any] = self._loop.create_future()
            future.set_exception(error)
            return future

    def _end(self, done: "Future[T]") -> T | None:
        """What became of it; None for a fault, which the loop is told of."""
        self.active -= 1
        if not self.active:
            self._look()
        error = None if done.cancelled() else done.exception()
        if error is not None:
            self._loop.call_exception_handler({"message": "a delivery broke", "exception": error})
        return None if error is not None or done.cancelled() else done.result()

    def _look(self) -> None:
        if self.idle:
            self.on_end()


def _nothing() -> None:
    """Nobody asked to be told."""
