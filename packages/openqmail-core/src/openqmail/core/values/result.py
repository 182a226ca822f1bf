"""What became of one recipient in one attempt, in the letters of qmail's spawn protocol."""

from enum import Enum

import msgspec

MOST_WHY = 1000
"""Characters of `Result.why` that are kept where it grows, or comes from another process."""


class Outcome(Enum):
    """`K` done for good, `Z` try again, `D` never."""

    SUCCESS = b"K"
    DEFERRAL = b"Z"
    FAILURE = b"D"

    __hash__ = object.__hash__  # there is one of each; Enum's own is a slow function


class Result(msgspec.Struct, frozen=True, gc=False):
    """`text` is the report as a program would print it: lines that end with a newline,
    unescaped; whoever logs or quotes it escapes it.

    `host`: it speaks of the whole host or destination (no connection, greeting refused; 421 or
    broken off before it took the sender; no answer from the DNS), not of this message or recipient.
    `dsn`: the next host has taken over what this recipient's sender wants to be told (RFC 3461).
    `why`: what the administrator should know of the cause and nobody else, a sentence for the log."""

    outcome: Outcome
    text: bytes
    host: bool = False
    dsn: bool = False
    why: str = ""
