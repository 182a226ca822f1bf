"""A worker: delivers to one user, as that user; or tells which addresses are theirs, and nothing else.

It gives up everything that the spawner has before it looks at anything of the user's.  No file
that it opens for itself stays open in a program that a `.qmail` file starts.
"""

import asyncio
import os
import socket
import sys
from functools import partial

from openqmail.core.control.accounts import Account
from openqmail.core.control.assign import User, UserChanged, Users
from openqmail.core.local import LocalDeliveries
from openqmail.core.log import LogWriter
from openqmail.core.service.confine import become, harden
from openqmail.core.service.frames.local import CheckServer, LocalServer
from openqmail.core.service.loops import close_all_but, new_loop
from openqmail.core.service.processes.process import LOG_DELAY, Inherited
from openqmail.core.world import PosixDisk, SystemClock


def run_worker(
    connection: socket.socket,
    life: int,
    keep: set[int],
    inherited: Inherited,
    account: Account,
    *,
    delivers: bool = True,
) -> int:
    """From the fork to the end of the connection, or of the spawner."""
    close_all_but(keep | {0, 1, 2})
    become(account)
    harden(no_new_privileges=not delivers)  # programs of users may be setuid, as everywhere
    os.umask(0o077)
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(_serve(connection, life, inherited, account, delivers))


async def _serve(
    connection: socket.socket, life: int, inherited: Inherited, account: Account, delivers: bool
) -> int:
    loop, home, clock = asyncio.get_running_loop(), inherited.home, SystemClock()
    soon, form = partial(loop.call_later, LOG_DELAY), inherited.settings.logformat
    log = LogWriter(sys.stderr.fileno(), clock, soon, form)
    users = Users(os.path.join(home.users, "cdb"))
    own = _OwnUsers(users, account.uid, inherited.accounts.alias.uid) if home.uid == 0 else users
    local = LocalDeliveries(home, inherited.settings, PosixDisk(), clock, own)
    server = LocalServer(local) if delivers else CheckServer(local)
    ended = asyncio.Event()
    server.on_end = ended.set
    server.serve(connection)
    loop.add_reader(life, ended.set)  # the spawner is gone
    await ended.wait()
    await local.close()
    log.flush()
    return 0


class _OwnUsers:
    """Only the addresses whose user this worker is; those that nobody has are `alias`'s."""

    def __init__(self, users: Users, uid: int, alias: int) -> None:
        self._users, self._uid, self._alias = users, uid, alias

    def find(self, local: bytes) -> User | None:
        user = self._users.find(local)
        if (self._alias if user is None else user.uid) != self._uid:
            raise UserChanged("the address has another user now")
        return user
