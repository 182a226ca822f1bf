"""The queue of a home that no service serves.

Looking at it changes nothing and needs no lock.  A verb takes the home's lock, as a service
would, opens the queue, acts, and leaves it settled in qmail's layout; nothing is delivered.
"""

import asyncio
import os
from asyncio import Future
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import closing
from typing import TypeVar

import msgspec

from openqmail.core.commands.client import Incomplete, Refused
from openqmail.core.control.accounts import as_send
from openqmail.core.control.home import Home
from openqmail.core.control.reader import read_settings
from openqmail.core.control.settings import Settings
from openqmail.core.ports import Acted, QueueAdmin
from openqmail.core.queue import LocalStore, SendMutex, read, read_body
from openqmail.core.queue.store import QueueStore
from openqmail.core.send import Routes, StoredQueue, summarize
from openqmail.core.service.lock import HomeLock, Served
from openqmail.core.values import MessageId, OpenqmailError, TemporaryFailure
from openqmail.core.world import PosixDisk, SystemClock

_SLICE = 256

LONG_AGO = (1, 1)
"""When what is to be tried at the next start was due."""

T = TypeVar("T")


def messages(home: Home, numbers: Sequence[int] = ()) -> Iterator[bytes]:
    """JSON lines as a running service tells them, oldest first.  Raises QueueDamaged."""
    routes, now, encoder = Routes(read_settings(home)), SystemClock().now(), msgspec.json.Encoder()
    wanted = frozenset(numbers)
    some = []
    missed: list[str] = []

    def miss(number: int, why: str) -> None:
        if not wanted or number in wanted:
            missed.append(f"message {number} is left out: {why}")

    with as_send(home):
        for stored in read(os.fsencode(home.queue), missed=miss):
            if wanted and stored.id.number not in wanted:
                continue
            some.append(summarize(stored, routes, now))
            if len(some) == _SLICE:
                yield encoder.encode_lines(some)
                some.clear()
    yield encoder.encode_lines(some)
    if missed:
        raise Incomplete("; ".join(missed))


def show(home: Home, number: int) -> Iterator[bytes]:
    """A message as it is stored.  Raises Refused when there is none of that number, TemporaryFailure."""
    with as_send(home):
        body = read_body(os.fsencode(home.queue), number)
        if body is None:
            raise Refused(f"no message {number} in the queue")
        yield from body.chunks()


def act(home: Home, verb: str, numbers: Sequence[int], keys: Sequence[str] = (), **more: str) -> Acted:
    """Have a verb done on messages; durable when it returns.  `keys`: see `QueueAdmin`.

    Raises TemporaryFailure when somebody else is at work there, QueueDamaged, HomeError."""
    acted: Acted = _opened(home, lambda queue: getattr(queue, verb)(numbers, keys=keys, **more))[0]
    return acted


def flush(home: Home) -> int:
    """Have everything tried at the next start; how many messages that are.  Raises as `act`."""
    return _opened(home, lambda queue: queue.flush())[0]


def settle(home: Home) -> tuple[int, int, int]:
    """Move everything to qmail's layout: how many messages there are, how many of them are held, and
    how many could not be moved.

    Raises as `act`."""

    async def count(queue: QueueAdmin) -> tuple[int, int]:
        totals = queue.totals()
        return totals.messages, totals.held

    (messages, held), left = _opened(home, count)
    return messages, held, left


class _Nobody:
    """Whoever works on messages while no service runs: what is to be tried is tried at the start."""

    def __init__(self, store: QueueStore, waiting: Sequence[int]) -> None:
        self._store = store
        self._waiting = waiting

    def take(self, numbers: Iterable[int]) -> dict[int, Future[None]]:
        taken = {}
        for number in numbers:
            taken[number] = asyncio.get_running_loop().create_future()
            taken[number].set_result(None)
        return taken

    def put_back(self, message: MessageId, due: int | None) -> None:
        if due == 0:
            self._store.record(message.number, (), LONG_AGO, False)

    def resting(self) -> dict[bytes, int]:
        return {}

    def destination(self, domain: bytes) -> None:
        return None

    def flush(self) -> int:
        for number in self._waiting:
            self._store.record(number, (), LONG_AGO, False)
        return len(self._waiting)


def _opened(home: Home, verb: Callable[[QueueAdmin], Awaitable[T]]) -> tuple[T, int]:
    """What the verb gives, and how many messages could not be settled."""
    try:
        lock = HomeLock(home)
    except Served as error:
        raise TemporaryFailure(f"{error}, which does not answer yet; try again in a moment") from None
    try:
        settings = read_settings(home)
        with as_send(home), closing(SendMutex(os.fsencode(home.queue))):
            return asyncio.run(_act(home, settings, verb))
    finally:
        lock.release()


async def _act(home: Home, settings: Settings, verb: Callable[[QueueAdmin], Awaitable[T]]) -> tuple[T, int]:
    lost = list[OpenqmailError]()
    clock, folder = SystemClock(), os.fsencode(home.queue)
    store = LocalStore(PosixDisk(), clock, folder, lost.append, route=Routes(settings).place)
    waiting = [number for number, _ in store.open()]
    try:
        store.arrivals(lambda stored: waiting.append(stored.id.number))
        await store.settle()  # what lies in todo is taken in
        queue = StoredQueue(store, lambda: settings, _Nobody(store, waiting), clock, lambda event: None)
        result = await verb(queue)
        left = await store.settle()
    finally:
        await store.close()
    if lost:
        raise lost[0]
    return result, left
