"""The port `QueueAdmin`: what the store holds, told to people.

`summarize` also serves the commands that look at a queue while no service runs.
"""

from collections.abc import Callable, Iterator
from typing import Literal

from openqmail.core.control.settings import Settings
from openqmail.core.ports import MessageSummary, QueueTotals, RecipientSummary
from openqmail.core.queue import Progress, QueueStore, Stored
from openqmail.core.send.routing import route
from openqmail.core.values import Body, Outcome, Recipient

_STATES: dict[Outcome | None, Literal["todo", "done", "failed"]] = {
    None: "todo",
    Outcome.DEFERRAL: "todo",
    Outcome.SUCCESS: "done",
    Outcome.FAILURE: "failed",
}


class StoredQueue:
    """Reads the store; `settings` tells the present ones, `flush` makes the sender try everything."""

    def __init__(
        self, store: QueueStore, settings: Callable[[], Settings], flush: Callable[[], None]
    ) -> None:
        self._store = store
        self._settings = settings
        self._flush = flush

    def totals(self) -> QueueTotals:
        return self._store.totals()

    def messages(self) -> Iterator[MessageSummary]:
        settings = self._settings()
        for number in list(self._store.numbers()):
            try:
                stored = self._store.load(number)
            except KeyError:  # delivered while we looked
                continue
            yield summarize(stored, settings)

    def message(self, number: int) -> MessageSummary | None:
        try:
            return summarize(self._store.load(number), self._settings())
        except KeyError:
            return None

    def content(self, number: int) -> Body | None:
        try:
            return self._store.body(number)
        except KeyError:
            return None

    def flush(self) -> int:
        count = self._store.totals().deferred
        self._flush()
        return count


def summarize(stored: Stored, settings: Settings) -> MessageSummary:
    """A message in the form of `openqmail queue list --json`."""
    recipients = tuple(
        _recipient(recipient, progress, stored.due, settings)
        for recipient, progress in zip(stored.envelope.recipients, stored.progress, strict=True)
    )
    return MessageSummary(
        id=stored.id.number,
        key=stored.id.key.hex(),
        born=stored.birth,
        size=stored.size,
        sender=_text(stored.envelope.sender),
        uid=stored.envelope.origin.uid,
        state=_state(recipients),
        recipients=recipients,
    )


def _recipient(recipient: Recipient, progress: Progress, due: int, settings: Settings) -> RecipientSummary:
    state = _STATES[progress.outcome]
    return RecipientSummary(
        address=_text(recipient.address),
        channel=route(recipient.address, settings).channel,
        state=state,
        attempts=progress.attempts,
        next=due if state == "todo" and progress.attempts else None,
        last=_text(progress.text) if progress.text else None,
    )


def _state(recipients: tuple[RecipientSummary, ...]) -> Literal["new", "deferred", "bouncing"]:
    waiting = [one for one in recipients if one.state == "todo"]
    if any(one.attempts for one in waiting):
        return "deferred"
    if not waiting and any(one.state == "failed" for one in recipients):
        return "bouncing"
    return "new"


def _text(address: bytes) -> str:
    """UTF-8, with bytes beyond it as \\xNN."""
    return address.decode("utf-8", "backslashreplace")
