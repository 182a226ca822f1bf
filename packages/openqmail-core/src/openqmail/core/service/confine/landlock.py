"""Landlock: a process takes from itself, for good, what it has no use for (landlock(7)).

It needs no privilege and no program: three system calls, by ctypes.  The kernel is asked for
its ABI; rights that it does not know are left out and named in a sentence.  Covered: opening,
making, renaming, removing (a descriptor that is open already stays good), running programs,
TCP, abstract sockets, and the signals that it sends: those that it gets are not held up.
Not covered by any ABI up to 7: UDP, Unix sockets with a path, chmod, stat.
"""

import contextlib
import ctypes
import os
import stat
import sys
from collections.abc import Iterable

from openqmail.core.service.confine.hardening import forgo_privileges
from openqmail.core.service.confine.walls import Walls


class Right:
    """LANDLOCK_ACCESS_FS_*; plain numbers, as flags of `enum` cost every process that is walled in memory."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15


LIST = Right.READ_DIR
READ = Right.READ_FILE | LIST
WRITE = (
    READ
    | Right.WRITE_FILE
    | Right.REMOVE_DIR
    | Right.REMOVE_FILE
    | Right.MAKE_DIR
    | Right.MAKE_REG
    | Right.MAKE_FIFO
    | Right.REFER
    | Right.TRUNCATE
)
ON_FILES = Right.EXECUTE | Right.WRITE_FILE | Right.READ_FILE | Right.TRUNCATE | Right.IOCTL_DEV
"""What a rule about something else than a folder may say."""

FIRST = Right.MAKE_SYM * 2 - 1
"""What ABI 1 knows."""

ADDED = {2: Right.REFER, 3: Right.TRUNCATE, 5: Right.IOCTL_DEV}
"""An ABI -> the right that came with it."""

BIND, CONNECT = 1 << 0, 1 << 1
"""LANDLOCK_ACCESS_NET_*_TCP, since ABI 4."""

SCOPES = 1 << 0 | 1 << 1
"""LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET and LANDLOCK_SCOPE_SIGNAL, since ABI 6."""

LACKING = (
    (3, "truncating a file"),
    (4, "TCP connections"),
    (5, "device controls"),
    (6, "abstract sockets and signals"),
)
"""What an ABI before that number does not cover."""

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_ASK_ABI = 1
_PATH_BENEATH, _NET_PORT = 1, 2


class _Ruleset(ctypes.Structure):
    """struct landlock_ruleset_attr; a kernel that knows less of it takes zeros in the rest."""

    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    """struct landlock_path_beneath_attr"""

    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


class _NetPort(ctypes.Structure):
    """struct landlock_net_port_attr"""

    _fields_ = (("allowed", ctypes.c_uint64), ("port", ctypes.c_uint64))


def wall_in(walls: Walls | None) -> str | None:
    """Restrict this thread, and all that it starts from now on, to its walls; without walls nothing is done.

    Call it before there are other threads, after `become`.  A sentence for the log says what is not
    in force.  Raises OSError."""
    if walls is None:
        return None
    known = abi()
    moves = any(map(os.path.isdir, walls.write))
    if not known or (known == 1 and moves):  # which knows no rename from one folder to another
        return _sentence(0)
    net = 0 if known < 4 else BIND if walls.connect else BIND | CONNECT
    handled = _rights(known)
    ruleset = _call(_CREATE, ctypes.byref(_Ruleset(handled, net, SCOPES if known >= 6 else 0)), 24, 0)
    try:
        for paths, rights in ((walls.read, READ), (walls.names, LIST), (walls.write, WRITE)):
            _allow(ruleset, paths, rights & handled)
        if net and walls.connect:
            # An address of ours to go out from is bound with no port.  It opens nothing: a socket may
            # listen at a port of the kernel's choice without being bound, and no ABI holds that up.
            _call(_ADD, ruleset, _NET_PORT, ctypes.byref(_NetPort(BIND, 0)), 0)
        forgo_privileges()
        _call(_RESTRICT, ruleset, 0)
    finally:
        os.close(ruleset)
    return _sentence(known)


def lacking() -> str | None:
    """What `wall_in` would say here; nothing is restricted."""
    return _sentence(abi())


def abi() -> int:
    """The kernel's; 0 where there is no Landlock."""
    if sys.platform != "linux" or os.uname().machine.startswith(("alpha", "mips")):
        return 0  # on these machines the calls have other numbers
    try:
        return _call(_CREATE, None, 0, _ASK_ABI)
    except OSError:  # not built in, or not switched on at boot
        return 0


def _rights(known: int) -> int:
    found = FIRST
    for since, right in ADDED.items():
        if known >= since:
            found |= right
    return found


def _allow(ruleset: int, paths: Iterable[str], rights: int) -> None:
    for path in paths:
        with contextlib.suppress(FileNotFoundError, PermissionError, NotADirectoryError):
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                allowed = rights if stat.S_ISDIR(os.fstat(descriptor).st_mode) else rights & ON_FILES
                if allowed:
                    rule = _PathBeneath(allowed, descriptor)
                    _call(_ADD, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0)
            finally:
                os.close(descriptor)


def _sentence(known: int) -> str | None:
    if not known:
        return "this kernel has no Landlock that serves; processes are held back by their users alone"
    missing = [what for since, what in LACKING if known < since]
    if not missing:
        return None
    return f"Landlock of this kernel (ABI {known}) does not cover {', '.join(missing)}; a newer kernel does"


def _call(number: int, *arguments: object) -> int:
    """A system call.  Raises OSError."""
    given = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    answer = _libc.syscall(ctypes.c_long(number), *given)
    if answer < 0:
        failed = ctypes.get_errno()
        raise OSError(failed, f"Landlock: {os.strerror(failed)}")
    return int(answer)


_libc = ctypes.CDLL(None, use_errno=True)  # made before the forks, and so shared
_libc.syscall.restype = ctypes.c_long
