"""What a process gives up whoever it is: core dumps, being looked into, new privileges.

prctl(2) is Linux's; elsewhere there are just no core dumps.  Settings hold for this process and
what it forks; an exec makes it dumpable again, never privileged.
"""

import ctypes
import os
import resource
import sys

_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38


def harden(*, no_new_privileges: bool) -> None:
    """No core dumps; no debugger and no /proc/PID/mem of the same user's.  With
    `no_new_privileges` no setuid program gives any either, ever.

    To be called after `become`, which sets some of it back.  Raises OSError."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(_PR_SET_DUMPABLE, 0)
    if no_new_privileges:
        forgo_privileges()


def forgo_privileges() -> None:
    """PR_SET_NO_NEW_PRIVS.  Raises OSError."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _prctl(option: int, value: int) -> None:
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    numbers = [ctypes.c_ulong(number) for number in (value, 0, 0, 0)]
    if libc.prctl(option, *numbers):
        number = ctypes.get_errno()
        raise OSError(number, f"prctl {option}: {os.strerror(number)}")
