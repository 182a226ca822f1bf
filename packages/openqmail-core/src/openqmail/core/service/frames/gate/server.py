"""The gate's side: answers its clients, and remembers what each has leased.

What a client that is gone held is given back.
"""

import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from openqmail.core.gate import LocalGate
from openqmail.core.service.frames.channel import Channel
from openqmail.core.service.frames.codec import FrameError
from openqmail.core.service.frames.gate.exchanges import ExchangesServed, ToGate
from openqmail.core.service.frames.gate.messages import (
    Answer,
    Held,
    Lease,
    Leased,
    Recall,
    Recalled,
    Refund,
    Release,
    Spend,
    ToServer,
)
from openqmail.core.service.frames.gate.recalls import Recalls, Want

LARGEST = 16 * 1024
"""Bytes of a frame to a gate: a client's longest word in a login, and what else there is to it."""

NAMES = 10_000
"""Counters of which one client may have leases at a time, and leases that it may wait for."""


class GateServer:
    """Asks `gate` for each of its clients; needs a running loop.  `alert` is told of one that is cut off."""

    def __init__(self, gate: LocalGate, alert: Callable[[str], None] = lambda _: None) -> None:
        self.gate = gate
        self.alert = alert
        self.talks: set[_Talk] = set()
        self.recalls = Recalls(gate, self.talks)

    def serve(self, connection: socket.socket) -> None:
        self.talks.add(_Talk(self, connection))

    def tell_mechanisms(self) -> None:
        """To be called when they may have changed."""
        for talk in list(self.talks):
            talk.exchanges.tell_mechanisms()

    def close(self) -> None:
        """End all connections."""
        for talk in list(self.talks):
            talk.close()


class _Talk:
    """One connection of a server, and what is leased by it."""

    def __init__(self, server: GateServer, connection: socket.socket) -> None:
        self._server = server
        self._gate, self._recalls = server.gate, server.recalls
        self._leased: dict[bytes, int] = {}
        self._waiting = 0
        self._channel = Channel(
            connection, ToServer, self._received, self._lost, largest=LARGEST, descriptors=False
        )
        self.exchanges = ExchangesServed(server.gate, self._channel.send)
        self.exchanges.tell_mechanisms()

    def close(self) -> None:
        self._channel.close()
        self._lost(None)

    def recall(self, counter: bytes) -> None:
        self._channel.send(Recall(counter))

    def _received(self, message: Any, descriptors: list[int]) -> None:
        if self._channel.full:
            raise FrameError("does not read its answers")
        if isinstance(message, ToGate):
            self.exchanges.received(message)
            return
        match message:
            case Lease(id, counter, count, ahead):
                self._lease(id, counter, count, ahead)
            case Spend(id, rate, key, count, ahead):
                yes = self._gate.charge(rate, key, count)
                self._channel.send(Answer(id, yes, self._gate.advance(rate, key, ahead) if ahead else 0))
            case Refund(rate, key, count):
                self._gate.refund(rate, key, count)
            case Release(counter, count):
                self._give_back(counter, count)
            case Recalled(counter):
                if not self._recalls.recalled(self, counter):
                    raise FrameError("answers what nobody has asked")
            case Held(counter, count):
                if not self._has_room(counter):
                    raise FrameError("holds too many counters")
                self._gate.hold(counter, count)
                self._leased[counter] = self._leased.get(counter, 0) + count
                self._recalls.holds(self, counter)

    def _lease(self, id: int, counter: bytes, count: int, ahead: int) -> None:
        if self._waiting >= NAMES:
            raise FrameError("asks for too much at once")
        self._waiting += 1
        give = partial(self._give, id, counter)
        if self._has_room(counter):
            self._recalls.want(Want(self, counter, count, ahead, give))
        else:
            give(0)

    def _give(self, id: int, counter: bytes, count: int) -> None:
        self._waiting -= 1
        if count:
            self._leased[counter] = self._leased.get(counter, 0) + count
        self._channel.send(Leased(id, count))

    def _has_room(self, counter: bytes) -> bool:
        return counter in self._leased or len(self._leased) < NAMES

    def _give_back(self, counter: bytes, count: int) -> None:
        left = self._leased.get(counter, 0) - count
        if left < 0:
            raise FrameError("gives back more than it has")
        self._gate.release(counter, count)
        if left:
            self._leased[counter] = left
        else:
            del self._leased[counter]
        self._recalls.released(self, counter, left)

    def _lost(self, error: Exception | None) -> None:
        if isinstance(error, FrameError):
            self._server.alert(f"gate: a front end is cut off: {error}")
        self.exchanges.lost()
        self._server.talks.discard(self)
        leased, self._leased = self._leased, {}
        for counter, count in leased.items():
            self._gate.release(counter, count)
        self._recalls.lost(self)
