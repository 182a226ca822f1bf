"""A real MTA in a test: sockets, a queue and Maildirs, in a thread of its own that has its own loop.

It is `service.mta.Mta`, what `openqmail run` does in one process.  It listens on a free port of
127.0.0.1; mail to other hosts stays in memory (network.py).  Its thread is joined and its folder
is gone when `with` ends, however that comes about.
"""

import asyncio
import contextlib
import smtplib
import ssl
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

from openqmail.core.control.pem import IMPLICIT
from openqmail.core.control.reader import read_settings
from openqmail.core.control.submitting import SUBMISSION
from openqmail.core.ports import MessageSummary
from openqmail.core.service import mta as service
from openqmail.core.testing.disk import QuickDisk
from openqmail.core.testing.errors import TestingError, with_log
from openqmail.core.testing.face import Face
from openqmail.core.testing.network import NetworkedLoop
from openqmail.core.values import OpenqmailError
from openqmail.core.world import Clock, SystemClock, UnwaitedThreads

T = TypeVar("T")

_LOOK_AGAIN = 0.002
_PATIENCE = 30.0
"""Seconds for what takes a few milliseconds: beyond that something hangs."""


class Mta(Face):
    """See `Face`.  Its methods may be called from any thread, one at a time."""

    disk: QuickDisk

    _life: "_Life | None" = None
    _service, _port = "", 0

    def start(self) -> None:
        if self._life is not None:
            raise TestingError("this MTA runs already")
        self.disk = QuickDisk()
        life = self._life = _Life(self)
        life.thread.start()
        try:
            self._service, self._port = life.ready.result(_PATIENCE)
        except BaseException:
            life.kill()
            self._ended(life)
            raise

    @property
    def port(self) -> int:
        """Where it takes mail by SMTP, at 127.0.0.1; another one after each `start`."""
        if not self._port:
            raise TestingError("this MTA has not been started; use it in a with statement, or call start()")
        return self._port

    def smtp(self) -> smtplib.SMTP:
        """By TLS where the service begins with it; whose certificate it is does not matter here."""
        where = ("127.0.0.1", self.port, "client.example")
        if self._service in IMPLICIT:
            return smtplib.SMTP_SSL(*where, timeout=_PATIENCE, context=_ciphering())
        return smtplib.SMTP(*where, _PATIENCE)

    def queue(self) -> list[MessageSummary]:
        life = self._running()
        return life.call(life.queue())

    def control(self, name: str, text: str | None) -> None:
        before = self._home.write(name, text)
        if self._life is None:
            return
        try:
            self._life.call(self._life.service.reload())
        except OpenqmailError:
            self._home.write(name, before)
            raise

    def flush(self) -> None:
        """Try everything that waits now, as on ALRM."""
        life = self._running()
        life.soon(life.service.flush)

    def stop(self) -> None:
        life = self._running()
        life.soon(life.service.terminate)
        self._ended(life)

    def crash(self) -> None:
        """End as if killed: nothing reaches the disk any more."""
        life = self._running()
        life.kill()
        self._ended(life)

    def close(self) -> None:
        try:
            if self._life is not None:
                self._life.kill()
                self._ended(self._life)
        finally:
            self._home.close()

    def _running(self) -> "_Life":
        life = self._life
        if life is None:
            raise TestingError("this MTA does not run; use it in a with statement, or call start()")
        if not life.thread.is_alive():
            self._ended(life)
            raise TestingError(with_log("this MTA has ended by itself", self.log))
        return life

    def _ended(self, life: "_Life") -> None:
        life.thread.join(_PATIENCE)
        if life.thread.is_alive():
            raise TestingError(with_log(f"the MTA has not ended within {_PATIENCE:.0f} s", self.log))
        self._life = None
        self.disk.release()
        if life.error is not None:
            raise life.error

    def _prove(self, client: smtplib.SMTP) -> None:
        """As the first of the logins."""
        if self._service not in SUBMISSION or not self._logins:
            return
        client.ehlo()
        if client.has_extn("starttls"):
            client.starttls(context=_ciphering())
        client.login(*next(iter(self._logins.items())))

    def _make_clock(self) -> Clock:
        return SystemClock()

    def _moments(self, seconds: float) -> Iterator[None]:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self._life is not None:
                self._running()
            yield
            time.sleep(_LOOK_AGAIN)
        yield


def _ciphering() -> ssl.SSLContext:
    """For a client that believes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class _Life:
    """From a start to an end, in a thread.  `ready` has service and port, or why it did not start."""

    service: service.Mta

    def __init__(self, mta: Mta) -> None:
        self._mta = mta
        self.loop = NetworkedLoop()
        self.loop.network = mta._network
        self.ready: Future[tuple[str, int]] = Future()
        self.error: BaseException | None = None
        self._abandoned = False
        self.thread = threading.Thread(target=self._run, name=f"openqmail {mta.domain}", daemon=True)

    # --- in the thread of the test --------------------------------------------------------------

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """What the work gives, done in the loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(_PATIENCE)

    def soon(self, call: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended by itself
            self.loop.call_soon_threadsafe(call)

    def kill(self) -> None:
        self._mta.disk.cut()
        self.soon(self._abandon)

    # --- in its own ------------------------------------------------------------------------------

    async def queue(self) -> list[MessageSummary]:
        return [one for one in self.service.queue.messages() if isinstance(one, MessageSummary)]

    def _abandon(self) -> None:
        self._abandoned = True
        self._mta._network.down()
        if hasattr(self, "service"):
            self.service.terminate()
            self.service.terminate()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
                runner.run(self._serve())
        except BaseException as error:
            if self.ready.done():
                self.error = error
            else:
                self.ready.set_exception(error)

    async def _serve(self) -> None:
        mta = self._mta
        self.loop.set_default_executor(UnwaitedThreads())  # hooks may use it
        self.service = service.Mta(
            mta._home, read_settings(mta._home), mta.disk, mta._clock, mta._events, False, mta._network
        )
        if self._abandoned:
            return
        serving = self.loop.create_task(self.service.serve())
        ready = self.loop.create_task(self.service.serving.wait())
        await asyncio.wait((serving, ready), return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if not serving.done():
            self.ready.set_result(self._first())
        await serving

    def _first(self) -> tuple[str, int]:
        """Service and port of the first listener."""
        for listening in self.service.status().listen:
            return listening["service"], int(listening["address"].rpartition(":")[2])
        raise TestingError("control/listen names no listener; write one like: smtp 127.0.0.1:0")
