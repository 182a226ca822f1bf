"""The port `QueueAdmin`: what an administrator does to queued messages.

A verb takes each message out of the deliveries' hands first, then acts on the queue, then puts
the message back.  It is done when it is durable; a verb that was asked for is done even when
nobody waits for the answer any more.  One verb at a time works on a message.  Numbers come
again: a verb acts on the message that had the number when it was asked for, and on no other.
"""

import asyncio
from asyncio import Future, Task
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Protocol

from openqmail.core import dsn
from openqmail.core.control.settings import Settings
from openqmail.core.log import Log, MessageEnded, Notice
from openqmail.core.ports import ABSENT, Acted, DestinationState, MessageSummary, Missed, QueueTotals
from openqmail.core.queue.store import Change, QueueStore, Stored
from openqmail.core.send.message import REPORT
from openqmail.core.send.routing import Routes
from openqmail.core.send.summary import summarize
from openqmail.core.send.wishes import wants_bounce
from openqmail.core.values import Body, MessageId, OpenqmailError, Outcome, TemporaryFailure
from openqmail.core.world import Clock

PATIENCE = 20.0
"""Seconds that a verb waits for deliveries that are under way before it answers `later`."""

_ENDING = "is left as it is: the service is ending; ask again"
_TAKEN = "is in the hands of another command; ask again"


class Deliveries(Protocol):
    """Whoever works on the messages (the sender; nobody, while no service runs)."""

    def take(self, numbers: Iterable[int]) -> dict[int, Future[None]]: ...

    def put_back(self, message: MessageId, due: int | None) -> None: ...

    def resting(self) -> dict[bytes, int]: ...

    def destination(self, domain: bytes) -> DestinationState | None: ...

    def flush(self) -> int: ...


Act = Callable[[Stored], Awaitable[int | None]]
"""A verb on one message: when that is due then; None: nothing more is to be done about it."""

Unfit = Callable[[Stored], str]
"""Why a message is none for a verb; empty when it is one."""


class StoredQueue:
    """`settings` tells the present ones; `patience` as PATIENCE."""

    def __init__(
        self,
        store: QueueStore,
        settings: Callable[[], Settings],
        deliveries: Deliveries,
        clock: Clock,
        log: Log,
        patience: float = PATIENCE,
    ) -> None:
        self._store = store
        self._settings = settings
        self._deliveries = deliveries
        self._clock = clock
        self._log = log
        self._patience = patience
        self._taking: dict[int, Future[None]] = {}
        self._seen: dict[int, tuple[MessageId, int | None]] = {}
        """Which message it was that has the number, and when it was due, when a verb was asked for."""
        self._tasks: dict[int, Task[Missed | None]] = {}
        self._ending = False

    # --- looking ------------------------------------------------------------------------

    def totals(self) -> QueueTotals:
        return self._store.totals()

    def messages(self, numbers: Iterable[int] | None = None) -> Iterator[MessageSummary | Missed]:
        routes, now = Routes(self._settings()), self._clock.now()
        resting = self._deliveries.resting()
        for number in list(self._store.numbers() if numbers is None else numbers):
            try:
                stored = self._store.load(number)
            except KeyError:  # not there, or delivered while we looked
                continue
            except OpenqmailError as error:
                yield Missed(number, f"is left out: {error}")
                continue
            yield summarize(stored, routes, now, resting, self._deliveries.destination)

    def content(self, number: int) -> Body | None:
        try:
            return self._store.body(number)
        except KeyError:
            return None

    def destination(self, domain: bytes) -> DestinationState | None:
        return self._deliveries.destination(domain)

    # --- the verbs ----------------------------------------------------------------------

    async def hold(self, numbers: Sequence[int], reason: str, keys: Sequence[str] = ()) -> Acted:
        return await self._each(numbers, keys, partial(self._hold, reason), _is_held_already)

    async def release(self, numbers: Sequence[int], keys: Sequence[str] = ()) -> Acted:
        return await self._each(numbers, keys, self._release, _is_not_held)

    async def retry(self, numbers: Sequence[int], keys: Sequence[str] = ()) -> Acted:
        return await self._each(numbers, keys, self._retry, _is_held)

    async def delete(self, numbers: Sequence[int], keys: Sequence[str] = ()) -> Acted:
        return await self._each(numbers, keys, self._delete)

    async def bounce(self, numbers: Sequence[int], text: str, keys: Sequence[str] = ()) -> Acted:
        report = text.encode("utf-8", "replace")[:REPORT].rstrip() + b"\n"
        return await self._each(numbers, keys, partial(self._bounce, Routes(self._settings()), report))

    async def flush(self) -> int:
        return self._deliveries.flush()

    async def _hold(self, reason: str, stored: Stored) -> None:
        await self._store.hold(stored.id.number, reason)
        self._say(stored, f"held by the administrator{reason and ': '}{reason}")

    async def _release(self, stored: Stored) -> int:
        await self._store.release(stored.id.number)
        self._say(stored, "released by the administrator")
        return stored.first_due

    async def _retry(self, stored: Stored) -> int:
        self._say(stored, "is tried now, as the administrator wants")
        return 0

    async def _delete(self, stored: Stored) -> None:
        await self._store.record(stored.id.number, (), (0, 0), True)
        self._say(stored, "deleted by the administrator")
        self._log(MessageEnded(stored.id.number))

    async def _bounce(self, routes: Routes, report: bytes, stored: Stored) -> int:
        number = stored.id.number
        changes = tuple(
            Change(position, Outcome.FAILURE, dsn.report(routes.of(stored, position).plain, report))
            if wants_bounce(stored.envelope, position)
            else Change(position, Outcome.SUCCESS, report)
            for position, progress in enumerate(stored.progress)
            if progress.outcome is None
        )
        if changes:
            await self._store.record(number, changes, (0, 0), False, bool(stored.channels))
        if stored.held is not None:
            await self._store.release(number)
        self._say(stored, "given back to its sender by the administrator")
        return 0

    def _say(self, stored: Stored, what: str) -> None:
        number = stored.id.number
        self._log(Notice(f"message {number} {what}", number))

    # --- take out, act, put back --------------------------------------------------------

    async def _each(
        self, numbers: Sequence[int], keys: Sequence[str], act: Act, unfit: Unfit = lambda stored: ""
    ) -> Acted:
        wanted = dict(zip(numbers, keys, strict=False))
        missed = {
            number: self._missed(number, wanted.get(number), unfit) for number in dict.fromkeys(numbers)
        }
        free = [number for number, why in missed.items() if why is None]
        self._taking |= self._deliveries.take(free)
        tasks = {number: asyncio.create_task(self._one(number, act)) for number in free}
        self._tasks |= tasks
        for number, task in tasks.items():
            task.add_done_callback(partial(self._forget, number))
        if tasks:
            await asyncio.wait(tasks.values(), timeout=self._patience)
        done, later = [], []
        for number, task in tasks.items():
            if not task.done():
                later.append(number)
            elif why := Missed(number, _ENDING, True) if task.cancelled() else task.result():
                missed[number] = why
            else:
                done.append(number)
        return Acted(tuple(done), tuple(why for why in missed.values() if why is not None), tuple(later))

    def _missed(self, number: int, key: str | None, unfit: Unfit) -> Missed | None:
        """Why nothing can be done about a message, as far as it can be told beforehand."""
        if self._ending:
            return Missed(number, _ENDING, True)
        if number in self._tasks:
            return Missed(number, _TAKEN, True)
        try:
            stored = self._store.load(number)
            if key is not None and stored.id.key.hex() != key:
                return Missed(number, ABSENT)
        except KeyError:
            return Missed(number, ABSENT)
        except (OSError, OpenqmailError) as error:
            return _left(number, error)
        self._seen[number] = stored.id, None if stored.held is not None else stored.first_due
        why = unfit(stored)
        return Missed(number, why) if why else None

    def _forget(self, number: int, task: "Task[Missed | None]") -> None:
        del self._tasks[number]
        self._taking.pop(number, None)
        self._seen.pop(number, None)

    async def _one(self, number: int, act: Act) -> Missed | None:
        """Take it, act on it, put it back; None when it is done, or why it is not."""
        await self._taking[number]
        del self._taking[number]
        message, due = self._seen.pop(number)  # as it was, should it not be readable now
        try:
            stored = self._store.load(number)
            if stored.id != message:
                raise KeyError(number)
            due = None if stored.held is not None else stored.first_due
            due = await act(stored)
        except KeyError:  # it has ended meanwhile; its number may be another's
            due = None
            return Missed(number, ABSENT)
        except (OSError, OpenqmailError) as error:
            return _left(number, error)
        finally:
            self._deliveries.put_back(message, due)
        return None

    async def close(self) -> None:
        """Begin nothing more; returns when what is being written is durable."""
        self._ending = True
        tasks = list(self._tasks.values())
        for future in self._taking.values():
            future.cancel()
        if tasks:
            await asyncio.wait(tasks)


def _left(number: int, error: OSError | OpenqmailError) -> Missed:
    """What a fault of the disk's or the queue's means for a verb."""
    why = error.strerror or error if isinstance(error, OSError) else error
    return Missed(number, f"is left as it is: {why}", isinstance(error, OSError | TemporaryFailure))


def _is_held(stored: Stored) -> str:
    return "" if stored.held is None else "is held; release it first"


def _is_held_already(stored: Stored) -> str:
    return "" if stored.held is None else "is held already"


def _is_not_held(stored: Stored) -> str:
    return "is not held" if stored.held is None else ""
