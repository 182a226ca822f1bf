"""Messages that are made out of others: each is made in a task of its own, and what came of it is told.

What they say and what is recorded with them is `Notices`' affair.  The manager hears of the message that
one was made of, the log's line on the new one names that, and what cannot be made is an alert: a bounce is
tried again by the manager, a forward is a deferral of its recipient, a notice is left out.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

import msgspec

from openqmail.core.log import Alert, Log, MessageInfo
from openqmail.core.ports import LocalReport
from openqmail.core.queue.store import Change, Stored
from openqmail.core.send import events
from openqmail.core.send.notices import Notices
from openqmail.core.values import OpenqmailError, Outcome, Result

_NOT_TOLD = "its sender is not told"


class Offspring:
    """`tell` gets events for the manager, `accept` each new message, and `made` before that of which message
    it was made, and whether it is a bounce, a notice or a forward."""

    def __init__(
        self,
        notices: Notices,
        tell: Callable[[events.Event], None],
        accept: Callable[[Stored], None],
        log: Log,
        made: Callable[[int, int, str], object],
    ) -> None:
        self._notices = notices
        self._tell = tell
        self._accept = accept
        self._log = log
        self._tell_made = made
        self._parents: dict[int, int] = {}
        """Of messages that were made here, until they are told."""
        self._tasks: set[asyncio.Task[None]] = set()

    def bounce(self, action: events.Bounce) -> None:
        failed = events.BounceFailed(action.number)
        self._spawn(self._make("bounce", partial(self._notices.bounce, action), failed, "will try again"))

    def notify(self, action: events.Notify) -> None:
        failed = events.NotifyFailed(action.number)
        self._spawn(self._make("notice", partial(self._notices.notify, action), failed, _NOT_TOLD))

    def forward(self, action: events.StartLocal, report: LocalReport) -> None:
        """What a delivery has put into Maildirs is durable; its forward closes the recipient."""
        self._spawn(self._forward(action, report))

    def named(self, event: MessageInfo) -> MessageInfo:
        """The line on a new message, with what it was made of."""
        parent = self._parents.pop(event.number, None) if self._parents else None
        return event if parent is None else msgspec.structs.replace(event, parent=parent)

    async def _make(
        self,
        what: str,
        make: Callable[[], Awaitable[Stored]],
        failed: events.BounceFailed | events.NotifyFailed,
        then: str,
    ) -> None:
        """A new message and what it does to the one that it tells of are one record."""
        try:
            new = await make()
        except (OSError, KeyError, OpenqmailError) as error:
            self._not_queued(what, failed.number, error, then)
            self._tell(failed)
            return
        self._tell(events.Recorded(failed.number))
        self._made(failed.number, new, what)

    async def _forward(self, action: events.StartLocal, report: LocalReport) -> None:
        assert report.forward is not None
        change = Change(action.position, report.result.outcome, report.result.text)
        try:
            new = await self._notices.forward(action, report.forward, change)
        except (KeyError, OSError, OpenqmailError) as error:
            text = f"Unable to forward message: {error} (#4.3.0)\n".encode()
            self._tell(events.Reported(action.delivery, (Result(Outcome.DEFERRAL, text),)))
            return
        number = action.stored.id.number
        self._made(number, new, "forward")
        try:
            told = await self._notices.forwarded(action, report.forward, report.result.text)
        except (KeyError, OSError, OpenqmailError) as error:
            self._not_queued("notice", number, error, _NOT_TOLD)
        else:
            if told is not None:
                self._made(number, told, "notice")
        self._tell(events.Reported(action.delivery, (report.result,), recorded=True))

    def _made(self, number: int, new: Stored, what: str) -> None:
        self._parents[new.id.number] = number
        self._tell_made(number, new.id.number, what)
        self._accept(new)

    def _not_queued(self, what: str, number: int, error: Exception, then: str) -> None:
        self._log(Alert(f"cannot queue a {what} for message {number}: {error}; {then}", number))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
