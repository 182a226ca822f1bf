"""The process that speaks to other hosts."""

from openqmail.core.hooks import load_chain
from openqmail.core.remote import Remote, Timeouts
from openqmail.core.service.frames.remote import RemoteServer
from openqmail.core.service.processes.process import Process
from openqmail.core.service.processes.tallies import TlsTally
from openqmail.core.service.waiting import until
from openqmail.core.world import UnwaitedThreads


async def serve(process: Process) -> int:
    """Until it is told to leave and its deliveries have ended."""
    process.loop.set_default_executor(UnwaitedThreads())  # hooks may use it
    inherited = process.inherited
    tally = TlsTally(process.log)
    hooks = load_chain(process.settings, process.log, process.clock, "remote")
    remote = Remote(
        process.settings,
        tally if process.settings.metrics else process.log,
        timeouts=Timeouts(inherited.tcpto),
        keys=inherited.keys,
        hooks=hooks,
    )
    server = RemoteServer(remote)
    process.peers["remote"] = server.serve
    process.work = lambda: server.active
    process.figures = lambda: {
        "remote_connections_open": remote.connections()[:1],
        "remote_connections_total": remote.connections()[1:],
        **tally.figures(),
    }
    process.ready()
    await process.leave()
    await until(lambda: (server.idle and not hooks.busy) or process.out_of_time)
    server.close()
    await remote.close()
    return 0
