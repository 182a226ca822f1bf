"""What several rooms need to know of addresses, in qmail's plain form (bytes)."""

from collections.abc import Iterator
from typing import Literal

Channel = Literal["local", "remote"]
"""By which way a recipient gets his mail: on this host, or on another."""

DOT_STRING = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
"""A local part that needs no quotes, as a regular expression (RFC 5321 section 4.1.2)."""


def suffixes(domain: bytes) -> Iterator[bytes]:
    """`.b.c`, then `.c`, of `a.b.c`: how control files name what lies below a domain."""
    dot = domain.find(b".")
    while dot >= 0:
        yield domain[dot:]
        dot = domain.find(b".", dot + 1)
