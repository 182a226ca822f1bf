"""How the service is: the line that says that it serves, and the form of `openqmail status --json`."""

import os
from collections.abc import Iterable

import msgspec

from openqmail.core.__about__ import FOLDER, __version__
from openqmail.core.control.home import Home
from openqmail.core.ports import QueueTotals
from openqmail.core.service.frames.supervision import Process, State
from openqmail.core.service.queueing import Queueing


class Status(msgspec.Struct, frozen=True):
    """`listen`: objects of service and address; `processes`: as the supervisor knows them; `refusals`:
    upgrades that it has refused, the last one for what `refusal` says; `settings`: when the queue's process
    read the control files that are in force, seconds UTC; `program`: the folder of what serves, by its real
    name; `queue`: None while it is not opened yet."""

    v: int
    state: str
    pid: int
    version: str
    since: int
    listen: list[dict[str, str]]
    queue: QueueTotals | None
    running: dict[str, int]
    processes: list[Process]
    refusals: int = 0
    refusal: str = ""
    settings: int = 0
    program: str = FOLDER


def status_of(queueing: Queueing | None, version: str, state: State | None, settings: int = 0) -> Status:
    """`queueing`: None before the queue is opened; `state`: None when the supervisor does not answer."""
    local, remote = queueing.sender.running if queueing else (0, 0)
    return Status(
        v=1,
        state=state.state if state else "starting",
        pid=state.pid if state else os.getppid(),
        version=version,
        since=state.since if state else 0,
        listen=[{"service": name, "address": where} for name, where in state.listen] if state else [],
        queue=queueing.admin.totals() if queueing else None,
        running={"local": local, "remote": remote},
        processes=list(state.processes) if state else [],
        refusals=state.refusals if state else 0,
        refusal=state.refusal if state else "",
        settings=settings,
    )


def resident(pid: int) -> int:
    """Bytes of memory that a process holds, 0 where the system does not tell."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as table:
            return int(table.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def serving(home: Home, listen: Iterable[tuple[str, str]], pid: int, found: str) -> str:
    """The line that says that everything is there."""
    where = ", ".join(f"{service} {address}" for service, address in listen)
    where = where or "no listeners, control/listen names none"
    more = f"; {found}" if found else ""
    return f"openqmail {__version__} serving {home.path}: {where}, pid {pid}{more}"
