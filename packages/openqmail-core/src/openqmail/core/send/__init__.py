"""Decides what is next for each message, as qmail-send does, and has it done."""

from openqmail.core.send.admin import StoredQueue
from openqmail.core.send.manager import SendManager
from openqmail.core.send.routing import Routes
from openqmail.core.send.sender import Sender
from openqmail.core.send.summary import summarize

__all__ = ["Routes", "SendManager", "Sender", "StoredQueue", "summarize"]
