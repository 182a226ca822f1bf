"""How long a client waits for its peer at each stage (RFC 5321 section 4.5.3.2)."""

from collections.abc import Mapping
from functools import lru_cache

BLOCK = 180.0
"""For one block of the message to leave."""

_SECONDS = {
    "greeting": 300.0,
    "ehlo": 300.0,
    "helo": 300.0,
    "lhlo": 300.0,
    "starttls": 120.0,
    "auth": 120.0,
    "rset": 300.0,
    "cleared": 300.0,
    "mail": 300.0,
    "rcpt": 300.0,
    "data": 120.0,
    "message": 600.0,
    "nothing": 600.0,
    "quit": 30.0,
}


@lru_cache(16)
def patience(most: float) -> Mapping[str, float]:
    """Seconds to wait for the reply to each, at most so many."""
    return {stage: min(seconds, most) for stage, seconds in _SECONDS.items()}
