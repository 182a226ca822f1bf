"""Decides what is next for each message, as qmail-send does, and has it done."""

from openqmail.core.send.admin import StoredQueue, summarize
from openqmail.core.send.manager import SendManager
from openqmail.core.send.sender import Sender

__all__ = ["SendManager", "Sender", "StoredQueue", "summarize"]
