"""The process of the front ends: connections from the network, and from this host's programs."""

import asyncio

from openqmail.core.control.settings import Listener
from openqmail.core.hooks import load_chain
from openqmail.core.log import Log
from openqmail.core.ports import ServiceContext
from openqmail.core.service.frames.gate import GateClient
from openqmail.core.service.frames.programs import ProgramsClient
from openqmail.core.service.frames.submission import SubmissionClient
from openqmail.core.service.listeners import Listeners
from openqmail.core.service.processes.process import Process, local_client
from openqmail.core.service.processes.receptions import Receptions
from openqmail.core.service.waiting import LOOK_AGAIN, until
from openqmail.core.smtpd import client_resolver
from openqmail.core.world import UnwaitedThreads

CHECKERS = 8
"""Workers that tell which recipients have a mailbox, at once; they are others than those that
deliver, so guessing addresses keeps no mail waiting."""

DRAIN = 20.0
"""Seconds that sessions have to end in where nobody says how many: as at the end of the service."""


async def serve(process: Process) -> int:
    """Until it is told to leave and its connections have ended."""
    process.loop.set_default_executor(UnwaitedThreads())  # hooks may use it
    settings = process.settings

    def alone() -> None:
        if not process.leaving.is_set():
            process.alert("smtpd: gate does not answer any more, and no other has come; starting anew")
            process.leave_within(DRAIN)

    submission, gate = SubmissionClient(), GateClient(alone=alone)
    local = local_client(process.inherited, CHECKERS)
    process.peers |= {"submission": submission.attach, "gate": gate.attach, "check": local.attach}
    programs = ProgramsClient()
    process.peers["programs"] = programs.attach
    resolver = client_resolver(settings)
    receptions = Receptions(process.log)
    log: Log = receptions if settings.metrics else process.log
    hooks = load_chain(settings, log, process.clock, "smtpd", programs)

    def context(listener: Listener) -> ServiceContext:
        return ServiceContext(
            listener=listener,
            settings=settings,
            submission=submission,
            gate=gate,
            hooks=hooks,
            log=log,
            clock=process.clock,
            recipients=local if settings.checkrcpt else None,
            resolver=resolver,
            tls=process.inherited.tls,
        )

    listeners = Listeners(context)
    await listeners.serve(process.inherited.services(), process.inherited.submit)
    process.work = lambda: listeners.active
    process.figures = lambda: {"connections_open": (listeners.active,), **receptions.figures()}
    process.ready()
    await process.leave()
    listeners.drain()
    gate.drain()
    await asyncio.sleep(LOOK_AGAIN)  # whom the kernel has let in just before is served as well
    await until(lambda: not (listeners.active or hooks.busy) or process.out_of_time)
    listeners.abort()
    submission.close()
    await local.close()
    programs.close()
    gate.close()
    return 0
