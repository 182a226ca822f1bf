"""The facts of the log, each a small value, with the line that qmail-send writes for it.

`line()` is qmail-log(5)'s form, word for word, without the newline.  Every text that a
stranger may have had a hand in is escaped, as qmail-send does (escaping.py).  What qmail-smtpd and
qmail-queue did not say is in receiving.py; json.py has the same facts in another form.
"""

from typing import Literal

import msgspec

from openqmail.core.log.escaping import SAFE
from openqmail.core.log.receiving import (
    ADDRESS,
    TEXT,
    AuthAccepted,
    AuthRefused,
    SmtpdAccepted,
    SmtpdRefused,
    SmtpdSession,
    SmtpdTlsFailed,
    SubmitAccepted,
    SubmitRefused,
    cut,
)
from openqmail.core.log.sending import RemoteLogin, RemoteTls, RemoteTlsFailed
from openqmail.core.values import Outcome

_WORDS = {Outcome.SUCCESS: b"success", Outcome.DEFERRAL: b"deferral", Outcome.FAILURE: b"failure"}


class Status(msgspec.Struct, frozen=True, gc=False):
    """`exiting`: told to end, and waiting for the deliveries that run."""

    local: int
    local_limit: int
    remote: int
    remote_limit: int
    exiting: bool = False

    def line(self) -> bytes:
        return b"status: local %d/%d remote %d/%d%s" % (
            self.local,
            self.local_limit,
            self.remote,
            self.remote_limit,
            b" exitasap" if self.exiting else b"",
        )


class NewMessage(msgspec.Struct, frozen=True, gc=False):
    number: int

    def line(self) -> bytes:
        return b"new msg %d" % self.number


class MessageInfo(msgspec.Struct, frozen=True, gc=False):
    """`size` in bytes as stored; `pid` and `uid` of who handed it in; `parent`: the message that it was made
    of, a bounce, a notice or a forward: qmail-send's line has no room for that."""

    number: int
    size: int
    sender: bytes
    pid: int
    uid: int
    parent: int | None = None

    def line(self) -> bytes:
        return b"info msg %d: bytes %d from <%s> qp %d uid %d" % (
            self.number,
            self.size,
            self.sender.translate(SAFE),
            self.pid,
            self.uid,
        )


class DeliveryStarted(msgspec.Struct, frozen=True, gc=False):
    delivery: int
    number: int
    channel: Literal["local", "remote"]
    recipient: bytes

    def line(self) -> bytes:
        channel = b"local" if self.channel == "local" else b"remote"
        return b"starting delivery %d: msg %d to %s %s" % (
            self.delivery,
            self.number,
            channel,
            self.recipient.translate(SAFE),
        )


class DeliveryEnded(msgspec.Struct, frozen=True, gc=False):
    """`number`: the message's, which qmail-send's line leaves to the one that started the delivery."""

    delivery: int
    outcome: Outcome
    text: bytes
    number: int

    def line(self) -> bytes:
        text = self.text.translate(SAFE)
        return b"delivery %d: %s: %s" % (self.delivery, _WORDS[self.outcome], text)


class Bounced(msgspec.Struct, frozen=True, gc=False):
    """`pid`: the process that submitted the bounce."""

    number: int
    pid: int

    def line(self) -> bytes:
        return b"bounce msg %d qp %d" % (self.number, self.pid)


class DestinationRests(msgspec.Struct, frozen=True, gc=False):
    """A host has failed as a whole: its mail is left alone for so many `seconds`.

    `failures`: in a row; `text`: what the last one said."""

    domain: bytes
    seconds: int
    failures: int
    text: bytes

    def line(self) -> bytes:
        return b"destination %s rests: seconds %d failures %d text %s" % (
            cut(self.domain, ADDRESS),
            self.seconds,
            self.failures,
            cut(self.text, TEXT),
        )


class DestinationAnswers(msgspec.Struct, frozen=True, gc=False):
    """After a rest, or several, a delivery to it has succeeded."""

    domain: bytes

    def line(self) -> bytes:
        return b"destination %s answers again" % cut(self.domain, ADDRESS)


class TripleBounce(msgspec.Struct, frozen=True, gc=False):
    number: int

    def line(self) -> bytes:
        return b"triple bounce: discarding bounce/%d" % self.number


class MessageEnded(msgspec.Struct, frozen=True, gc=False):
    number: int

    def line(self) -> bytes:
        return b"end msg %d" % self.number


# `number` of these: the message that it is about, if it is about one; the text names it as well.


class Warn(msgspec.Struct, frozen=True, gc=False):
    """Something went wrong that openqmail can live with."""

    text: str
    number: int | None = None

    def line(self) -> bytes:
        return b"warning: " + _sentence(self.text)


class Alert(msgspec.Struct, frozen=True, gc=False):
    """Something went wrong that a person should look at."""

    text: str
    number: int | None = None

    def line(self) -> bytes:
        return b"alert: " + _sentence(self.text)


class Notice(msgspec.Struct, frozen=True, gc=False):
    """What the service says of itself."""

    text: str
    number: int | None = None

    def line(self) -> bytes:
        return _sentence(self.text)


class Exiting(msgspec.Struct, frozen=True, gc=False):
    def line(self) -> bytes:
        return b"status: exiting"


Event = (
    Status
    | NewMessage
    | MessageInfo
    | DeliveryStarted
    | DeliveryEnded
    | Bounced
    | TripleBounce
    | DestinationRests
    | DestinationAnswers
    | MessageEnded
    | Warn
    | Alert
    | Notice
    | Exiting
    | SmtpdAccepted
    | SmtpdRefused
    | SmtpdSession
    | SmtpdTlsFailed
    | AuthAccepted
    | AuthRefused
    | SubmitAccepted
    | SubmitRefused
    | RemoteTls
    | RemoteTlsFailed
    | RemoteLogin
)


def _sentence(text: str) -> bytes:
    """Our own sentences keep their blanks; what is not printable ASCII becomes `?`."""
    return bytes(code if 0x20 <= code < 0x7F else 0x3F for code in text.encode("utf-8", "replace"))
