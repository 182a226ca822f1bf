"""What supervisor and children say to each other, as frames over a socket that each child has.

The end of that socket is the end of the other: a child whose supervisor is gone ends.
"""

from typing import Any

import msgspec

from openqmail.core.service.figures import Numbers
from openqmail.core.service.frames.codec import understand
from openqmail.core.values import OpenqmailError, TemporaryFailure


class Peer(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Comes with a connection: to whom serves this port, or from one who asks for it."""

    port: str


class Leave(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """End what is under way and then yourself, within so many seconds (inf: as long as that takes)."""

    seconds: float


class Handover(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """End soon, and leave everything where the next process finds it."""


class Hurry(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """End now."""


class Reload(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """The control files have changed, and are good."""


class Flush(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """Try everything now."""


class Process(msgspec.Struct, frozen=True):
    """One line of `status`; `rss` in bytes, `work`: connections and deliveries in hand."""

    name: str
    pid: int
    uid: int
    generation: int
    rss: int
    work: int


class State(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """What the supervisor knows, for `status`; `listen`: service and address of each listener; `refusals`:
    upgrades that it has refused, the last one for what `refusal` says."""

    state: str
    pid: int
    since: int
    listen: tuple[tuple[str, str], ...]
    processes: tuple[Process, ...]
    refusals: int = 0
    refusal: str = ""


class Figures(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """What is counted, by role; `grown` only grows.  `since`: when the service began, seconds UTC."""

    since: int
    processes: tuple[Process, ...]
    grown: dict[str, Numbers]
    present: dict[str, Numbers]


ToChild = Peer | Leave | Handover | Hurry | Reload | Flush | State | Figures


class Ready(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """It does its work; `note` is for the line that says so."""

    note: str = ""


class Failed(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """It cannot, and ends with `code`; `why` is a sentence for the administrator."""

    why: str
    code: int

    @classmethod
    def of(cls, error: OpenqmailError) -> "Failed":
        """111: trying again may help; 100: something has to be mended first."""
        return cls(str(error), 111 if isinstance(error, TemporaryFailure) else 100)


class Work(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """How much it has in hand."""

    count: int


class Workers(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """The spawner's children: pid and uid of each."""

    workers: tuple[tuple[int, int], ...]


class AskState(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """A `State`, please."""


class Counted(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """What was added to its figures that only grow, and what the others are (service/figures.py)."""

    added: Numbers
    present: Numbers


class AskFigures(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """The `Figures`, please."""


_FROM: dict[str, Any] = {
    "send": Ready | Failed | Work | AskState | Counted,
    "smtpd": Ready | Failed | Work | Counted,
    "gate": Ready | Failed | Work | Counted,
    "remote": Ready | Failed | Work | Counted,
    "local": Ready | Failed | Work | Workers,
    "metrics": Ready | Failed | Work | AskFigures,
}


def from_child(role: str) -> Any:
    """The union of what a child of this role may say."""
    return _FROM.get(role, Ready | Failed | Work)


understand(ToChild, *map(from_child, ("gate", "local", "metrics", "remote", "send", "smtpd")))
