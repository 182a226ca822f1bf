"""What an address that crosses cannot be.  Front ends and workers check what strangers and users say;
should one be a stranger's by now, the queue's files hold."""

MOST = 1000
"""Bytes: RFC 5321 section 4.5.3.1.3 allows 256, readers of qmail's files some more."""


def cannot_be(address: bytes) -> bool:
    return len(address) > MOST or b"\0" in address or b"\n" in address
