"""The same MTA for tests that are coroutines: whatever waits is awaited, and the test's loop goes on."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

from openqmail.core.ports import MessageSummary
from openqmail.core.testing.mail import Mail, Message
from openqmail.core.testing.mta import Mta
from openqmail.core.testing.receiver import Receiver

P = ParamSpec("P")
R = TypeVar("R")


class AsyncMta:
    """See `Mta`, whose methods these are.  `mta` is the one that does it: what does not wait, such as
    `mta.log`, is asked there."""

    def __init__(
        self,
        users: Sequence[str] = ("alice",),
        domain: str = "a.example",
        receivers: Mapping[str, Receiver] | None = None,
        control: Mapping[str, str] | None = None,
        logins: Mapping[str, str] | None = None,
    ) -> None:
        self.mta = Mta(users, domain, receivers, control, logins)

    @property
    def port(self) -> int:
        return self.mta.port

    def mails(self, whom: str) -> list[Mail]:
        return self.mta.mails(whom)

    def sent(self, domain: str | None = None) -> list[Mail]:
        return self.mta.sent(domain)

    async def submit(self, sender: str, recipients: str | Sequence[str], message: Message) -> None:
        await _whole(self.mta.submit, sender, recipients, message)

    async def wait_for(self, whom: str, count: int = 1, seconds: float = 5.0) -> list[Mail]:
        return await _whole(self.mta.wait_for, whom, count, seconds)

    async def queue(self) -> list[MessageSummary]:
        return await _whole(self.mta.queue)

    async def control(self, name: str, text: str | None) -> None:
        await _whole(self.mta.control, name, text)

    async def start(self) -> None:
        await _whole(self.mta.start)

    async def stop(self) -> None:
        await _whole(self.mta.stop)

    async def crash(self) -> None:
        await _whole(self.mta.crash)

    async def close(self) -> None:
        await _whole(self.mta.close)

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


async def _whole(call: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
    """In a thread; a test that is cancelled waits for its end, so that two never run at a time."""
    task = asyncio.ensure_future(asyncio.to_thread(call, *arguments, **named))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait((task,))
        raise
