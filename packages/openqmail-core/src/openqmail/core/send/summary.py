"""A queued message as `openqmail queue list` tells it: pure, and quick enough for a long queue.

qmail's files tell of a recipient only that he is done with; that it was a failure stands in `bounce/N`.
Also serves the commands that look at a queue while no service runs.
"""

from collections.abc import Callable, Mapping
from typing import Literal

from openqmail.core.log.escaping import readable
from openqmail.core.ports import DestinationState, MessageSummary, RecipientSummary
from openqmail.core.queue.store import Stored
from openqmail.core.send.routing import Routes
from openqmail.core.values import Outcome

_SUCCESS = Outcome.SUCCESS  # an enum's attributes are slow to look up


_NOTHING: Mapping[bytes, int] = {}


def summarize(
    stored: Stored,
    routes: Routes,
    now: float,
    resting: Mapping[bytes, int] = _NOTHING,
    state_of: Callable[[bytes], DestinationState | None] = lambda name: None,
) -> MessageSummary:
    """A message in the form of `openqmail queue list --json`, at `now` (seconds UTC); `resting`: until
    when which destinations are left alone; `state_of` tells more of one."""
    envelope = stored.envelope
    (local, remote), channels = stored.due, stored.channels
    mark = routes.mark(envelope.sender)
    recipients = []
    failures = _failures(stored.bounce) if stored.channels else {}
    left = waits = begun = False
    for position, (recipient, progress) in enumerate(zip(envelope.recipients, stored.progress, strict=True)):
        channel = channels[position] if channels else routes.route(recipient.address).channel
        report, due, destination = progress.text, None, None
        state: Literal["todo", "done", "failed"] = "todo"
        if progress.outcome is None:
            left = True
            due = local if channel == "local" else remote
            if progress.attempts or due not in (0, stored.birth):  # of what nobody tried: since it came
                waits = True
            if resting and channel == "remote":
                name = routes.of(stored, position).domain + mark
                if name in resting:
                    due, destination = max(due, resting[name]), state_of(name)
            if not progress.attempts and due <= now:
                due = None
        elif failures and (texts := failures.get(routes.of(stored, position).plain.replace(b"\n", b"_"))):
            state, begun = "failed", True
            report = texts.pop(0)
        elif progress.outcome is _SUCCESS:
            state, begun = "done", True
        else:
            state, begun = "failed", True
            report = report.partition(b"\n")[2].removesuffix(b"\n")  # behind the address
        address, last = readable(recipient.address), readable(report) if report else None
        recipients.append(
            RecipientSummary(address, channel, state, progress.attempts, due, last, destination)
        )
    return MessageSummary(
        stored.id.number,
        stored.id.key.hex(),
        stored.birth,
        stored.size,
        readable(envelope.sender),
        envelope.origin.uid,
        _state(stored, left, waits or begun),
        tuple(recipients),
        stored.held,
    )


def _failures(bounce: bytes) -> dict[bytes, list[bytes]]:
    """What the paragraphs of `bounce/N` say of each address."""
    found: dict[bytes, list[bytes]] = {}
    for paragraph in bounce.split(b"\n\n"):
        head, _, text = paragraph.lstrip(b"\n").partition(b"\n")
        if head.startswith(b"<") and head.endswith(b">:"):
            found.setdefault(head[1:-2], []).append(text)
    return found


def _state(stored: Stored, left: bool, begun: bool) -> Literal["new", "deferred", "held", "bouncing"]:
    if stored.held is not None:
        return "held"
    if stored.bounce and not left:
        return "bouncing"
    return "deferred" if begun else "new"
