"""The programming interface for mail coming in, and the chain that asks its hooks."""

from openqmail.core.hooks.chain import HookChain, load_chain
from openqmail.core.hooks.interface import HookContext, Inbound, Refuse, SessionFacts

__all__ = ["HookChain", "HookContext", "Inbound", "Refuse", "SessionFacts", "load_chain"]
