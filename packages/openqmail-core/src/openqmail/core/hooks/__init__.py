"""The programming interface for mail coming in, and the chain that asks its hooks."""

from openqmail.core.hooks.chain import HookChain
from openqmail.core.hooks.interface import Inbound, Refuse, SessionFacts

__all__ = ["HookChain", "Inbound", "Refuse", "SessionFacts"]
