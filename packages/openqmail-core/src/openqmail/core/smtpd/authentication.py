"""AUTH in a session (RFC 4954): the client's base64 becomes gate's exchange, its answers become replies.

An attempt that is cancelled, reset or cut off is given up at the gate.  After `ATTEMPTS` wrong ones the
session ends.  What a login may do is here too: which senders are its own.
"""

import base64
from asyncio import Future
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from openqmail.core.ports import (
    Exchange,
    Gate,
    SaslAnswer,
    SaslChallenge,
    SaslClient,
    SaslGranted,
)
from openqmail.core.sasl import Facts
from openqmail.core.smtp import events
from openqmail.core.smtp.server import ServerSession
from openqmail.core.values import Reply
from openqmail.core.values.address import canonical_address

if TYPE_CHECKING:
    from openqmail.core.smtpd.handover import Connection
    from openqmail.core.smtpd.record import SessionRecord

ATTEMPTS = 3
"""Wrong ones of one session."""

WRONG = Reply(535, b"5.7.8", (b"authentication failed",))
LATER = Reply(454, b"4.7.0", (b"cannot authenticate you now, try again later",))
LOCKED = Reply(421, b"4.7.0", (b"too many failed logins, try again later",))
MALFORMED = Reply(501, b"5.5.2", (b"that is not what the mechanism asks for",))
REPLIES = {"wrong": WRONG, "undecided": LATER, "later": LATER, "locked": LOCKED, "malformed": MALFORMED}

NOT_YOURS = Reply(553, b"5.7.1", (b"this sender is not one of your login",))
MESSAGES = Reply(450, b"4.7.1", (b"too many messages of your login, try again later",))
RECIPIENTS = Reply(452, b"4.7.1", (b"too many recipients of your login, try again later",))


class Attempts:
    """Of one session.  `granted` is told the identity, and answers the client."""

    def __init__(
        self,
        gate: Gate,
        machine: ServerSession,
        connection: "Connection",
        record: "SessionRecord",
        client: SaslClient,
        granted: Callable[[bytes], None],
    ) -> None:
        self._gate, self._machine, self._connection = gate, machine, connection
        self._record, self._client, self._granted = record, client, granted
        self._exchange: Exchange | None = None
        self._wrong = 0

    def begin(self, event: events.Auth, facts: Facts) -> None:
        self.abort()
        self._exchange = self._gate.sasl(event.mechanism, self._client, facts)
        self._respond(self._exchange, event.initial)

    def respond(self, event: events.AuthResponse) -> None:
        if self._exchange is None:
            self._machine.send(MALFORMED)
        else:
            self._respond(self._exchange, event.data)

    def abort(self) -> None:
        """The attempt under way, if any, is no more."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.abort()

    def _respond(self, exchange: Exchange, data: bytes | None) -> None:
        answer = exchange.respond(data)
        if answer.done():
            self._told(exchange, answer)
        else:
            answer.add_done_callback(lambda done: self._told_later(exchange, done))

    def _told_later(self, exchange: Exchange, answer: "Future[SaslAnswer]") -> None:
        if self._exchange is exchange and not self._connection.gone:
            self._told(exchange, answer)
            self._connection.go_on()

    def _told(self, exchange: Exchange, answer: "Future[SaslAnswer]") -> None:
        heard = answer.result()
        if isinstance(heard, SaslChallenge):
            self._machine.send(Reply(334, b"", (base64.b64encode(heard.data),)))
            return
        self._exchange = None
        if isinstance(heard, SaslGranted):
            self._granted(heard.identity)
            return
        self._wrong += heard.kind in ("wrong", "undecided")
        reply = LOCKED if self._wrong >= ATTEMPTS else REPLIES[heard.kind]
        if reply is LOCKED:
            self._record.said_last(reply)
        self._machine.send(reply)


def may_send(senders: Mapping[bytes, frozenset[bytes]], login: bytes, sender: bytes) -> bool:
    """Whether control/senders lets a login use this sender; everybody may use the empty one, for receipts
    (RFC 8098 section 3)."""
    if not senders or not sender:
        return True
    own = senders.get(login, frozenset())
    address = canonical_address(sender)
    return address in own or address[address.rfind(b"@") :] in own
