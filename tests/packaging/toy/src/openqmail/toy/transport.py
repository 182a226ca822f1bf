"""A way out that takes everything and leaves it at that."""

import asyncio

from openqmail.core.control.settings import Settings
from openqmail.core.log import Log
from openqmail.core.ports import RemoteJob
from openqmail.core.remote.transport import Source, Stop, Timeouts
from openqmail.core.values import Outcome, Result


class ToyTransport:
    def __init__(self, settings: Settings, log: Log, timeouts: Timeouts) -> None:
        self._me = settings.me

    def deliver(
        self, job: RemoteJob, stops: tuple[Stop, ...], source: Source
    ) -> "asyncio.Future[tuple[Result, ...]]":
        done = asyncio.get_running_loop().create_future()
        text = b"the toy took it to " + stops[0].address.encode() + b"\n"
        done.set_result(tuple(Result(Outcome.SUCCESS, text) for _ in job.recipients))
        return done

    def reconfigure(self, settings: Settings) -> None:
        self._me = settings.me

    async def close(self) -> None:
        pass
