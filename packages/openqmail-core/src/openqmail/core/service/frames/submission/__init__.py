"""The port Submission as frames: mail from a front end to the queue.

A small message is one frame; a large one begins, comes in chunks of which each is answered when
the disk has taken it, and is finished by its envelope.  An answer is what the queue said.  A
connection that is lost leaves nobody who knows whether what was unanswered is in the queue; after
`Bye` it is not, so what is small is handed to the next connection.
"""

from openqmail.core.service.frames.submission.client import SubmissionClient
from openqmail.core.service.frames.submission.server import SubmissionServer

__all__ = ["SubmissionClient", "SubmissionServer"]
