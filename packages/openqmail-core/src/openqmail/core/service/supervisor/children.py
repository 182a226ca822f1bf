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
    become,
    forbid_calls,
    harden,
    leave_terminal,
    limit_memory,
    wall_in,
    walls_of,
)
from openqmail.core.service.frames.blocking import BlockingChannel
from openqmail.core.service.loops import close_all_but, new_loop
from openqmail.core.service.processes import gate, remote, send, smtpd
from openqmail.core.service.processes.forking import forked
from openqmail.core.service.processes.local import run_spawner
from openqmail.core.service.processes.process import Inherited, Process
from openqmail.core.service.supervisor import messages as said
from openqmail.core.service.supervisor.machine import Role
from openqmail.core.values import OpenqmailError
from openqmail.core.world import SystemClock

_SERVE: dict[str, Callable[[Process], Awaitable[int]]] = {
    "gate": gate.serve,
    "remote": remote.serve,
    "send": send.serve,
    "smtpd": smtpd.serve,
}


def account_of(role: Role, accounts: Accounts) -> Account | None:
    """As whom a role runs; None: as the supervisor."""
    return None if role == "local" else getattr(accounts, role)


def fork(role: Role, control: socket.socket, inherited: Inherited) -> int:
    """Make a child of this role; its pid.  Returns only in the parent.  Raises OSError."""
    return forked(role, lambda: _live(role, control, inherited))


def _live(role: Role, control: socket.socket, inherited: Inherited) -> int:
    try:
        return _run(role, control, inherited)
    except OpenqmailError as error:
        BlockingChannel(control, said.ToChild).send(said.Failed(str(error), 111))
        return 111


def _run(role: Role, control: socket.socket, inherited: Inherited) -> int:
    if role == "remote":
        inherited.tcpto = _open_tcpto(inherited)
    enter(role, inherited, {0, 1, 2, control.fileno(), *_kept(role, inherited)})
    if role == "local":
        return run_spawner(control, inherited)
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(_serve(role, control, inherited))


def enter(role: Role, inherited: Inherited, keep: set[int]) -> None:
    """Become what this role is, for good: of the supervisor only these descriptors, its own user,
    behind its walls."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # the supervisor's alone
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    close_all_but(keep)
    leave_terminal()
    os.umask(0o077)
    account = account_of(role, inherited.accounts)
    if account is None:
        harden(no_new_privileges=False)
        return
    become(account)
    harden(no_new_privileges=True)
    limit_memory(role)
    missing = wall_in(walls_of(role, inherited.home))
    if missing:
        LogWriter(sys.stderr.fileno(), SystemClock())(Notice(f"{role}: {missing}"))
    forbid_calls(role)


def _open_tcpto(inherited: Inherited) -> int | None:
    """As the queue's owner, so that nothing in his folder leads root anywhere."""
    send = inherited.accounts.send
    with acting_as(send.uid, send.gid):
        return open_file(inherited.home.queue)


async def _serve(role: Role, control: socket.socket, inherited: Inherited) -> int:
    process = Process(role, control, inherited)
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
        kept = {one.fileno() for some in inherited.listening.values() for one in some}
        if inherited.submit is not None:
            kept.add(inherited.submit.fileno())
    if inherited.tcpto is not None:
        kept.add(inherited.tcpto)
    if role == "send" and inherited.admin is not None:
        kept.add(inherited.admin.fileno())
    return kept
