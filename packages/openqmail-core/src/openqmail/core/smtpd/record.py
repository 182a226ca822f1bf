"""What the log is told of one SMTP session: each message that was accepted, each command that was refused
(`TOLD` of them; the others are counted), and at the end how it went, in one line."""

from openqmail.core.log import SmtpdAccepted, SmtpdRefused, SmtpdSession, SmtpdTlsFailed
from openqmail.core.ports import ServiceContext
from openqmail.core.smtp import tables
from openqmail.core.smtp.refusals import Refused
from openqmail.core.smtpd.authentication import LOCKED
from openqmail.core.smtpd.policy import (
    BUSY,
    CROWDED,
    DENIED,
    LEAVING,
    TOO_MANY_GUESSES,
    TOO_MANY_MESSAGES,
    TOO_OFTEN,
)
from openqmail.core.tls import TlsFacts
from openqmail.core.values import Reply

TOLD = 100
"""Refused commands of a session that have a line each: who guesses addresses does not fill the disk."""

ENDS: dict[Reply, str] = {
    DENIED: "denied",
    BUSY: "busy",
    CROWDED: "busy",
    TOO_MANY_MESSAGES: "enough",
    TOO_MANY_GUESSES: "guesses",
    TOO_OFTEN: "rate",
    LOCKED: "logins",
    LEAVING: "shutdown",
    tables.TIMEOUT: "timeout",
    tables.TOO_SLOW: "slow",
    tables.TOO_MANY_ERRORS: "errors",
}
"""A session that ends with our last word -> how it ended; with any other, by a `violation`."""


class SessionRecord:
    """From the connection to its end.  `helo`, `tls`, `login` and `end` are set as they become known."""

    __slots__ = (
        "_began",
        "_client",
        "_clock",
        "_log",
        "_messages",
        "_port",
        "_recipients",
        "_refused",
        "_service",
        "end",
        "helo",
        "login",
        "size",
        "tls",
        "via",
    )

    def __init__(self, context: ServiceContext, client: str, port: int, via: str | None = None) -> None:
        self.via = via  # the front end that speaks for the client
        self._log, self._clock = context.log, context.clock
        self._service = context.listener.service
        self._client, self._port = client, port
        self._began = context.clock.monotonic()
        self._messages = self._recipients = self._refused = 0
        self.size = 0  # bytes that came
        self.helo = b""
        self.login: bytes | None = None
        self.tls: TlsFacts | None = None
        self.end = ""

    def accepted(self, number: int, sender: bytes, recipients: int) -> None:
        self._messages += 1
        self._recipients += recipients
        self._log(SmtpdAccepted(number, self._client, self._port, self.helo, sender, recipients, self.login))

    def refused(self, commands: list[Refused]) -> None:
        """Takes them out."""
        for one in commands:
            self._refused += 1
            if self._refused <= TOLD:
                self._log(self._refusal(one))
        commands.clear()

    def tls_failed(self, why: str) -> None:
        """The session ends with a handshake that came to nothing."""
        self.end = self.end or "tls"
        text = why.encode("utf-8", "replace")
        self._log(SmtpdTlsFailed(self._client, self._port, self._service, self.helo, text))

    def said_last(self, reply: Reply) -> None:
        """The session ends with this reply."""
        self.end = ENDS.get(reply, "violation")

    def ended(self, otherwise: str) -> None:
        """`otherwise`: how, where nobody has said so before."""
        tls = self.tls
        self._log(
            SmtpdSession(
                end=self.end or otherwise,
                client=self._client,
                port=self._port,
                service=self._service,
                helo=self.helo,
                seconds=self._clock.monotonic() - self._began,
                messages=self._messages,
                recipients=self._recipients,
                refused=self._refused,
                size=self.size,
                via=self.via,
                tls=tls.version if tls else None,
                cipher=tls.cipher if tls else None,
                sni=(tls.server_name or None) if tls else None,
                peer=(tls.peer or None) if tls else None,
            )
        )

    def _refusal(self, one: Refused) -> SmtpdRefused:
        reply = one.reply
        text = b"\n".join(reply.lines)
        if reply.enhanced:
            text = reply.enhanced + b" " + text
        return SmtpdRefused(
            one.command, one.argument, reply.code, self._client, self._port, self.helo, one.sender, text
        )
