"""Immutable values that every room may know: envelope, reply, result, ids, bodies, errors."""

from openqmail.core.values.body import Body, BytesBody
from openqmail.core.values.envelope import Envelope, Origin, Recipient
from openqmail.core.values.errors import (
    ControlError,
    HomeError,
    OpenqmailError,
    PermanentFailure,
    QueueDamaged,
    QueueFull,
    TemporaryFailure,
)
from openqmail.core.values.ids import MessageId
from openqmail.core.values.reply import Reply
from openqmail.core.values.result import MOST_WHY, Outcome, Result
from openqmail.core.values.verdict import (
    Accept,
    Answer,
    Decision,
    Defer,
    Drop,
    HangUp,
    Hold,
    Next,
    Reject,
    Replace,
    SkipChecks,
)

__all__ = [
    "MOST_WHY",
    "Accept",
    "Answer",
    "Body",
    "BytesBody",
    "ControlError",
    "Decision",
    "Defer",
    "Drop",
    "Envelope",
    "HangUp",
    "Hold",
    "HomeError",
    "MessageId",
    "Next",
    "OpenqmailError",
    "Origin",
    "Outcome",
    "PermanentFailure",
    "QueueDamaged",
    "QueueFull",
    "Recipient",
    "Reject",
    "Replace",
    "Reply",
    "Result",
    "SkipChecks",
    "TemporaryFailure",
]
