"""What is on disk, behind one `QueueStore`: journal, large bodies, recovery, checkpoint."""

from openqmail.core.queue.body import FileBody
from openqmail.core.queue.checkpoint import Checkpoint
from openqmail.core.queue.journal import JournalLost
from openqmail.core.queue.limits import Limits
from openqmail.core.queue.local_store import LocalStore
from openqmail.core.queue.lock import Locked, SendMutex, Trigger
from openqmail.core.queue.looking import read, read_body
from openqmail.core.queue.store import Change, Closes, Due, Progress, QueueStore, Router, Stored

__all__ = [
    "Change",
    "Checkpoint",
    "Closes",
    "Due",
    "FileBody",
    "JournalLost",
    "Limits",
    "LocalStore",
    "Locked",
    "Progress",
    "QueueStore",
    "Router",
    "SendMutex",
    "Stored",
    "Trigger",
    "read",
    "read_body",
]
