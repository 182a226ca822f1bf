"""What is on disk, behind one `QueueStore`: journal, large bodies, recovery, checkpoint."""

from openqmail.core.queue.body import FileBody
from openqmail.core.queue.checkpoint import Checkpoint
from openqmail.core.queue.journal import JournalLost
from openqmail.core.queue.local_store import Limits, LocalStore
from openqmail.core.queue.reading import read, read_body
from openqmail.core.queue.store import Change, Progress, QueueStore, Stored

__all__ = [
    "Change",
    "Checkpoint",
    "FileBody",
    "JournalLost",
    "Limits",
    "LocalStore",
    "Progress",
    "QueueStore",
    "Stored",
    "read",
    "read_body",
]
