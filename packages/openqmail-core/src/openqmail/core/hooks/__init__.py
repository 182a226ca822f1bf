"""The programming interface for mail coming in and going out, and the chain that asks its hooks."""

from openqmail.core.hooks.body import MessageBody
from openqmail.core.hooks.chain import HookChain
from openqmail.core.hooks.conversation import Conversation
from openqmail.core.hooks.edits import Edits
from openqmail.core.hooks.examination import Examined, examine
from openqmail.core.hooks.interface import (
    STEPS,
    Delivery,
    HookContext,
    Inbound,
    Outbound,
    SessionFacts,
)
from openqmail.core.hooks.loading import load_chain
from openqmail.core.hooks.method import Named
from openqmail.core.hooks.round import Message
from openqmail.core.message.fields import Field
from openqmail.core.values import (
    Accept,
    Answer,
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
    "STEPS",
    "Accept",
    "Answer",
    "Conversation",
    "Defer",
    "Delivery",
    "Drop",
    "Edits",
    "Examined",
    "Field",
    "HangUp",
    "Hold",
    "HookChain",
    "HookContext",
    "Inbound",
    "Message",
    "MessageBody",
    "Named",
    "Next",
    "Outbound",
    "Reject",
    "Replace",
    "SessionFacts",
    "SkipChecks",
    "examine",
    "load_chain",
]
