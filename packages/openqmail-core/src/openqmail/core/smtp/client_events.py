"""What the client machine reports, and what it is asked to do: small values."""

import binascii
from collections.abc import Mapping
from typing import Literal

import msgspec

from openqmail.core.sasl import Hidden
from openqmail.core.smtp.events import NEED_DATA, NeedData
from openqmail.core.values import PermanentFailure, Reply

__all__ = [
    "BODY_WANTED",
    "NEED_DATA",
    "START_TLS",
    "BodyWanted",
    "Ended",
    "Event",
    "ExtensionMissing",
    "Finished",
    "Login",
    "NeedData",
    "Outcome",
    "Ready",
    "Refused",
    "StartTls",
    "Terms",
    "Transaction",
    "Unmet",
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


class Login(Hidden, frozen=True, gc=False):
    """Who we are to a peer; shows nothing of it.

    `unverified`: it is said to a peer that has not proved whose host it is, too; `in_clear`: the password
    itself without TLS.  `host`, `port`: where the peer is, for mechanisms that say so."""

    name: bytes
    password: bytes
    unverified: bool = False
    in_clear: bool = False
    host: bytes = b""
    port: int = 0

    def hidden_in(self, reply: Reply) -> Reply:
        """The same without its text where that says our password back, as servers do who quote a command."""
        spoken = (self.password, b"\0%b\0%b" % (self.name, self.password))
        text = b"\n".join(reply.lines)
        if any(one in text or binascii.b2a_base64(one, newline=False) in text for one in spoken):
            return Reply(reply.code, reply.enhanced, (b"(it quotes our login)",))
        return reply


class Terms(msgspec.Struct, frozen=True, gc=False):
    """What has to be so before a peer gets mail.

    `tls`: `none` never begins it, `may` does where the peer offers it, `must` gives no mail without.
    `login`: who we have to be there, before anything else."""

    tls: Literal["none", "may", "must"] = "none"
    login: Login | None = None


class Ready(msgspec.Struct, frozen=True, gc=False):
    """The terms are fulfilled, or RSET was accepted: the peer waits for a transaction."""

    extensions: Mapping[bytes, bytes]


class BodyWanted(msgspec.Struct, frozen=True, gc=False):
    """At least one recipient and DATA were accepted: send the body."""


BODY_WANTED = BodyWanted()


class Finished(msgspec.Struct, frozen=True, gc=False):
    """The transaction is over; an outcome for each recipient, in their order."""

    outcomes: tuple[Outcome, ...]


class Refused(msgspec.Struct, frozen=True, gc=False):
    """The peer wants no mail from us now; `stage` is `greeting`, `helo`, `starttls` or `auth`."""

    stage: str
    reply: Reply


class Unmet(msgspec.Struct, frozen=True, gc=False):
    """The peer does not fulfil our terms, so no mail is given to it; `stage` is `starttls` or `auth`, `why`
    a clause about the peer."""

    stage: str
    why: str


class StartTls(msgspec.Struct, frozen=True, gc=False):
    """The peer waits for the handshake; tell its end by `tls_started`."""


START_TLS = StartTls()


class Ended(msgspec.Struct, frozen=True, gc=False):
    """The connection is of no more use.

    `stage` is what was waited for: `message` when the end of the body was sent, so that the
    peer may have accepted it, `body` before that, `handshake` when it spoke where TLS had to begin, `ready`
    when nothing.  In the midst of a
    transaction `outcomes` holds what was already decided, None for the other recipients; nothing of it
    has been reported before.
    """

    why: str
    stage: str
    outcomes: tuple[Outcome | None, ...] = ()


Event = NeedData | Ready | BodyWanted | Finished | Refused | Unmet | StartTls | Ended
