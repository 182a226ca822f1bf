"""The process that says how much is too much, and who is who, for all front ends together."""

from openqmail.core.control.reader import read_settings
from openqmail.core.gate import Gatehouse
from openqmail.core.service.frames.gate import GateServer
from openqmail.core.service.frames.lockouts import LockoutsServer
from openqmail.core.service.frames.logins import LoginChecksClient
from openqmail.core.service.processes.process import Process
from openqmail.core.service.processes.tallies import LoginTally
from openqmail.core.values import OpenqmailError


async def serve(process: Process) -> int:
    """Until it is told to leave."""
    checks = LoginChecksClient()
    tally = LoginTally(process.log)
    house = Gatehouse(process.home, process.settings, checks, process.clock, tally)
    server, lockouts = GateServer(house.gate, process.alert), LockoutsServer(house.gate)

    def reload() -> None:
        try:
            settings = read_settings(process.home)
        except OpenqmailError as error:
            process.alert(f"the limits stay as they were: {error}")
            return
        house.reconfigure(settings)
        process.settings = settings
        process.log.form = settings.logformat

    process.reload = reload
    process.peers |= {"gate": server.serve, "logins": checks.attach, "lockouts": lockouts.serve}
    process.figures = lambda: {**tally.figures(), "lockouts": house.gate.lockouts()}
    await house.start(server.tell_mechanisms)
    process.ready()
    await process.leave()
    server.close()
    lockouts.close()
    checks.close()
    await house.close()
    return 0
