"""What the six jobs may ask of each other: protocols and the values that cross them.

A port is served by a direct call in one process, and over a Unix socket where the jobs have
processes of their own (`service/frames`).  Both fit the same protocols, so nothing here carries
a callback, an open file or a mutable object.  Operations that wait return futures.
"""

from openqmail.core.ports.admin import (
    ABSENT,
    Acted,
    MessageSummary,
    Missed,
    QueueAdmin,
    QueueTotals,
    RecipientSummary,
)
from openqmail.core.ports.delivery import (
    Forward,
    LocalDelivery,
    LocalJob,
    LocalReport,
    RecipientCheck,
    RemoteDelivery,
    RemoteJob,
    Told,
    Written,
)
from openqmail.core.ports.destination import DestinationState
from openqmail.core.ports.explain import Explanation, Step, Trail
from openqmail.core.ports.gate import (
    CONNECTIONS,
    CONNECTIONS_OF_NETWORK,
    CONNECTIONS_PER_HOUR,
    MESSAGES_OF_LOGIN,
    MESSAGES_PER_HOUR,
    RECIPIENTS_OF_LOGIN,
    RECIPIENTS_PER_HOUR,
    Gate,
    of,
)
from openqmail.core.ports.lockouts import LockedNow, LockedOut, LockoutAdmin
from openqmail.core.ports.logins import LoginChecks, Program
from openqmail.core.ports.programs import OUTPUT, ProgramResult, Programs
from openqmail.core.ports.sasl import (
    Denial,
    Exchange,
    SaslAnswer,
    SaslChallenge,
    SaslClient,
    SaslDenied,
    SaslGranted,
)
from openqmail.core.ports.service import InboundHooks, Service, ServiceContext
from openqmail.core.ports.submission import LARGE, LargeBody, Submission

__all__ = [
    "ABSENT",
    "CONNECTIONS",
    "CONNECTIONS_OF_NETWORK",
    "CONNECTIONS_PER_HOUR",
    "LARGE",
    "MESSAGES_OF_LOGIN",
    "MESSAGES_PER_HOUR",
    "OUTPUT",
    "RECIPIENTS_OF_LOGIN",
    "RECIPIENTS_PER_HOUR",
    "Acted",
    "Denial",
    "DestinationState",
    "Exchange",
    "Explanation",
    "Forward",
    "Gate",
    "InboundHooks",
    "LargeBody",
    "LocalDelivery",
    "LocalJob",
    "LocalReport",
    "LockedNow",
    "LockedOut",
    "LockoutAdmin",
    "LoginChecks",
    "MessageSummary",
    "Missed",
    "Program",
    "ProgramResult",
    "Programs",
    "QueueAdmin",
    "QueueTotals",
    "RecipientCheck",
    "RecipientSummary",
    "RemoteDelivery",
    "RemoteJob",
    "SaslAnswer",
    "SaslChallenge",
    "SaslClient",
    "SaslDenied",
    "SaslGranted",
    "Service",
    "ServiceContext",
    "Step",
    "Submission",
    "Told",
    "Trail",
    "Written",
    "of",
]
