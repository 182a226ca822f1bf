"""A delivery on its way to another host: what is left to try, and what went wrong so far; and who is told by
the connection that it is on."""

import asyncio
from math import inf
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

from openqmail.core.ports import RemoteJob
from openqmail.core.remote import report
from openqmail.core.remote.transport import Source, Stop
from openqmail.core.smtp.client_events import Transaction
from openqmail.core.values import Result

if TYPE_CHECKING:
    from openqmail.core.remote.connection import Connection

SECONDS_TO_AGREE = 600.0
"""From the first connection of a delivery until the host wants the message."""
SECONDS_A_RECIPIENT = 5.0
"""And so many more for each: what a tarpit that means well takes."""


class Attempt(msgspec.Struct, eq=False):
    """A delivery on its way: what is left to try, and what went wrong with what was tried."""

    job: RemoteJob
    stops: tuple[Stop, ...]
    source: Source
    future: "asyncio.Future[tuple[Result, ...]]"
    problem: Result = report.NOT_CONNECTED
    eight_bit: bool = False
    size: int = 0
    """On the wire."""
    wire: bytes | None = None
    """The whole body as it stands there, where it is small."""
    until: float = inf
    """When the time for all that comes before the message ends, by the loop's clock."""

    def connected(self, now: float) -> None:
        if self.until == inf:
            self.until = now + SECONDS_TO_AGREE + SECONDS_A_RECIPIENT * len(self.job.recipients)

    def transaction(self) -> Transaction:
        """What the machine is to say of it."""
        job = self.job
        return Transaction(
            job.sender, job.recipients, self.size, self.eight_bit, job.smtputf8, job.envid, job.ret, job.dsn
        )

    def finish(self, results: tuple[Result, ...]) -> None:
        if not self.future.done():
            self.future.set_result(results)

    def finish_all(self, result: Result) -> None:
        self.finish((result,) * len(self.job.recipients))


State = Literal["opening", "busy", "idle", "leaving", "gone"]
"""Of a connection; in `opening` it has no transaction yet."""


class Owner(Protocol):
    """What a connection tells."""

    def opened(self, connection: "Connection") -> None: ...

    def answered(self, connection: "Connection") -> None:
        """The peer is there: it has greeted us, or said that it will not."""
        ...

    def idle(self, connection: "Connection") -> bool:
        """A transaction is over; False: it should not be kept."""
        ...

    def try_again(self, attempt: Attempt) -> None:
        """The next of `attempt.stops`, on a new connection."""
        ...

    def gone(self, connection: "Connection") -> None: ...
