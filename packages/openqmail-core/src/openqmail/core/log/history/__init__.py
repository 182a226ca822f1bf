"""The record of what happened to each message: queue/history/DATE.jsonl, written and read."""

from openqmail.core.log.history.lines import Made
from openqmail.core.log.history.reading import Entry, Life, happened
from openqmail.core.log.history.recorder import History

__all__ = ["Entry", "History", "Life", "Made", "happened"]
