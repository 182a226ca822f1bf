"""The texts that tell a sender what became of a message."""

from openqmail.core.dsn.qmail import bounce, quoted_address, report

__all__ = ["bounce", "quoted_address", "report"]
