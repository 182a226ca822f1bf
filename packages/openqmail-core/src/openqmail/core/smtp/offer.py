"""What a server offers, and the answers that follow from it alone, built once as bytes."""

from functools import cached_property

import msgspec

from openqmail.core.smtp.xclient import NAMES
from openqmail.core.values import Reply


class Offer(msgspec.Struct, frozen=True, dict=True):
    """What a session offers.  `size` 0 is no limit (RFC 1870); `auth` names mechanisms, in
    upper case; `timeout` is the silence to bear, in seconds (RFC 5321 section 4.5.3.2.7: 300
    at least); after `max_errors` refused commands the session ends; `hello` is the text of the
    greeting, the name where it is empty; `dsn`: RFC 3461's parameters are taken; `xclient`: the client is
    a front end that may say for whom it speaks; `named`: it has, and may say more of that client until that
    one's EHLO or HELO, but whoever says these is not told so.  `max_messages` is only told, 0: nothing is."""

    name: bytes
    size: int
    max_recipients: int
    timeout: float
    starttls: bool = False
    auth: tuple[bytes, ...] = ()
    max_errors: int = 20
    hello: bytes = b""
    dsn: bool = False
    xclient: bool = False
    named: bool = False
    max_messages: int = 0

    @cached_property
    def greeting(self) -> bytes:
        """What is said first."""
        return Reply(220, b"", ((self.hello or self.name) + b" ESMTP",)).encode()

    @cached_property
    def ehlo(self) -> bytes:
        """The answer to EHLO (RFC 5321 section 4.1.1.1)."""
        lines = [self.name, b"PIPELINING", b"SIZE %d" % self.size, b"8BITMIME", b"SMTPUTF8"]
        lines += [b"ENHANCEDSTATUSCODES", b"CHUNKING", self._limits]
        if self.dsn:
            lines.append(b"DSN")
        if self.starttls:
            lines.append(b"STARTTLS")
        if self.auth:
            lines.append(b"AUTH " + b" ".join(self.auth))
        if self.xclient:
            lines.append(b"XCLIENT " + b" ".join(NAMES))
        lines.append(b"HELP")
        return Reply(250, b"", tuple(lines)).encode()

    @property
    def _limits(self) -> bytes:
        """RFC 9422, section 3: recipients of a transaction, transactions of a session."""
        most = b" MAILMAX=%d" % self.max_messages if self.max_messages else b""
        return b"LIMITS%b RCPTMAX=%d" % (most, self.max_recipients)

    @cached_property
    def helo(self) -> bytes:
        """The answer to HELO."""
        return Reply(250, b"", (self.name,)).encode()

    @cached_property
    def bye(self) -> bytes:
        """The answer to QUIT."""
        return Reply(221, b"2.0.0", (self.name + b" closes the connection",)).encode()


# The usual answers to what a shell decides.
MAIL_OK = b"250 2.1.0 ok\r\n"
RCPT_OK = b"250 2.1.5 ok\r\n"
DATA_OK = b"354 go ahead\r\n"
MESSAGE_OK = b"250 2.0.0 ok\r\n"
CHUNK_OK = b"250 2.0.0 ok, go on\r\n"
TLS_OK = b"220 2.0.0 ready to start TLS\r\n"
AUTH_OK = b"235 2.7.0 authenticated\r\n"

# The answers to what changes nothing, or only the machine.
OK = b"250 2.0.0 ok\r\n"
CANNOT_VERIFY = b"252 2.5.0 cannot verify, but send some mail and see\r\n"
HELP = b"214 2.0.0 see RFC 5321\r\n"
