"""The message itself: trace fields, a scan of the header, line endings."""

from openqmail.core.message.header import has_line, header_end, hops
from openqmail.core.message.trace import delivered_to, qmail_date, qmail_hop, quote, received, return_path

__all__ = [
    "delivered_to",
    "has_line",
    "header_end",
    "hops",
    "qmail_date",
    "qmail_hop",
    "quote",
    "received",
    "return_path",
]
