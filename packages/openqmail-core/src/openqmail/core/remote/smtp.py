"""The transport `smtp`: messages to other hosts by SMTP, over connections that are kept for a while.

A message goes to the first stop that accepts the connection, greets with 220 and answers EHLO
or HELO; what comes after that decides.  A kept connection that turns out to be dead before the
message has been sent is replaced by a new one, once.  Idle ones say QUIT after five seconds.
One timer watches all connections: it looks at their deadlines a few times in the shortest
time-out.
"""

import asyncio
from asyncio import Future
from collections.abc import Coroutine
from typing import Any

from openqmail.core.control.settings import Settings
from openqmail.core.log import Alert, Log
from openqmail.core.message.lines import Fitness, unfit, wire_form
from openqmail.core.ports import RemoteJob
from openqmail.core.remote import report
from openqmail.core.remote.connection import SECONDS_TO_LEAVE, Attempt, Connection
from openqmail.core.remote.pool import Pool
from openqmail.core.remote.transport import Stop
from openqmail.core.values import Body, OpenqmailError, Result

IDLE_SECONDS = 5.0
CLOSE_SECONDS = 2.0
MOST_IDLE = 200


class SmtpTransport:
    """Serves the protocol `Transport`."""

    def __init__(self, settings: Settings, log: Log) -> None:
        self._settings = settings
        self._log = log
        self._connections: set[Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._pool: Pool[Connection] = Pool(1, 1)
        self._timer: asyncio.TimerHandle | None = None
        self._closing: Future[None] | None = None
        self._size_pool()

    def deliver(self, job: RemoteJob, stops: tuple[Stop, ...]) -> "Future[tuple[Result, ...]]":
        future: Future[tuple[Result, ...]] = asyncio.get_running_loop().create_future()
        attempt = Attempt(job, stops, future)
        data = job.body.data
        if data is None:
            self._spawn(self._examine(attempt), attempt)
            return future
        reason = unfit(data)
        if reason is not None:
            attempt.finish_all(report.unfit(reason))
            return future
        attempt.eight_bit = not data.isascii()
        attempt.wire, attempt.size = wire_form(data)
        self._dispatch(attempt)
        return future

    def reconfigure(self, settings: Settings) -> None:
        self._settings = settings
        for connection in self._pool.empty():
            connection.leave()
        self._size_pool()

    async def close(self) -> None:
        loop = asyncio.get_running_loop()
        self._closing = loop.create_future()
        for task in list(self._opening):
            task.cancel()
        for connection in self._pool.empty():
            connection.leave()
        if self._connections:
            await asyncio.wait([self._closing], timeout=CLOSE_SECONDS)
        for connection in list(self._connections):
            connection.abort()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- opening connections ----------------------------------------------------------

    async def _examine(self, attempt: Attempt) -> None:
        """A large body is read once before it is sent: no peer is bothered with what SMTP cannot carry."""
        try:
            fitness, size = await asyncio.get_running_loop().run_in_executor(None, _examine, attempt.job.body)
        except (OSError, OpenqmailError):
            attempt.finish_all(report.UNREADABLE)
            return
        if fitness.reason is not None:
            attempt.finish_all(report.unfit(fitness.reason))
            return
        attempt.eight_bit = fitness.eight_bit
        attempt.size = size
        self._dispatch(attempt)

    def _dispatch(self, attempt: Attempt) -> None:
        if self._closing is not None:
            attempt.finish_all(report.STOPPED)
            return
        connection = self._pool.take(attempt.stops[0])
        if connection is None:
            self._spawn(self._open(attempt), attempt)
        else:
            attempt.stops = attempt.stops[1:]
            connection.start(attempt)

    async def _open(self, attempt: Attempt) -> None:
        """Connect to the first stop that lets us; the connection then goes on by itself."""
        settings = self._settings
        while attempt.stops:
            stop, *others = attempt.stops
            attempt.stops = tuple(others)
            connection = Connection(self, stop, settings.helohost, settings.timeoutremote, attempt)
            try:
                async with asyncio.timeout(settings.timeoutconnect):
                    await asyncio.get_running_loop().create_connection(
                        lambda made=connection: made,  # type: ignore[misc]
                        stop.address,
                        stop.port,
                    )
                return
            except OSError:  # TimeoutError is one
                if connection.opened:  # the last moment of the time allowed was enough
                    return
        attempt.finish_all(attempt.problem)

    def _spawn(self, work: Coroutine[Any, Any, None], attempt: Attempt) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._opening.add(task)

        def done(task: "asyncio.Task[None]") -> None:
            self._opening.discard(task)
            if task.cancelled():
                attempt.finish_all(report.STOPPED)
            elif (error := task.exception()) is not None:
                self._log(
                    Alert(f"delivery {attempt.job.delivery} met a fault in the transport smtp: {error!r}")
                )
                attempt.finish_all(report.FAULT)

        task.add_done_callback(done)

    # --- what connections tell (Owner) ------------------------------------------------

    def opened(self, connection: Connection) -> None:
        self._connections.add(connection)
        if self._timer is None:
            self._watch()

    def idle(self, connection: Connection) -> bool:
        if self._closing is not None or connection.helo != self._settings.helohost:
            return False
        if not self._pool.keep(connection):
            return False
        connection.deadline = asyncio.get_running_loop().time() + IDLE_SECONDS
        return True

    def try_again(self, attempt: Attempt) -> None:
        if self._closing is not None:
            attempt.finish_all(report.STOPPED)
        elif attempt.stops:
            self._spawn(self._open(attempt), attempt)
        else:
            attempt.finish_all(attempt.problem)

    def gone(self, connection: Connection) -> None:
        self._pool.discard(connection)
        self._connections.discard(connection)
        if self._closing is not None and not self._connections and not self._closing.done():
            self._closing.set_result(None)

    # --- the one timer ----------------------------------------------------------------

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in list(self._connections):
            if now < connection.deadline:
                continue
            if connection.state == "idle":
                self._pool.discard(connection)
                connection.leave()
            else:
                connection.expire(now)
        if self._connections:
            shortest = min(self._settings.timeoutremote, IDLE_SECONDS, SECONDS_TO_LEAVE)
            self._timer = loop.call_later(shortest / 5, self._watch)
        else:
            self._timer = None

    def _size_pool(self) -> None:
        settings = self._settings
        self._pool.each = max(1, settings.concurrencydestination)
        self._pool.total = max(1, min(MOST_IDLE, settings.concurrencyremote))


def _examine(body: Body) -> tuple[Fitness, int]:
    """Whether SMTP can carry it, and its size on the wire; reads the disk."""
    fitness, size = Fitness(), 0
    for chunk in body.chunks():
        size += len(chunk) + chunk.count(b"\n")
        if fitness.feed(chunk) is not None:
            break
    return fitness, size
