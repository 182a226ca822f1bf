"""The spawner's part in logging in: runs checkpassword programs for gate, and strengthens hashes for it.

Gate names a program by its control file, never by a path, and hears an exit code, so who has taken it over
can make root run nothing else.  Nothing here waits: programs are started, and reaped or killed when the
spawner's loop says so; who was killed may end much later, and counts as running until then.  A hash is
changed by a child, as that waits for a lock.
"""

import os
import socket
import time
from contextlib import suppress

from openqmail.core.control import enrolment
from openqmail.core.control.home import Home
from openqmail.core.control.settings import Settings
from openqmail.core.control.smtpauth import Rehash
from openqmail.core.log import Alert, LogWriter, Seldom
from openqmail.core.service import checking
from openqmail.core.service.frames.blocking import BlockingChannel
from openqmail.core.service.frames.codec import FrameError
from openqmail.core.service.frames.logins import LARGEST, Check, Checked, Strengthen, ToSpawner
from openqmail.core.service.processes.forking import forked
from openqmail.core.values import OpenqmailError
from openqmail.core.world import SystemClock

MOST = 32
"""Programs at once; gate asks for fewer."""

TELL_AGAIN = 60.0
"""Seconds between two alerts about a program that cannot be run."""


class LoginChecks:
    """For who asks by the port `logins`."""

    def __init__(self, home: Home, settings: Settings) -> None:
        self._home, self._settings = home, settings
        self._channels: list[BlockingChannel] = []
        self._running: dict[int, tuple[BlockingChannel, int, float]] = {}
        """The pid of a program -> who asked, by which id, and until when it may run."""
        self._killed: set[int] = set()
        """Pids of those that nobody waits for any more."""
        self._strengthening = 0
        """The pid of the child that does it."""
        self._seldom = Seldom(TELL_AGAIN)

    def serve(self, connection: socket.socket) -> None:
        self._channels.append(BlockingChannel(connection, ToSpawner, descriptors=False, largest=LARGEST))

    @property
    def busy(self) -> bool:
        """Whether somebody waits for an answer."""
        return bool(self._running)

    def watched(self) -> dict[int, BlockingChannel]:
        """What to read from."""
        return {channel.fileno(): channel for channel in self._channels}

    def patience(self) -> float | None:
        """Seconds until `reap` is wanted though no child has ended."""
        if not self._running:
            return None
        return max(0.0, min(until for _, _, until in self._running.values()) - time.monotonic())

    def hear(self, channel: BlockingChannel) -> None:
        try:
            heard = channel.receive()
        except FrameError:
            heard = None
        if heard is None:
            self._end(channel)
            return
        for message, _ in heard:
            if isinstance(message, Check):
                self._check(channel, message)
            else:
                self._strengthen(message)

    def reap(self) -> None:
        """Tell of programs that have ended, and end those that take too long."""
        now = time.monotonic()
        for pid, (channel, asked, until) in list(self._running.items()):
            code = None
            if now >= until:
                self._kill(pid)
            else:
                ended, status = os.waitpid(pid, os.WNOHANG)
                if not ended:
                    continue
                code = checking.code_of(status)
            del self._running[pid]
            if channel in self._channels:
                channel.send(Checked(asked, code))
        self._killed = {pid for pid in self._killed if not os.waitpid(pid, os.WNOHANG)[0]}
        if self._strengthening and os.waitpid(self._strengthening, os.WNOHANG)[0]:
            self._strengthening = 0

    def close(self) -> None:
        for channel in list(self._channels):
            self._end(channel)

    # --- parts --------------------------------------------------------------------------

    def _check(self, channel: BlockingChannel, asked: Check) -> None:
        command = checking.command_of(self._settings, asked.program)
        if not command or len(self._running) + len(self._killed) >= MOST:
            channel.send(Checked(asked.id, None))
            return
        try:
            pid = checking.start(command, asked.told, asked.client)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is given a NUL"
            self._alert(f"control/{asked.program}: {os.fsdecode(command[0])} cannot be run: {why}")
            channel.send(Checked(asked.id, None))
        else:
            self._running[pid] = (channel, asked.id, time.monotonic() + checking.SECONDS)

    def _strengthen(self, asked: Strengthen) -> None:
        """One at a time; what is left out is tried at that user's next login."""
        if self._strengthening:
            return
        rehash = Rehash(asked.login, asked.old, asked.new)
        with suppress(OSError):
            self._strengthening = forked(
                "a change of users/smtpauth", lambda: self._apply(rehash), self._settings.logformat
            )

    def _apply(self, rehash: Rehash) -> int:
        """In the child."""
        try:
            enrolment.apply(self._home, rehash)
        except (OpenqmailError, OSError) as error:
            self._alert(f"a hash in users/smtpauth could not be made a stronger one: {error}")
            return 111
        return 0

    def _end(self, channel: BlockingChannel) -> None:
        channel.close()
        self._channels.remove(channel)
        for pid, (asker, _, _) in list(self._running.items()):
            if asker is channel:
                self._kill(pid)
                del self._running[pid]

    def _kill(self, pid: int) -> None:
        checking.end(pid)
        self._killed.add(pid)

    def _alert(self, sentence: str) -> None:
        if self._seldom.may_say(sentence, time.monotonic()):
            LogWriter(2, SystemClock(), form=self._settings.logformat)(Alert(sentence))
