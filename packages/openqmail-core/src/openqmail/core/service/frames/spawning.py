"""What a client of `local` says to the spawner, and the client's side of it.

The spawner itself finds out whose a local part is, in users/cdb: nobody can make it start a
worker for a user of their choice.  It answers with the worker's connection and as whom it
runs, or why there is none, as the text of a deferral.  When a client goes, the spawner ends the
workers that it made for it.
"""

import os
import socket
import stat
from collections.abc import Callable

import msgspec

from openqmail.core.service.frames.channel import Channel
from openqmail.core.service.frames.codec import FrameError, understand
from openqmail.core.service.frames.rights import close_all


class Start(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """A worker, please, for the user who has this local part."""

    id: int
    local: bytes


class Kill(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """The worker that was asked for by this id does not answer: end it at once."""

    id: int


class StartPrograms(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """A worker, please, that runs the programs of hooks; `service/frames/programs.py` is what it is told."""

    id: int


class Started(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """Comes with one descriptor: the worker's connection."""

    id: int
    uid: int
    gid: int


class Refused(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """`text`: of a deferral, with its newline."""

    id: int
    text: bytes


ToSpawner = Start | Kill | StartPrograms
FromSpawner = Started | Refused

understand(ToSpawner, FromSpawner)

Then = Callable[["Started | Refused | None", "socket.socket | None"], None]
"""Takes the answer and the connection; None and None when the spawner was lost."""


class Spawner:
    """A connection to the spawner; `lost` is told when it has ended by itself."""

    def __init__(self, connection: socket.socket, lost: "Callable[[Spawner], None]") -> None:
        self._told = lost
        self._starts: dict[int, Then] = {}
        self._last = 0
        self._channel = Channel(connection, FromSpawner, self._received, self._lost)

    def start(self, local: bytes, then: Then) -> int:
        """The id by which the worker is known to the spawner."""
        self._last += 1
        self._starts[self._last] = then
        self._channel.send(Start(self._last, local))
        return self._last

    def programs(self, then: Then) -> None:
        """A worker that runs programs."""
        self._last += 1
        self._starts[self._last] = then
        self._channel.send(StartPrograms(self._last))

    def kill(self, id: int) -> None:
        self._channel.send(Kill(id))

    def close(self) -> None:
        """Nobody waits for an answer any more, and workers that came from there may be killed."""
        self._channel.close()
        self._starts.clear()

    def _received(self, message: FromSpawner, descriptors: list[int]) -> None:
        connection = _connection(descriptors)
        asked = message.id in self._starts
        if not asked or (connection is not None) != isinstance(message, Started):
            if connection is not None:
                connection.close()
            raise FrameError("not an answer to what was asked")
        self._starts.pop(message.id)(message, connection)

    def _lost(self, _: Exception | None) -> None:
        self._told(self)
        starts, self._starts = self._starts, {}
        for then in starts.values():
            then(None, None)


def _connection(descriptors: list[int]) -> socket.socket | None:
    """The one socket that came; whatever else came is closed."""
    if len(descriptors) == 1 and stat.S_ISSOCK(os.fstat(descriptors[0]).st_mode):
        return socket.socket(fileno=descriptors[0])
    close_all(descriptors)
    return None
