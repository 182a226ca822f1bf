"""Runs checkpassword programs: as whoever this process is, with nothing of it but the interface.

That is cr.yp.to/checkpwd/interface.html: what is to be checked is read from descriptor 3, the exit code
is the answer.  The program has an environment of its own, /dev/null for its other descriptors, and a
process group that is ended with it.  Nothing of a password is in arguments, environment or a file.
"""

import asyncio
import errno
import os
import signal
import time
from asyncio import Future
from collections.abc import Mapping
from contextlib import suppress

from openqmail.core.control import enrolment
from openqmail.core.control.home import Home
from openqmail.core.control.settings import Settings
from openqmail.core.control.smtpauth import Rehash
from openqmail.core.ports.logins import Program
from openqmail.core.values import OpenqmailError

SECONDS = 30.0
"""That a program may take."""

_PATH = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_DEFAULT = tuple(
    getattr(signal, f"SIG{name}")
    for name in ("PIPE", "TERM", "INT", "HUP", "ALRM", "USR1", "USR2", "CHLD", "XFSZ")
)
"""Signals that this process may ignore, and the program shall not."""


def command_of(settings: Settings, program: Program) -> tuple[bytes, ...]:
    """Empty where there is none."""
    found: tuple[bytes, ...] = getattr(settings, program)
    return found


def start(command: tuple[bytes, ...], told: bytes, client: str) -> int:
    """The program's pid; `told` fits into a pipe.  Raises OSError."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        os.set_blocking(writing, False)  # more than fits would be an error, not a wait
        if os.write(writing, told) < len(told):  # the kernel is short of room for pipes
            raise BlockingIOError(errno.EAGAIN, "there is too little room in a pipe")
        os.close(writing)
        writing = -1
        return os.posix_spawn(
            command[0],
            command,
            _environment(client),
            file_actions=[
                (os.POSIX_SPAWN_DUP2, reading, 3),
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ],
            setpgroup=0,
            setsigmask=(),
            setsigdef=_DEFAULT,
        )
    finally:
        os.close(reading)
        if writing >= 0:
            os.close(writing)


def end(pid: int) -> None:
    """Kill a program that has not been reaped, and what it has started, as far as that is in its group; it
    may have left that itself."""
    for kill in (os.killpg, os.kill):
        with suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def code_of(status: int) -> int | None:
    """None for one that was killed."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else None


def _environment(client: str) -> Mapping[bytes, bytes]:
    """As tcpserver's children have it, so far as such programs look at it."""
    return {b"PATH": _PATH, b"PROTO": b"TCP", b"TCPREMOTEIP": os.fsencode(client)}


class DirectChecks:
    """Serves the port LoginChecks in this process, each program in a thread that waits for it."""

    def __init__(self, home: Home, settings: Settings) -> None:
        self._home = home
        self._settings = settings
        self._loop = asyncio.get_running_loop()

    def reconfigure(self, settings: Settings) -> None:
        self._settings = settings

    def check(self, program: Program, told: bytes, client: str) -> "Future[int | None]":
        command = command_of(self._settings, program)
        return self._loop.run_in_executor(None, _run, command, told, client)

    def strengthen(self, rehash: Rehash) -> None:
        self._loop.run_in_executor(None, _strengthen, self._home, rehash)


def _run(command: tuple[bytes, ...], told: bytes, client: str) -> int | None:
    try:
        pid = start(command, told, client)
    except (OSError, IndexError):
        return None
    until, pause = time.monotonic() + SECONDS, 0.001
    while time.monotonic() < until:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return code_of(status)
        time.sleep(pause)
        pause = min(2 * pause, 0.05)
    end(pid)
    os.waitpid(pid, 0)
    return None


def _strengthen(home: Home, rehash: Rehash) -> None:
    with suppress(OpenqmailError, OSError):  # it stays as it was, and is tried at the next login
        enrolment.apply(home, rehash)
