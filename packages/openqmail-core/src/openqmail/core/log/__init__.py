"""What happens, as events, and how it is written down."""

from openqmail.core.log.events import (
    Alert,
    Bounced,
    DeliveryEnded,
    DeliveryStarted,
    DestinationAnswers,
    DestinationRests,
    Event,
    Exiting,
    MessageEnded,
    MessageInfo,
    NewMessage,
    Notice,
    Status,
    TripleBounce,
    Warn,
)
from openqmail.core.log.receiving import (
    SmtpdAccepted,
    SmtpdRefused,
    SmtpdSession,
    SubmitAccepted,
    SubmitRefused,
)
from openqmail.core.log.writer import Form, Log, LogWriter, MemoryLog

__all__ = [
    "Alert",
    "Bounced",
    "DeliveryEnded",
    "DeliveryStarted",
    "DestinationAnswers",
    "DestinationRests",
    "Event",
    "Exiting",
    "Form",
    "Log",
    "LogWriter",
    "MemoryLog",
    "MessageEnded",
    "MessageInfo",
    "NewMessage",
    "Notice",
    "SmtpdAccepted",
    "SmtpdRefused",
    "SmtpdSession",
    "Status",
    "SubmitAccepted",
    "SubmitRefused",
    "TripleBounce",
    "Warn",
]
