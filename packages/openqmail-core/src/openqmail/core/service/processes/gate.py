"""The process that says how much is too much, and who is who, for all front ends together."""

from openqmail.core.control.reader import read_settings
from openqmail.core.gate import Gatehouse
from openqmail.core.service.frames.gate import GateServer
from openqmail.core.service.frames.logins import LoginChecksClient
from openqmail.core.service.processes.process import Process
from openqmail.core.values import OpenqmailError


async def serve(process: Process) -> int:
    """Until it is told to leave."""
    checks = LoginChecksClient()
    house = Gatehouse(process.home, process.settings, checks, process.clock, process.log)
    server = GateServer(house.gate)

    def reload() -> None:
        try:
            settings = read_settings(process.home)
        except OpenqmailError as error:
            process.alert(f"the limits stay as they were: {error}")
            return
        house.reconfigure(settings)
        process.log.form = settings.logformat

    process.reload = reload
    process.peers |= {"gate": server.serve, "logins": checks.attach}
    await house.start(server.tell_mechanisms)
    process.ready()
    await process.leave()
    server.close()
    checks.close()
    await house.close()
    return 0
