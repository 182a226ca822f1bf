"""What a sender wants to be told of a recipient: RFC 3461's NOTIFY, obeyed (section 5.2).

Without NOTIFY he is told of failures alone, as qmail does.  A bounce has no sender to tell: what
becomes of one is told to the postmaster, whatever its NOTIFY says.  Pure.
"""

from openqmail.core.dsn import Action
from openqmail.core.send.routing import bounce_sender
from openqmail.core.values import Envelope, Recipient

LATE = 4 * 3600
"""Seconds after which a message that waits is late, and who wants to know is told so.  A square, as the
times of the schedule are: so what is due next tells whether the last try was before (`last_try`)."""

_WORDS: dict[Action, bytes] = {
    "failed": b"FAILURE",
    "delayed": b"DELAY",
    "delivered": b"SUCCESS",
    "relayed": b"SUCCESS",
    "expanded": b"SUCCESS",
}


def wants(envelope: Envelope, position: int, action: Action) -> bool:
    """Whether the sender is to be told that this became of the recipient."""
    words = envelope.recipients[position].notify.split(b",")
    return _WORDS[action] in words and is_told(envelope)


def wants_bounce(envelope: Envelope, position: int) -> bool:
    """The same of a failure."""
    notify = envelope.recipients[position].notify
    return not notify or not is_told(envelope) or b"FAILURE" in notify.split(b",")


def is_told(envelope: Envelope) -> bool:
    """Whether there is a sender who may be told anything (RFC 3464 section 2): neither a bounce's nor a
    double bounce's."""
    return bounce_sender(envelope.sender) not in (b"", b"#@[]")


def forwarded(
    envelope: Envelope, position: int, sender: bytes, recipients: tuple[bytes, ...], *, same: bool
) -> Envelope:
    """The envelope of what a recipient's `.qmail` file sends on (section 6.2.7).

    `same`: the sender stays who he is, and what he wants to be told goes with it; where there are
    several new recipients he is not told of their deliveries, as he has been told that the address is
    several.  Any other sender never asked for anything."""
    if not same:
        new = tuple([Recipient(address) for address in recipients])
        return Envelope(sender, new, envelope.origin, envelope.smtputf8)
    asked = envelope.recipients[position]
    notify = asked.notify
    if len(recipients) > 1 and b"SUCCESS" in notify:
        notify = b",".join([word for word in notify.split(b",") if word != b"SUCCESS"]) or b"NEVER"
    new = tuple([Recipient(address, notify, asked.orcpt) for address in recipients])
    return Envelope(sender, new, envelope.origin, envelope.smtputf8, envelope.ret, envelope.envid)


def passed_on(envelope: Envelope, positions: tuple[int, ...]) -> tuple[tuple[bytes, bytes], ...]:
    """NOTIFY and ORCPT of these recipients, for the next host; empty when none has any."""
    asked = [envelope.recipients[position] for position in positions]
    if not any(one.notify or one.orcpt for one in asked):
        return ()
    return tuple([(one.notify, one.orcpt) for one in asked])
