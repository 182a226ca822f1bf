"""What happens, as events, and how it is written down."""

from openqmail.core.log.events import (
    Alert,
    Bounced,
    DeliveryEnded,
    DeliveryStarted,
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
    AuthAccepted,
    AuthRefused,
    SmtpdAccepted,
    SmtpdRefused,
    SmtpdSession,
    SmtpdTlsFailed,
    SubmitAccepted,
    SubmitRefused,
)
from openqmail.core.log.sending import RemoteTls, RemoteTlsFailed
from openqmail.core.log.writer import Form, Log, LogWriter, MemoryLog

__all__ = [
    "Alert",
    "AuthAccepted",
    "AuthRefused",
    "Bounced",
    "DeliveryEnded",
    "DeliveryStarted",
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
    "RemoteTls",
    "RemoteTlsFailed",
    "SmtpdAccepted",
    "SmtpdRefused",
    "SmtpdSession",
    "SmtpdTlsFailed",
    "Status",
    "SubmitAccepted",
    "SubmitRefused",
    "TripleBounce",
    "Warn",
]
