"""From some addresses to one connection: quickly, from the right address of ours.

The manner is RFC 8305's (section 5): the next address is tried when the one before has not connected
within a quarter of a second, or has failed; the first that connects wins and the others are
dropped.  Only addresses that are as good as each other run such a race: mail does not go to a
backup exchanger because the better one is far away.  A source address that cannot be bound
ends it: nothing is tried any more because of that, and what is under way may still win.
"""

import asyncio
import socket
import sys
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from itertools import takewhile
from typing import Any, Generic, TypeVar

import msgspec

from openqmail.core.remote.transport import Source, Stop

SECONDS_AHEAD = 0.25
"""RFC 8305 section 8, Connection Attempt Delay."""

MOST_AT_ONCE = 4

IP_BIND_ADDRESS_NO_PORT = 24
"""ip(7): the port is chosen when the other end is known, so the same one may serve many hosts."""

T = TypeVar("T")


class NotBound(Exception):
    """The address of ours that a source names cannot be bound; `reason` is the system's."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"{address}: {reason}")
        self.address = address
        self.reason = reason


class Won(msgspec.Struct, Generic[T], frozen=True):
    """What connected, to where; `left`: stops that did not fail, to be tried if that one is of no use."""

    made: T
    stop: Stop
    left: tuple[Stop, ...]


def equals(stops: Sequence[Stop]) -> tuple[Stop, ...]:
    """The first stops: all that are as good as the first."""
    return tuple(takewhile(lambda stop: stop.preference == stops[0].preference, stops))


async def race(
    stops: Sequence[Stop], dial: Callable[[Stop], Coroutine[Any, Any, T]], drop: Callable[[T], None]
) -> Won[T] | None:
    """The first stop that `dial` reaches; None when it raised OSError for each of them.

    What is made too late is handed to `drop`.  Raises NotBound when `dial` did and nothing that
    was under way got there."""
    if len(stops) == 1:  # no race, and no task for it
        try:
            return Won(await dial(stops[0]), stops[0], ())
        except OSError:
            return None
    waiting = deque(stops)
    running: dict[asyncio.Task[T], Stop] = {}
    failure: NotBound | None = None
    try:
        while waiting or running:
            if waiting and len(running) < MOST_AT_ONCE:
                stop = waiting.popleft()
                running[asyncio.ensure_future(dial(stop))] = stop
            more = waiting and len(running) < MOST_AT_ONCE
            await asyncio.wait(
                running, timeout=SECONDS_AHEAD if more else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in [task for task in running if task.done()]:
                stop = running.pop(task)
                try:
                    return Won(task.result(), stop, (*running.values(), *waiting))
                except OSError:
                    continue
                except NotBound as error:
                    failure = error
                    waiting.clear()
        if failure is not None:
            raise failure
        return None
    finally:
        for task in running:
            task.cancel()
            task.add_done_callback(partial(_end, drop))


def _end(drop: Callable[[T], None], task: "asyncio.Task[T]") -> None:
    if not task.cancelled() and task.exception() is None:
        drop(task.result())


async def connect(stop: Stop, source: Source, patience: float) -> socket.socket:
    """A socket that is connected to that stop, within `patience` seconds.  Raises OSError, NotBound."""
    made = bound(source.local(stop.address) or "", ":" in stop.address)
    try:
        async with asyncio.timeout(patience):
            await asyncio.get_running_loop().sock_connect(made, (stop.address, stop.port))
    except BaseException:
        made.close()
        raise
    return made


def bound(address: str, v6: bool) -> socket.socket:
    """A socket whose connection comes from that address of this host; from an empty one, as the system
    chooses.  Raises OSError when there can be no socket at all, NotBound."""
    family = socket.AF_INET6 if v6 else socket.AF_INET
    # asyncio sets TCP_NODELAY only where the protocol is named.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setblocking(False)
        if address:
            if sys.platform == "linux":
                made.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            made.bind((address, 0))
    except OSError as error:
        made.close()
        raise NotBound(address, error.strerror or str(error)) from None
    return made
