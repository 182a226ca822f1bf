"""The worker that runs the programs of hooks, for one front end and as its user, outside of its walls.

Nothing that it starts can become anybody else: programs that are setuid are not, here.
"""

import asyncio
import os
import signal
import socket

from openqmail.core.control.accounts import Account
from openqmail.core.service.confine import become, harden
from openqmail.core.service.frames.programs import ProgramsServer
from openqmail.core.service.loops import close_all_but, new_loop
from openqmail.core.service.processes.process import Inherited
from openqmail.core.service.programs import ProgramRunner


def run_programs(
    connection: socket.socket, life: int, keep: set[int], inherited: Inherited, account: Account
) -> int:
    """From the fork to the end of the connection, or of the spawner."""
    close_all_but(keep | {0, 1, 2})
    become(account)
    harden(no_new_privileges=True)
    os.umask(0o077)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM, signal.SIGUSR2):
        signal.signal(number, _heard)  # as good as ignored, but not by who is started
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(_serve(connection, life, inherited.home.path))


async def _serve(connection: socket.socket, life: int, folder: str) -> int:
    runner = ProgramRunner(folder)
    server = ProgramsServer(runner)
    ended = asyncio.Event()
    server.on_gone = ended.set
    server.serve(connection)
    asyncio.get_running_loop().add_reader(life, ended.set)  # the spawner is gone
    await ended.wait()
    await runner.close()
    return 0


def _heard(number: int, frame: object) -> None:
    """The supervisor's business."""
