"""What smtpd and gate say to each other about one login: an exchange of SASL (RFC 4422), step by step.

Values that may cross a process border.  Base64, replies and lines are smtpd's; mechanisms, secrets, delays
and lock-outs are gate's.
"""

from asyncio import Future
from typing import Literal, Protocol

import msgspec

Denial = Literal["wrong", "undecided", "later", "locked", "malformed"]
"""Wrong secret or nobody's login; the same for one who was asked, while another cannot tell, which counts as
wrong; nobody can tell now; too many failures lately; what came is no SASL."""


class SaslChallenge(msgspec.Struct, frozen=True, gc=False):
    """To be sent; what comes back goes to `respond`."""

    data: bytes


class SaslGranted(msgspec.Struct, frozen=True, gc=False):
    """The end: the client is `identity`."""

    identity: bytes


class SaslDenied(msgspec.Struct, frozen=True, gc=False):
    """The end."""

    kind: Denial


SaslAnswer = SaslChallenge | SaslGranted | SaslDenied


class SaslClient(msgspec.Struct, frozen=True, gc=False):
    """Who wants in: address and port, and the service that it came to."""

    address: str
    port: int
    service: str


class Exchange(Protocol):
    """One attempt of one client."""

    def respond(self, data: bytes | None) -> "Future[SaslAnswer]":
        """What the client says: first what came with the command, None where nothing did.

        Never raises; one answer is waited for at a time."""
        ...

    def abort(self) -> None:
        """The client gave it up, or is gone; may be called at any time, and again."""
        ...
