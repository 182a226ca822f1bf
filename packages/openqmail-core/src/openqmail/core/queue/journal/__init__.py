"""The journal: append-only segments in which mail lies from the moment it is accepted."""

from openqmail.core.queue.journal.journal import FULL, RESERVE, Item, Journal, JournalLost

__all__ = ["FULL", "RESERVE", "Item", "Journal", "JournalLost"]
