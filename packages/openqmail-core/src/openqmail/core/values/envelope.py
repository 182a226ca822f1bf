"""The envelope of a message: who sent it, to whom, and what the journey must keep of it.

Addresses are bytes as they stand between the angle brackets of SMTP, already
unquoted as qmail keeps them (`local@domain`, the last `@` divides).  `b""` is the
null sender; `b"#@[]"` the sender of a double bounce (envelopes(5)).  The fields of
RFC 3461 (DSN) and RFC 6531 (SMTPUTF8) travel with the envelope to the disk and
back, whatever the front end offers today.
"""

import msgspec


class Recipient(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One recipient; `notify` and `orcpt` are RFC 3461's parameters, empty when not given."""

    address: bytes
    notify: bytes = b""
    orcpt: bytes = b""


class Origin(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Who handed the message in, as qmail-send's log tells it: `qp P uid U`."""

    uid: int
    pid: int


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """Sender, recipients in the order given, and the extensions that must not get lost.

    `smtputf8`: the sender asked for RFC 6531's extension, so every hop needs it.
    `ret`, `envid`: RFC 3461's parameters of MAIL, empty when not given.
    """

    sender: bytes
    recipients: tuple[Recipient, ...]
    origin: Origin = Origin(0, 0)
    smtputf8: bool = False
    ret: bytes = b""
    envid: bytes = b""
