"""What the server machine reports: small values, pulled one at a time with `next_event()`.

`Hello`, `Mail`, `Rcpt`, `Data`, `MessageEnd`, `StartTls`, `Auth`, `AuthResponse` and `XClientSaid` wait for
an answer, and until it is given the next event is `PAUSED`.  The others need none.
"""

import msgspec

from openqmail.core.smtp.xclient import XClient
from openqmail.core.values import Recipient, Reply


class NeedData(msgspec.Struct, frozen=True, gc=False):
    """Nothing more can be told before `receive_data`."""


class Paused(msgspec.Struct, frozen=True, gc=False):
    """The last event waits for its answer."""


class Breath(msgspec.Struct, frozen=True, gc=False):
    """Much came that the machine has dealt with by itself, and more has: let others have their turn first."""


NEED_DATA = NeedData()
PAUSED = Paused()
BREATH = Breath()


class Hello(msgspec.Struct, frozen=True, gc=False):
    """EHLO (`extended`) or HELO.  Whatever transaction was open is gone."""

    name: bytes
    extended: bool


class Mail(msgspec.Struct, frozen=True, gc=False):
    """MAIL.  `size` is what the client announced, 0 when nothing; `eight_bit` is
    BODY=8BITMIME; `ret` and `envid` are RFC 3461's, empty when not given."""

    sender: bytes
    size: int = 0
    eight_bit: bool = False
    smtputf8: bool = False
    ret: bytes = b""
    envid: bytes = b""


class Rcpt(msgspec.Struct, frozen=True, gc=False):
    """RCPT."""

    recipient: Recipient


class Data(msgspec.Struct, frozen=True, gc=False):
    """DATA, or the first BDAT; the positive answer lets the message come."""


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """The next piece of the message, in stored form."""

    data: bytes


class MessageEnd(msgspec.Struct, frozen=True, gc=False):
    """The message is complete; `size` counts its octets on the wire (RFC 1870)."""

    size: int


class Reset(msgspec.Struct, frozen=True, gc=False):
    """What was under way is gone: the transaction, or an exchange of AUTH."""

    why: bytes


class StartTls(msgspec.Struct, frozen=True, gc=False):
    """STARTTLS; after a positive answer the machine waits for `tls_started`."""


class Auth(msgspec.Struct, frozen=True, gc=False):
    """AUTH; `initial` is decoded, None when there was none."""

    mechanism: bytes
    initial: bytes | None


class AuthResponse(msgspec.Struct, frozen=True, gc=False):
    """The client's answer to a challenge, decoded."""

    data: bytes


class XClientSaid(msgspec.Struct, frozen=True, gc=False):
    """XCLIENT, of a front end that may say it: the session begins anew, for another client."""

    said: XClient


class Quit(msgspec.Struct, frozen=True, gc=False):
    """QUIT, which the machine has answered; close when that is written."""


class Aborted(msgspec.Struct, frozen=True, gc=False):
    """The machine has queued `reply` and ends the session; close when that is written."""

    reply: Reply


class Ended(msgspec.Struct, frozen=True, gc=False):
    """The client's half of the connection has ended."""


Event = (
    NeedData
    | Paused
    | Breath
    | Hello
    | Mail
    | Rcpt
    | Data
    | Chunk
    | MessageEnd
    | Reset
    | StartTls
    | Auth
    | AuthResponse
    | XClientSaid
    | Quit
    | Aborted
    | Ended
)
