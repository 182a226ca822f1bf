"""What the client machine reports, and what it is asked to do: small values."""

from collections.abc import Mapping

import msgspec

from openqmail.core.smtp.events import NEED_DATA, NeedData
from openqmail.core.values import PermanentFailure, Reply

__all__ = [
    "BODY_WANTED",
    "NEED_DATA",
    "AuthChallenge",
    "AuthDone",
    "BodyWanted",
    "Ended",
    "Event",
    "ExtensionMissing",
    "Finished",
    "NeedData",
    "Outcome",
    "Ready",
    "Refused",
    "TlsReady",
    "Transaction",
]

Outcome = tuple[str, Reply]
"""The stage that decided over a recipient (`mail`, `rcpt`, `data` or `message`) and the reply."""


class ExtensionMissing(PermanentFailure):
    """The message needs an extension that the peer does not offer; the text names it."""


class Transaction(msgspec.Struct, frozen=True, gc=False):
    """One message for some recipients, addresses in plain form; `size` counts its octets on
    the wire (RFC 1870), 0 when that is not known.

    `envid`, `ret`: RFC 3461's parameters of MAIL as they are written, empty for none; `dsn`: NOTIFY and
    ORCPT of each recipient, or empty.  They are said to a peer that offers DSN, and to no other."""

    sender: bytes
    recipients: tuple[bytes, ...]
    size: int = 0
    eight_bit: bool = False
    smtputf8: bool = False
    envid: bytes = b""
    ret: bytes = b""
    dsn: tuple[tuple[bytes, bytes], ...] = ()


class Ready(msgspec.Struct, frozen=True, gc=False):
    """EHLO, HELO or RSET was accepted: the peer waits for a transaction."""

    extensions: Mapping[bytes, bytes]


class BodyWanted(msgspec.Struct, frozen=True, gc=False):
    """At least one recipient and DATA were accepted: send the body."""


BODY_WANTED = BodyWanted()


class Finished(msgspec.Struct, frozen=True, gc=False):
    """The transaction is over; an outcome for each recipient, in their order."""

    outcomes: tuple[Outcome, ...]


class Refused(msgspec.Struct, frozen=True, gc=False):
    """The peer wants no mail from us now; `stage` is `greeting`, `helo` or `starttls`."""

    stage: str
    reply: Reply


class TlsReady(msgspec.Struct, frozen=True, gc=False):
    """The peer waits for the handshake; tell its end by `tls_started`."""


class AuthChallenge(msgspec.Struct, frozen=True, gc=False):
    """The mechanism's next challenge, decoded."""

    data: bytes


class AuthDone(msgspec.Struct, frozen=True, gc=False):
    """The exchange is over; `reply.positive` says how."""

    reply: Reply


class Ended(msgspec.Struct, frozen=True, gc=False):
    """The connection is of no more use.

    `stage` is what was waited for: `message` when the end of the body was sent, so that the
    peer may have accepted it, `body` before that, `ready` when nothing.  In the midst of a
    transaction `outcomes` holds what was already decided, None for the other recipients; nothing of it
    has been reported before.
    """

    why: str
    stage: str
    outcomes: tuple[Outcome | None, ...] = ()


Event = NeedData | Ready | BodyWanted | Finished | Refused | TlsReady | AuthChallenge | AuthDone | Ended
