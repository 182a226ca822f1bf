"""The spawner: starts a worker for a user, and hands its socket to who asked.

It runs as root in a home of root's, so it has no loop and no thread and looks at nothing but
users/cdb.  It tells a worker's uid by that file alone: who asks can name an address, not a user.
A worker has a socket to who asked for it and a pipe to the spawner; the end of either ends it.
Workers of one who is gone are killed, and their users have no other before they have ended, so no two
processes ever deliver the same message; one that cannot end, in a home on a server that does not
answer, keeps nobody else waiting.  Who asks by the port `check` gets workers that only tell
whether there is a mailbox; they are counted by themselves, and nobody waits for them.  Who asks by the
port `logins`, which is gate, has programs run that check a password (logins.py).  Who asks by the port
`programs`, which is a front end, gets one that runs the programs of hooks, as the front end's own user,
and only while control/hooks names any.  Those who ask take turns, a word each: whoever says much at once
keeps only himself waiting.
"""

import contextlib
import os
import select
import signal
import socket
import time
from collections import deque

from openqmail.core.control.accounts import Account
from openqmail.core.control.assign import Users, owner_of
from openqmail.core.service.frames import supervision as said
from openqmail.core.service.frames.blocking import BlockingChannel
from openqmail.core.service.frames.codec import FrameError
from openqmail.core.service.frames.spawning import (
    Kill,
    Refused,
    Start,
    Started,
    StartPrograms,
    ToSpawner,
)
from openqmail.core.service.processes.forking import forked, give_back_files
from openqmail.core.service.processes.logins import LoginChecks
from openqmail.core.service.processes.process import Inherited
from openqmail.core.service.processes.programs import run_programs
from openqmail.core.service.processes.worker import run_worker
from openqmail.core.values import Outcome, Result

MOST = 100
"""Workers at once that deliver; who asks keeps to less."""

CHECKERS = 32
"""Workers at once for checks, however many front ends there are."""

RUNNERS = 2
"""Workers that run programs for one front end: one that ends, and the next."""

PATIENCE = 5.0
"""Seconds in which a worker that was killed ends, as a rule: who wants another of its user waits so
long, and is refused then."""

_NO_HOOKS = Result(Outcome.DEFERRAL, b"No program is run: control/hooks names no hook. (#4.3.5)\n")
_STUCK = b"An earlier delivery to this user does not end. (#4.3.0)\n"
_MANY = b"Too many deliveries run already. (#4.3.0)\n"
_NO_FORK = b"Unable to fork qmail-local. (#4.3.0)\n"


class _Client:
    """One who asks, and the pids of the workers that were made for it."""

    def __init__(self, connection: socket.socket, port: str) -> None:
        self.port = port
        self.delivers = port == "local"
        # What may be asked at a time has room in the socket: only one who is not ours leaves it full.
        self.channel = BlockingChannel(connection, ToSpawner, descriptors=False, patient=False)
        self.said: deque[Start | StartPrograms | Kill] = deque()
        """What has come and had no turn yet; until then nothing more is read."""
        self.workers: set[int] = set()
        self.asked: dict[int, int] = {}
        """The id by which a worker was asked for -> its pid."""


class Spawner:
    """Serves until its supervisor is gone, or says so and nobody delivers any more: who only checks
    recipients is given the next one."""

    def __init__(self, control: socket.socket, inherited: Inherited) -> None:
        self._inherited = inherited
        self._home = inherited.home
        self._users = Users(os.path.join(self._home.users, "cdb"))
        self._alias = inherited.accounts.alias_in(self._home)
        self._control = BlockingChannel(control, said.ToChild)
        self._clients: list[_Client] = []
        self._logins = LoginChecks(self._home, inherited.settings)
        self._uids: dict[int, int] = {}
        self._ending: dict[int, float] = {}
        """Workers that delivered and were killed -> until when their end is waited for."""
        self._waiting: list[tuple[_Client, Start]] = []
        """Who wants a worker of a user that has such a one."""
        self._killed: set[int] = set()
        """Workers for checks whose client is gone: one in a home that does not answer ends late."""
        self._life_of_workers, self._life = os.pipe2(os.O_CLOEXEC)
        self._leaving = False

    def run(self) -> int:
        child_ended, self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        self._control.send(said.Ready())
        give_back_files()
        while not self._leaving or self._logins.busy or any(one.delivers for one in self._clients):
            channels = {client.channel.fileno(): client for client in self._clients}
            logins = self._logins.watched()
            watched = [self._control.fileno(), child_ended, *channels, *logins]
            patience = 0.0 if any(client.said for client in self._clients) else self._patience()
            try:
                readable = select.select(watched, (), (), patience)[0]
            except InterruptedError:
                continue
            if child_ended in readable:
                with contextlib.suppress(BlockingIOError):
                    os.read(child_ended, 4096)
                self._reap()
            self._logins.reap()
            if self._control.fileno() in readable and not self._hear():
                break
            for client in [one for number, one in channels.items() if one.said or number in readable]:
                self._answer(client)
            for asking in [logins[one] for one in readable if one in logins]:
                self._logins.hear(asking)
            self._try_again()
        for client in list(self._clients):
            self._end(client)
        while self._ending and (left := max(self._ending.values()) - time.monotonic()) > 0:
            select.select([child_ended], (), (), left)
            with contextlib.suppress(BlockingIOError):
                os.read(child_ended, 4096)
            self._reap()
        self._logins.close()
        return 0

    # --- the supervisor -----------------------------------------------------------------

    def _hear(self) -> bool:
        """False: end now."""
        try:
            heard = self._control.receive()
        except FrameError:
            return False
        if heard is None:
            return False
        for message, descriptors in heard:
            if isinstance(message, said.Peer) and message.port == "logins":
                for one in descriptors:
                    self._logins.serve(socket.socket(fileno=one))
            elif isinstance(message, said.Peer):
                self._clients += [_Client(socket.socket(fileno=one), message.port) for one in descriptors]
            elif isinstance(message, said.Leave | said.Handover):
                self._leaving = True
            elif isinstance(message, said.Hurry):
                return False
        return True

    # --- who asks -----------------------------------------------------------------------

    def _answer(self, client: _Client) -> None:
        """One word of his: each may cost a fork, and others wait for theirs."""
        if not client.said:
            try:
                asked = client.channel.receive()
            except FrameError:
                asked = None
            if asked is None:
                self._end(client)
                return
            client.said.extend(message for message, _ in asked)
        if not client.said:
            return
        message = client.said.popleft()
        if isinstance(message, Kill):
            self._kill(client, message.id)
        elif isinstance(message, StartPrograms) != (client.port == "programs"):
            self._end(client)  # who may ask for the one may not ask for the other
        elif not self._start(client, message):
            self._end(client)

    def _kill(self, client: _Client, asked: int) -> None:
        """One of who asks; what it was is reaped as any other that ends."""
        pid = client.asked.get(asked)
        if pid in client.workers:
            client.workers.discard(pid)
            self._kill_all({pid}, client.delivers)

    def _kill_all(self, workers: set[int], deliver: bool) -> None:
        """They belong to nobody any more, and count until they have ended."""
        for pid in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if deliver:
            self._ending |= dict.fromkeys(workers, time.monotonic() + PATIENCE)
        else:
            self._killed |= workers
        self._reap()

    def _start(self, client: _Client, asked: Start | StartPrograms) -> bool:
        """False when who asked is gone."""
        account = self._account(asked.local) if isinstance(asked, Start) else self._of_programs()
        if isinstance(account, Result):
            return client.channel.send(Refused(asked.id, account.text))
        if isinstance(asked, Start) and client.delivers and (until := self._ends_of(account.uid)):
            if max(until) <= time.monotonic():
                return client.channel.send(Refused(asked.id, _STUCK))
            self._waiting.append((client, asked))
            return True
        if self._many(client):
            return client.channel.send(Refused(asked.id, _MANY))
        try:
            ours, theirs = socket.socketpair()
        except OSError:
            return client.channel.send(Refused(asked.id, _NO_FORK))
        with ours, theirs:
            try:
                pid = forked(
                    f"worker of uid {account.uid}",
                    lambda: self._work(theirs, account, client),
                    self._inherited.settings.logformat,
                )
            except OSError:
                return client.channel.send(Refused(asked.id, _NO_FORK))
            client.workers.add(pid)
            client.asked = {number: one for number, one in client.asked.items() if one in client.workers}
            client.asked[asked.id] = pid
            self._uids[pid] = account.uid
            self._tell_workers()
            return client.channel.send(Started(asked.id, account.uid, account.gid), (ours.fileno(),))

    def _many(self, client: _Client) -> bool:
        """Whether as many of that kind run as may; those that were killed do until they have ended."""
        if client.port == "programs":
            return len(client.workers) >= RUNNERS
        running = sum(len(one.workers) for one in self._clients if one.port == client.port)
        if client.delivers:
            return running + len(self._ending) >= MOST
        return running + len(self._killed) >= CHECKERS

    def _of_programs(self) -> Account | Result:
        """As whom programs of hooks run: as the front end that asks for them."""
        if not self._inherited.settings.hooks:
            return _NO_HOOKS
        return Account("", *self._home.owner) if self._home.uid else self._inherited.accounts.smtpd

    def _ends_of(self, uid: int) -> list[float]:
        """Until when the workers of a user that were killed are waited for; none when all have ended."""
        return [until for pid, until in self._ending.items() if self._uids.get(pid) == uid]

    def _patience(self) -> float | None:
        """Seconds until the first of those who wait for such a one may be refused, or a program that checks a
        password has had its time."""
        checks = self._logins.patience()
        if not self._waiting:
            return checks
        now = time.monotonic()
        until = max(0.0, min((one for one in self._ending.values() if one > now), default=now) - now)
        return until if checks is None else min(until, checks)

    def _try_again(self) -> None:
        waiting, self._waiting = self._waiting, []
        for client, asked in waiting:
            if client in self._clients and not self._start(client, asked):
                self._end(client)

    def _account(self, local: bytes) -> Account | Result:
        """Whose worker an address needs, by users/cdb; or why there can be none."""
        if self._home.uid:
            return Account("", *self._home.owner)
        user = owner_of(local, self._users, self._alias)
        return user if isinstance(user, Result) else Account(os.fsdecode(user.name), user.uid, user.gid)

    def _work(self, connection: socket.socket, account: Account, client: _Client) -> int:
        """In the worker."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.close(self._life)
        keep = {connection.fileno(), self._life_of_workers}
        life, inherited = self._life_of_workers, self._inherited
        if client.port == "programs":
            return run_programs(connection, life, keep, inherited, account)
        return run_worker(connection, life, keep, inherited, account, delivers=client.delivers)

    # --- ends ---------------------------------------------------------------------------

    def _end(self, client: _Client) -> None:
        """Workers that deliver must not go on: another may deliver the same messages soon."""
        client.channel.close()
        self._clients.remove(client)
        if client.port == "programs":  # they end with their connection, and what they run with them
            self._killed |= client.workers
        else:
            self._kill_all(client.workers, client.delivers)

    def _reap(self) -> None:
        for pid in list(self._uids):
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0] == 0:
                    continue
            del self._uids[pid]
            self._ending.pop(pid, None)
            self._killed.discard(pid)
            for client in self._clients:
                client.workers.discard(pid)
        self._tell_workers()

    def _tell_workers(self) -> None:
        self._control.send(said.Workers(tuple(self._uids.items())))


def run_spawner(control: socket.socket, inherited: Inherited) -> int:
    return Spawner(control, inherited).run()
