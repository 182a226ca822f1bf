"""What each process may and may not do: the table, and how each act is tried from inside.

`tests/interop/test_forbidden_acts.py` tries it all in processes that are made as the supervisor
makes them; `tests/docs/security.py` writes it into docs/security.md.  An act is a function that
succeeds or raises OSError; what it changes it takes back.
"""

import contextlib
import ctypes
import errno
import os
import resource
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROLES = ("smtpd", "gate", "send", "remote", "metrics", "worker")


class Scene(NamedTuple):
    """Where a process is that tries: the paths and pids of a service that runs.

    `worker`s are alice's.  `public`: a folder where anybody may make files, with one `mine-ROLE` of each;
    `tcp`, `udp`: addresses where somebody listens, as at the abstract socket `abstract`.
    `twin`: a process of the same role, and user; `other`: one of another."""

    role: str
    home: Path
    alice: Path
    bob: Path
    message: Path
    public: Path
    tcp: tuple[str, int]
    udp: tuple[str, int]
    abstract: str
    supervisor: int
    twin: int
    other: int


class Act(NamedTuple):
    """`may`: the roles that do it, blanks between; `walls`: those whom Landlock alone holds back, of the
    ABI `abi` at least.  All others are refused by what their user may."""

    what: str
    how: Callable[[Scene], object]
    may: str = ""
    walls: str = ""
    abi: int = 1

    def of(self, role: str) -> str:
        return "may" if role in self.may.split() else "walls" if role in self.walls.split() else "no"


def tried(act: Act, scene: Scene) -> str:
    """`done`, or the name of the error."""
    try:
        act.how(scene)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


REFUSALS = {"EACCES", "EPERM"}

ALL = " ".join(ROLES)
FIVE = "smtpd gate send remote metrics"
"""Those with walls."""

# --- how ----------------------------------------------------------------------------------

_libc = ctypes.CDLL(None, use_errno=True)
_PTRACE_SEIZE, _PIDFD_GETFD = 0x4206, 438


def _open(path: Path, flags: int = os.O_RDONLY) -> None:
    os.close(os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC))


def _write(path: Path) -> None:
    _open(path, os.O_WRONLY)


def _make(folder: Path) -> None:
    """A file, and away with it."""
    path = folder / f"made-by-{os.getpid()}"
    _open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    path.unlink()


def _symlink(folder: Path) -> None:
    path = folder / f"made-by-{os.getpid()}"
    path.symlink_to("/etc/passwd")
    path.unlink()


def _replace(path: Path) -> None:
    """It and its copy change places."""
    aside = path.with_name("aside")
    path.rename(aside)
    aside.rename(path)


def _connect(family: int, address: "str | tuple[str, int]") -> None:
    with socket.socket(family) as connection:
        connection.connect(address)


def _bind(family: int, address: "str | tuple[str, int]") -> None:
    with socket.socket(family) as server:
        server.bind(address)
        server.listen()


def _bind_path(path: Path) -> None:
    _bind(socket.AF_UNIX, str(path))
    path.unlink()


def _send_datagram(address: tuple[str, int]) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", address)


def _raw() -> None:
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()


def _call(answer: int) -> int:
    if answer < 0:
        raise OSError(ctypes.get_errno(), "")
    return answer


def _trace(pid: int) -> None:
    _call(_libc.ptrace(ctypes.c_long(_PTRACE_SEIZE), ctypes.c_long(pid), None, None))


def _take_descriptor(pid: int) -> None:
    """Its standard error: every process has one."""
    found = os.pidfd_open(pid)
    try:
        os.close(_call(_libc.syscall(_PIDFD_GETFD, found, 2, 0)))
    finally:
        os.close(found)


def _run() -> None:
    subprocess.run(["/bin/true"], check=True)


def _gain(scene: Scene) -> None:
    with contextlib.suppress(OSError):
        os.setgroups([0])
        return
    for take in (os.setuid, os.seteuid, os.setgid, os.setegid):
        take(0)


def _mount(scene: Scene) -> None:
    _call(_libc.mount(b"none", os.fsencode(scene.public), b"tmpfs", ctypes.c_ulong(0), None))


def _dump_core(scene: Scene) -> None:
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (1 << 20, 1 << 20))
    except ValueError:  # what Python makes of EPERM
        raise PermissionError(errno.EPERM, "") from None


# --- the table ----------------------------------------------------------------------------

TABLE: dict[str, tuple[Act, ...]] = {
    "Read": (
        Act("control files", lambda s: _open(s.home / "control/me"),
            "smtpd gate send remote worker", "metrics"),
        Act("`control/servercert.pem`", lambda s: _open(s.home / "control/servercert.pem")),
        Act("`control/clientcert.pem`", lambda s: _open(s.home / "control/clientcert.pem"), "remote"),
        Act("`control/credentials`", lambda s: _open(s.home / "control/credentials"), "remote"),
        Act("`users/smtpauth`", lambda s: _open(s.home / "users/smtpauth"), "gate", "metrics"),
        Act("`users/cdb`", lambda s: _open(s.home / "users/cdb"), "smtpd gate send worker", "remote metrics"),
        Act("a message in the queue", lambda s: _open(s.message), "send"),
        Act("the names in the queue", lambda s: os.listdir(s.home / "queue/mess"), "send"),
        Act("the journal", lambda s: os.listdir(s.home / "queue/journal"), "send"),
        Act("`alias/.qmail-…`", lambda s: _open(s.home / "alias/.qmail-root"), "worker", FIVE),
        Act("the names in `run/`", lambda s: os.listdir(s.home / "run")),
        Act("`run/lock`", lambda s: _open(s.home / "run/lock")),
        Act("the Maildir of the worker's user", lambda s: os.listdir(s.alice / "Maildir/new"), "worker"),
        Act("another user's Maildir", lambda s: os.listdir(s.bob / "Maildir/new")),
        Act("what a user lets anybody read", lambda s: _open(s.bob / ".qmail-open"), "worker", FIVE),
        Act("`/etc/passwd`", lambda s: _open(Path("/etc/passwd")), "remote worker",
            "smtpd gate send metrics"),
        Act("`/etc/shadow`", lambda s: _open(Path("/etc/shadow"))),
    ),
    "Change": (
        Act("a control file", lambda s: _write(s.home / "control/me")),
        Act("the mode of a control file", lambda s: (s.home / "control/me").chmod(0o644)),
        Act("`control/`, by a new file", lambda s: _make(s.home / "control")),
        Act("`control/`, by a rename", lambda s: _replace(s.home / "control/me")),
        Act("`users/cdb`", lambda s: _write(s.home / "users/cdb")),
        Act("a message in the queue", lambda s: _write(s.message), "send"),
        Act("the queue, by a new file", lambda s: _make(s.home / "queue/pid"), "send"),
        Act("the queue, by a symbolic link", lambda s: _symlink(s.home / "queue/pid"), "", "send"),
        Act("`alias/`, by a new file", lambda s: _make(s.home / "alias")),
        Act("`run/`, by a new file", lambda s: _make(s.home / "run")),
        Act("the home itself, by a new file", lambda s: _make(s.home)),
        Act("the Maildir of the worker's user", lambda s: _make(s.alice / "Maildir/tmp"), "worker"),
        Act("another user's Maildir", lambda s: _make(s.bob / "Maildir/tmp")),
        Act("a folder of everybody's, as `/tmp`", lambda s: _make(s.public), "worker", FIVE),
    ),
    "Speak": (
        Act("with hosts: connect by TCP", lambda s: _connect(socket.AF_INET, s.tcp), "remote worker",
            "smtpd gate send metrics", 4),
        Act("as a server: bind a port of its choice", lambda s: _bind(socket.AF_INET, ("127.0.0.9", 2500)),
            "worker", FIVE, 4),
        Act("as a server: bind a port of the kernel's choice",
            lambda s: _bind(socket.AF_INET, ("127.0.0.1", 0)), "remote worker", "smtpd gate send metrics", 4),
        Act("as a server: bind port 25", lambda s: _bind(socket.AF_INET, ("127.0.0.9", 25))),
        Act("as a server: a Unix socket in `run/`", lambda s: _bind_path(s.home / "run/other")),
        Act("as a server: a Unix socket elsewhere", lambda s: _bind_path(s.public / f"socket-{s.role}"),
            "worker", FIVE),
        Act("with the administrator's socket", lambda s: _connect(socket.AF_UNIX, str(s.home / "run/admin"))),
        Act("with abstract Unix sockets of others", lambda s: _connect(socket.AF_UNIX, s.abstract), "worker",
            FIVE, 6),
        Act("raw IP", lambda s: _raw()),
    ),
    "Do to processes": (
        Act("run a program", lambda s: _run(), "worker", FIVE),
        Act("signal the supervisor", lambda s: os.kill(s.supervisor, 0)),
        Act("signal a process of another role", lambda s: os.kill(s.other, 0)),
        Act("signal one of its own user", lambda s: os.kill(s.twin, 0), "worker", FIVE, 6),
        Act("trace one of another role", lambda s: _trace(s.other)),
        Act("trace one of its own user", lambda s: _trace(s.twin)),
        Act("read the memory of the supervisor", lambda s: _open(Path(f"/proc/{s.supervisor}/mem"))),
        Act("read the memory of another role", lambda s: _open(Path(f"/proc/{s.other}/mem"))),
        Act("read the memory of its own user's", lambda s: _open(Path(f"/proc/{s.twin}/mem"))),
        Act("read the environment of its own user's", lambda s: _open(Path(f"/proc/{s.twin}/environ"))),
        Act("take descriptors of another role", lambda s: _take_descriptor(s.other)),
        Act("take descriptors of its own user's", lambda s: _take_descriptor(s.twin)),
    ),
    "Be": (
        Act("root, or in root's group, again", _gain),
        Act("another role's user", lambda s: os.setuid(os.getuid() + 1)),
        Act("one that leaves a core dump", _dump_core),
        Act("one that mounts", _mount),
        Act("one that changes its root", lambda s: os.chroot(s.public)),
    ),
    "Not held back": (
        Act("send by UDP", lambda s: _send_datagram(s.udp), ALL),
        Act("connect to a Unix socket with a path that lets it, as `run/submit`",
            lambda s: _connect(socket.AF_UNIX, str(s.home / "run/submit")), ALL),
        Act("listen at an abstract Unix socket", lambda s: _bind(socket.AF_UNIX, f"\0oq-{os.getpid()}"), ALL),
        Act("look at owner, mode and size of what uids let it reach",
            lambda s: os.stat(s.bob / ".qmail-open"), ALL),
        Act("change the mode of what is its own, wherever",
            lambda s: (s.public / f"mine-{s.role}").chmod(0o640), ALL),
        Act("signal itself, and what it forks", lambda s: os.kill(os.getpid(), signal.SIGCONT), ALL),
    ),
}  # fmt: skip


def page() -> str:
    """The table in Markdown, a heading a group."""
    lines: list[str] = []
    for group, acts in TABLE.items():
        lines += ["", f"### {group}", "", f"| | {' | '.join(ROLES)} |", "| --- |" + " --- |" * len(ROLES)]
        for act in acts:
            lines.append(f"| {act.what} | {' | '.join(act.of(role) for role in ROLES)} |")
    return "\n".join(lines[1:]) + "\n"
