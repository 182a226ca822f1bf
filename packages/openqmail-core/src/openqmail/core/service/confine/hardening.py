"""What a process gives up whoever it is: the terminal, core dumps, being looked into, capabilities.

prctl(2) and capset(2) are Linux's; elsewhere there are just no core dumps.  Settings hold for this
process and what it forks; an exec makes it dumpable again, never privileged.
"""

import ctypes
import fcntl
import os
import resource
import sys
import termios
from contextlib import suppress

MEMORY = {"smtpd": 1 << 30, "remote": 1 << 30, "gate": 512 << 20, "metrics": 256 << 20}
"""Bytes; send holds as much as is queued."""

_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38
_HEADER = (ctypes.c_uint32 * 2)(0x20080522, 0)
"""_LINUX_CAPABILITY_VERSION_3, and this process."""
_NONE = (ctypes.c_uint32 * 6)()
"""Two times 32 capabilities: effective, permitted, inheritable."""


def leave_terminal() -> None:
    """Let go of the terminal that the service was started from: what is typed there cannot be read,
    and nothing can be put there as if it had been typed (TIOCSTI); the log is still written to it.

    To be called before `become`, which may take away the right to open it; a terminal that this user
    may not open stays as it is.  Raises OSError."""
    null = os.open(os.devnull, os.O_RDONLY)
    if null:
        os.dup2(null, 0)
        os.close(null)
    for descriptor in (1, 2):
        with suppress(OSError):  # no terminal, or another user's
            opened = os.open(os.ttyname(descriptor), os.O_WRONLY | os.O_NOCTTY)
            os.dup2(opened, descriptor)  # the old one was open for reading, too
            os.close(opened)
    with suppress(OSError):  # there is none
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
        try:
            fcntl.ioctl(terminal, termios.TIOCNOTTY)
        finally:
            os.close(terminal)


def harden(*, no_new_privileges: bool) -> None:
    """No core dumps; no debugger and no /proc/PID/mem of the same user's.  With
    `no_new_privileges` no setuid program gives any either, ever.

    To be called after `become`, which sets some of it back.  Raises OSError."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(_PR_SET_DUMPABLE, 0)
    if no_new_privileges:
        forgo_privileges()


def limit_memory(role: str) -> None:
    """A process that strangers speak to gets no more than it can have use for: one that was brought to
    take all of the machine's dies alone, and is started anew.  Raises OSError."""
    most = MEMORY.get(role)
    if most is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def forgo_privileges() -> None:
    """PR_SET_NO_NEW_PRIVS.  Raises OSError."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def forgo_capabilities() -> None:
    """Whatever a user other than root has been given, as by setcap(8) for the ports below 1024; root's are
    what makes it root.  Raises OSError."""
    if _libc is None or 0 in (os.getuid(), os.geteuid()):
        return
    if _libc.capset(_HEADER, _NONE):
        number = ctypes.get_errno()
        raise OSError(number, f"capset: {os.strerror(number)}")


def _prctl(option: int, value: int) -> None:
    if _libc is None:
        return
    if _libc.prctl(option, value, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, f"prctl {option}: {os.strerror(number)}")


# Made before the forks: what it takes of memory is shared then.
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
if _libc is not None:
    _libc.prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)
