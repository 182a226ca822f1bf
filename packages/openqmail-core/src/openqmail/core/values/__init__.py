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

__all__ = [
    "MOST_WHY",
    "Body",
    "BytesBody",
    "ControlError",
    "Envelope",
    "HomeError",
    "MessageId",
    "OpenqmailError",
    "Origin",
    "Outcome",
    "PermanentFailure",
    "QueueDamaged",
    "QueueFull",
    "Recipient",
    "Reply",
    "Result",
    "TemporaryFailure",
]
