"""The texts that tell a sender what became of a message."""

from openqmail.core.dsn.fields import Report, Told
from openqmail.core.dsn.multipart import Copy, enclose, header
from openqmail.core.dsn.paragraphs import Paragraph, paragraphs
from openqmail.core.dsn.qmail import bounce, quoted_address, report
from openqmail.core.dsn.status import Action, meaning

__all__ = [
    "Action",
    "Copy",
    "Paragraph",
    "Report",
    "Told",
    "bounce",
    "enclose",
    "header",
    "meaning",
    "paragraphs",
    "quoted_address",
    "report",
]
