"""From a fork to a process that does its job, as whom it should, behind its walls."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable

from openqmail.core.control.accounts import Account, Accounts
from openqmail.core.control.owner import acting_as
from openqmail.core.log import LogWriter, Notice
from openqmail.core.remote.tcpto import open_file
from openqmail.core.service.confine import (
    Walls,
    become,
    forbid_calls,
    forgo_capabilities,
    harden,
    leave_terminal,
    limit_memory,
    wall_in,
)
from openqmail.core.service.frames import supervision as said
from openqmail.core.service.frames.blocking import BlockingChannel
from openqmail.core.service.loops import close_all_but, new_loop
from openqmail.core.service.processes import gate, remote, send, smtpd, unraisable
from openqmail.core.service.processes.forking import forked
from openqmail.core.service.processes.local import run_spawner
from openqmail.core.service.processes.process import Inherited, Process
from openqmail.core.service.supervisor.machine import Role
from openqmail.core.service.supervisor.running import Running
from openqmail.core.values import ControlError, OpenqmailError
from openqmail.core.world import SystemClock

_SERVE: dict[str, Callable[[Process], Awaitable[int]]] = {
    "gate": gate.serve,
    "remote": remote.serve,
    "send": send.serve,
    "smtpd": smtpd.serve,
}


def account_of(role: Role, accounts: Accounts) -> Account | None:
    """As whom a role runs; None: as the supervisor."""
    if role == "metrics":  # without a secret: as who has the least to do with mail
        return accounts.gate
    return None if role == "local" else getattr(accounts, role)


def start(role: Role, inherited: Inherited, walls: Walls | None) -> Running:
    """Make a child of this role.  Returns only in the parent.  Raises OSError."""
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            pid = forked(role, lambda: _live(role, theirs, inherited, walls), inherited.settings.logformat)
    except OSError:
        ours.close()
        raise
    account = account_of(role, inherited.accounts)
    uid = account.uid if account and inherited.home.uid == 0 else os.getuid()
    channel = BlockingChannel(ours, said.from_child(role), descriptors=False)
    return Running(role, inherited.generation, pid, uid, channel)


def _live(role: Role, control: socket.socket, inherited: Inherited, walls: Walls | None) -> int:
    try:
        return _run(role, control, inherited, walls)
    except OpenqmailError as error:
        BlockingChannel(control, said.ToChild).send(said.Failed.of(error))
        return 111


def _run(role: Role, control: socket.socket, inherited: Inherited, walls: Walls | None) -> int:
    if role == "smtpd":  # the keys are root's
        inherited.load_tls()
    if role == "metrics":
        _SERVE[role] = _metrics()
    if role == "remote":
        inherited.tcpto = _open_tcpto(inherited)
        inherited.load_keys()  # which may be root's
    if missing := enter(role, inherited, {0, 1, 2, control.fileno(), *_kept(role, inherited)}, walls):
        form = inherited.settings.logformat
        LogWriter(sys.stderr.fileno(), SystemClock(), form=form)(Notice(f"{role}: {missing}"))
    if role == "local":
        return run_spawner(control, inherited)
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(_serve(role, control, inherited))


def _metrics() -> Callable[[Process], Awaitable[int]]:
    """What that process needs and nobody else does, loaded before the walls are there.

    Raises OpenqmailError."""
    try:
        from openqmail.core.service.processes import metrics  # noqa: PLC0415
    except ImportError as error:
        remedy = "pip install --upgrade 'openqmail-core[metrics]'"
        raise ControlError(
            "control/metrics", 0, f"prometheus-client cannot be loaded: {error}; {remedy}"
        ) from None
    return metrics.serve


def enter(role: Role, inherited: Inherited, keep: set[int], walls: Walls | None) -> str | None:
    """Become what this role is, for good: of the supervisor only these descriptors, its own user,
    behind its walls.  What is missing of these, in words, or None."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # the supervisor's alone
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    close_all_but(keep)
    leave_terminal()
    os.umask(0o077)
    forgo_capabilities()
    account = account_of(role, inherited.accounts)
    if account is None:
        harden(no_new_privileges=False)
        return None
    become(account)
    harden(no_new_privileges=True)
    limit_memory(role)
    missing = wall_in(walls)
    forbid_calls(role)
    return missing


def _open_tcpto(inherited: Inherited) -> int | None:
    """As the queue's owner, so that nothing in his folder leads root anywhere."""
    send = inherited.accounts.send
    with acting_as(send.uid, send.gid):
        return open_file(inherited.home.queue)


async def _serve(role: Role, control: socket.socket, inherited: Inherited) -> int:
    process = Process(role, control, inherited)
    unraisable.tell(role, process.log, process.loop)
    try:
        return await _SERVE[role](process)
    except OpenqmailError as error:
        process.failed(error)
        return 111
    finally:
        process.close()


def _kept(role: Role, inherited: Inherited) -> set[int]:
    kept: set[int] = set()
    if role == "smtpd":
        kept = {one.fileno() for some in inherited.services().values() for one in some}
        if inherited.submit is not None:
            kept.add(inherited.submit.fileno())
    if role == "metrics":
        kept = {one.fileno() for one in inherited.metrics()}
    if inherited.tcpto is not None:
        kept.add(inherited.tcpto)
    if role == "send" and inherited.admin is not None:
        kept.add(inherited.admin.fileno())
    return kept
