"""The process that says how much is too much, for all front ends together."""

from openqmail.core.control.reader import read_settings
from openqmail.core.gate import LocalGate, limits_of
from openqmail.core.service.frames.gate import GateServer
from openqmail.core.service.processes.process import Process
from openqmail.core.values import OpenqmailError


async def serve(process: Process) -> int:
    """Until it is told to leave."""
    gate = LocalGate(limits_of(process.settings))
    server = GateServer(gate)

    def reload() -> None:
        try:
            settings = read_settings(process.home)
        except OpenqmailError as error:
            process.alert(f"the limits stay as they were: {error}")
            return
        gate.reconfigure(limits_of(settings))
        process.log.form = settings.logformat

    process.reload = reload
    process.peers["gate"] = server.serve
    process.ready()
    await process.leave()
    server.close()
    return 0
