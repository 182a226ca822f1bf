"""The transport `smtp`: messages to other hosts by SMTP, over connections that are kept for a while.

A message goes to the first stop that accepts the connection (dialing.py says in which order),
greets with 220 and answers EHLO or HELO; what comes after that decides.  A kept connection that
turns out to be dead before the message has been sent is replaced by a new one, once.  Idle ones
say QUIT after five seconds.  One timer watches all connections: it looks at their deadlines a few
times in the shortest time-out.
"""

import asyncio
import os
import socket
from asyncio import Future
from collections.abc import Coroutine
from typing import Any

from openqmail.core.control.settings import Settings
from openqmail.core.log import Alert, Log, Seldom
from openqmail.core.message.lines import Fitness, unfit, wire_form
from openqmail.core.ports import RemoteJob
from openqmail.core.remote import report
from openqmail.core.remote.attempt import Attempt
from openqmail.core.remote.connection import SECONDS_TO_LEAVE, Connection
from openqmail.core.remote.dialing import NotBound, connect, equals, race
from openqmail.core.remote.pool import Pool, place_of
from openqmail.core.remote.streaming import READERS
from openqmail.core.remote.tcpto import Timeouts
from openqmail.core.remote.transport import Source, Stop
from openqmail.core.smtp.client import ClientSession
from openqmail.core.values import Body, OpenqmailError, Result

IDLE_SECONDS = 5.0
CLOSE_SECONDS = 2.0
MOST_IDLE = 200
ALERT_AGAIN_SECONDS = 60.0
"""An address that cannot be bound is told of no more often than that: all its mail meets it."""


class SmtpTransport:
    """Serves the protocol `Transport`."""

    name = "smtp"
    session = ClientSession

    def __init__(self, settings: Settings, log: Log, timeouts: Timeouts) -> None:
        self._settings = settings
        self._log = log
        self._timeouts = timeouts
        self._connections: set[Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._pool: Pool[Connection] = Pool(1, 1)
        self._timer: asyncio.TimerHandle | None = None
        self._closing: Future[None] | None = None
        self._seldom = Seldom(ALERT_AGAIN_SECONDS)
        self.connected = 0
        self._size_pool()

    def deliver(
        self, job: RemoteJob, stops: tuple[Stop, ...], source: Source
    ) -> "Future[tuple[Result, ...]]":
        future: Future[tuple[Result, ...]] = asyncio.get_running_loop().create_future()
        attempt = Attempt(job, stops, source, future)
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
        self._seldom = Seldom(ALERT_AGAIN_SECONDS)
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

    @property
    def open(self) -> int:
        return len(self._connections)

    # --- opening connections ----------------------------------------------------------

    async def _examine(self, attempt: Attempt) -> None:
        """A large body is read once before it is sent: no peer is bothered with what SMTP cannot carry."""
        try:
            loop = asyncio.get_running_loop()
            fitness, size = await loop.run_in_executor(READERS, _examine, attempt.job.body)
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
        connection = self._kept(attempt)
        if connection is None:
            self._spawn(self._open(attempt), attempt)
        else:
            connection.start(attempt)

    def _kept(self, attempt: Attempt) -> Connection | None:
        """A connection that waits at an address of the first host; the stop is then no longer to be tried."""
        stops, helohost = attempt.stops, self._settings.helohost
        name = stops[0].name
        for at, stop in enumerate(stops):
            if stop.name != name:
                break
            connection = self._pool.take(place_of(stop, attempt.source, helohost))
            if connection is not None:
                attempt.stops = (*stops[:at], *stops[at + 1 :])
                return connection
        return None

    async def _open(self, attempt: Attempt) -> None:
        """Connect to the best stop that lets us; the connection then goes on by itself."""
        settings, source = self._settings, attempt.source
        left = []
        for stop in attempt.stops:
            if self._timeouts.resting(stop.address):
                attempt.problem = report.because(attempt.problem, stop, "left alone, as it was silent lately")
            else:
                left.append(stop)
        attempt.stops = tuple(left)
        loop = asyncio.get_running_loop()
        while attempt.stops and loop.time() < attempt.until:
            best = equals(attempt.stops)
            worse = attempt.stops[len(best) :]
            try:
                won = await race(
                    best, lambda stop: self._dial(stop, attempt, settings.timeoutconnect), socket.socket.close
                )
            except NotBound as failure:
                self._tell(failure, source)
                attempt.finish_all(report.not_bound(failure.address))
                return
            if won is None:
                attempt.stops = worse
                continue
            attempt.stops = (*won.left, *worse)
            place = place_of(won.stop, source, settings.helohost)
            session = self.session(place[3], settings.timeoutremote, won.stop.security.terms)
            connection = Connection(self, won.stop, place, settings, session, attempt, self._log)
            try:
                await loop.create_connection(lambda: connection, sock=won.made)  # noqa: B023
            except OSError:  # it has ended already
                won.made.close()
                if not connection.opened:
                    continue
            return
        attempt.finish_all(attempt.problem)

    async def _dial(self, stop: Stop, attempt: Attempt, patience: float) -> socket.socket:
        try:
            return await connect(stop, attempt.source, patience)
        except TimeoutError:
            self._timeouts.silent(stop.address)
            attempt.problem = report.because(attempt.problem, stop, "no answer in time")
            raise
        except OSError as error:
            reason = os.strerror(error.errno).lower() if error.errno else str(error)
            attempt.problem = report.because(attempt.problem, stop, reason)
            raise

    def _tell(self, failure: NotBound, source: Source) -> None:
        if not self._seldom.may_say(failure.address, asyncio.get_running_loop().time()):
            return
        self._log(
            Alert(
                f"{source.place}: {failure.address} cannot be bound ({failure.reason}), so mail that goes "
                "out from there waits; give it to an interface of this host, or mend the line"
            )
        )

    def _spawn(self, work: Coroutine[Any, Any, None], attempt: Attempt) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._opening.add(task)

        def done(task: "asyncio.Task[None]") -> None:
            self._opening.discard(task)
            if task.cancelled():
                attempt.finish_all(report.STOPPED)
            elif (error := task.exception()) is not None:
                self._log(
                    Alert(
                        f"delivery {attempt.job.delivery} met a fault in the transport {self.name}: {error!r}"
                    )
                )
                attempt.finish_all(report.FAULT)

        task.add_done_callback(done)

    # --- what connections tell (Owner) ------------------------------------------------

    def opened(self, connection: Connection) -> None:
        self._connections.add(connection)
        self.connected += 1
        if self._timer is None:
            self._watch()

    def answered(self, connection: Connection) -> None:
        self._timeouts.answered(connection.stop.address)

    def idle(self, connection: Connection) -> bool:
        if self._closing is not None or connection.settings is not self._settings:
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
                silent = connection.state == "opening" and not connection.handshaking
                if silent and not connection.late(now):
                    self._timeouts.silent(connection.stop.address)
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
