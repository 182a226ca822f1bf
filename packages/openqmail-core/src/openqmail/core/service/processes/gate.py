"""The process that says how much is too much, and who is who, for all front ends together."""

import asyncio

from openqmail.core.control.logins import Logins
from openqmail.core.control.reader import read_settings
from openqmail.core.control.smtpauth import path_of
from openqmail.core.gate import Authentication, BackEnds, Guard, LocalGate, limits_of
from openqmail.core.service.frames.gate import GateServer
from openqmail.core.service.frames.lockouts import LockoutsServer
from openqmail.core.service.frames.logins import LoginChecksClient
from openqmail.core.service.processes.process import Process
from openqmail.core.service.processes.tallies import LoginTally
from openqmail.core.values import OpenqmailError

TELL_AGAIN = 60.0
"""Seconds between two alerts that say the same."""


async def serve(process: Process) -> int:
    """Until it is told to leave."""
    checks = LoginChecksClient()
    back_ends = BackEnds(Logins(path_of(process.home)), checks, _Seldom(process))
    back_ends.reconfigure(process.settings)
    guard = Guard(process.settings.authfailures)
    tally = LoginTally(process.log)
    authentication = Authentication(back_ends, guard, process.clock, tally)
    gate = LocalGate(limits_of(process.settings), authentication=authentication)
    server, lockouts = GateServer(gate), LockoutsServer(gate)
    authentication.changed = server.tell_mechanisms

    def reload() -> None:
        try:
            settings = read_settings(process.home)
        except OpenqmailError as error:
            process.alert(f"the limits stay as they were: {error}")
            return
        gate.reconfigure(limits_of(settings))
        guard.reconfigure(settings.authfailures)
        back_ends.reconfigure(settings)
        server.tell_mechanisms()
        process.settings = settings
        process.log.form = settings.logformat

    process.reload = reload
    process.peers |= {"gate": server.serve, "logins": checks.attach, "lockouts": lockouts.serve}
    process.figures = lambda: {**tally.figures(), "lockouts": gate.lockouts()}
    await authentication.start()
    process.ready()
    await process.leave()
    server.close()
    lockouts.close()
    checks.close()
    await authentication.close()
    return 0


class _Seldom:
    """Alerts; strangers shall not fill the log with one."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._said: dict[str, float] = {}

    def __call__(self, sentence: str) -> None:
        now = asyncio.get_running_loop().time()
        self._said = {text: when for text, when in self._said.items() if now - when < TELL_AGAIN}
        if sentence not in self._said:
            self._said[sentence] = now
            self._process.alert(sentence)
