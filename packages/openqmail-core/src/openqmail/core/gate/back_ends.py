"""Who knows the users: users/smtpauth first, then what control/checkpassword and its like name.

Whoever says yes decides.  Where nobody does, but one could not tell, the login is put off; a no of the
other is counted all the same, as it answers a guess.  Passwords are checked in threads, `THREADS` at once as
each takes 19 MiB and a processor; programs are run by the spawner.  Their interface is checkpassword's, byte
for byte (cr.yp.to/checkpwd/interface.html): login, password and a time, each with a NUL behind it, `SHORT`
bytes at most.  For CRAM-MD5 the second is the response and the third the challenge; for a token, which may
be longer, the second is the token.
"""

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from openqmail.core.control.logins import Judgement, Logins
from openqmail.core.control.mechanisms import OF_PROGRAMS, Served, chosen
from openqmail.core.control.settings import Settings
from openqmail.core.ports.logins import LoginChecks, Program
from openqmail.core.sasl import (
    Answer,
    CheckPassword,
    CheckResponse,
    CheckToken,
    Later,
    No,
    Query,
    Secrets,
    Yes,
)
from openqmail.core.values import TemporaryFailure

THREADS = max(1, min(4, os.cpu_count() or 1))

WAITING = 200
"""Logins that wait for a thread or a program; more are put off."""

RUNNING = 16
"""Programs at once."""

SHORT = 512
"""Bytes that a checkpassword program is given at most."""


class BackEnds:
    """`alert` is told what keeps logins from being judged.  It is asked in the loop's thread."""

    def __init__(self, logins: Logins, checks: LoginChecks, alert: Callable[[str], None]) -> None:
        self._logins = logins
        self._checks = checks
        self._alert = alert
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="logins")
        self._programs: frozenset[str] = frozenset()
        self._named: frozenset[bytes] = frozenset()
        self._slots = asyncio.Semaphore(RUNNING)
        self._waiting = 0
        self._served = Served()

    def reconfigure(self, settings: Settings) -> None:
        """Which programs are asked, and what may be offered.  Whether a program is there counts when it is
        asked: while it is not, nobody can tell."""
        self._programs = frozenset(name for name in OF_PROGRAMS if getattr(settings, name))
        self._named = settings.authmechanisms

    @property
    def mechanisms(self) -> frozenset[bytes]:
        """What is offered, as of the last `look`."""
        return chosen(self._served, self._programs, self._named)

    async def look(self) -> None:
        """Whether users/smtpauth has changed."""
        if self._logins.changed():
            loop = asyncio.get_running_loop()
            try:
                self._served = await loop.run_in_executor(self._pool, self._logins.served)
            except TemporaryFailure as error:
                self._alert(str(error))

    async def answer(self, query: Query, client: str) -> Answer:
        """`client`: its address."""
        if self._waiting >= WAITING:
            return Later()
        self._waiting += 1
        try:
            first = await self._by_file(query)
            if isinstance(first, Yes | Secrets):
                return first
            then = await self._by_program(query, client)
            return then if isinstance(then, Yes) else _undecided(first, then)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _by_file(self, query: Query) -> Answer | None:
        """None where it is not for the file to tell."""
        if isinstance(query, CheckToken):
            return None
        loop = asyncio.get_running_loop()
        try:
            judged = await loop.run_in_executor(self._pool, self._judged, query)
        except (TemporaryFailure, MemoryError) as error:
            self._alert(str(error) or "there is too little memory to check a password")
            return Later()
        if judged is None:
            return None
        if judged.trouble:
            self._alert(judged.trouble)
        if judged.rehash is not None:
            self._checks.strengthen(judged.rehash)
        return judged.answer

    def _judged(self, query: Query) -> Judgement | None:
        """In a thread.  None where the file has nobody's login."""
        return self._logins.answer(query) if self._logins.served().some else None

    async def _by_program(self, query: Query, client: str) -> Answer | None:
        """None where no program is asked."""
        asked = _told(query)
        if asked is None or asked[0] not in self._programs:
            return None
        program, told = asked
        if len(told) > SHORT and program != "checktoken":
            return None
        async with self._slots:
            code = await self._checks.check(program, told, client)
        if code == 0:
            return Yes(query.login)
        if code == 1:
            return No()
        if code is not None:
            self._alert(f"control/{program}: the program cannot tell who may log in, it ended with {code}")
        return Later()


def _undecided(*answers: Answer | None) -> Answer:
    """What comes of those who were asked, where none of them has said yes."""
    refused = any(isinstance(one, No) or (isinstance(one, Later) and one.refused) for one in answers)
    return Later(refused) if any(isinstance(one, Later) for one in answers) else No()


def _told(query: Query) -> tuple[Program, bytes] | None:
    """Which program is asked, and what; None where none can be."""
    now = b"Y%d" % time.time()
    match query:
        case CheckPassword(login, password):
            return "checkpassword", _fields(login, password, now)
        case CheckResponse(login, challenge, response):
            return "checkcram", _fields(login, response, challenge)
        case CheckToken(login, token) if login and b"\0" not in login + token:
            return "checktoken", _fields(login, token, now)
    return None


def _fields(*fields: bytes) -> bytes:
    return b"".join(field + b"\0" for field in fields)
