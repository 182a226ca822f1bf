"""What a server offers, and the answers that follow from it alone, built once as bytes."""

from functools import cached_property

import msgspec

from openqmail.core.values import Reply


class Offer(msgspec.Struct, frozen=True, dict=True):
    """What a session offers.  `size` 0 is no limit (RFC 1870); `auth` names mechanisms, in
    upper case; `timeout` is the silence to bear, in seconds (RFC 5321 section 4.5.3.2.7: 300
    at least); after `max_errors` refused commands the session ends; `hello` is the text of the
    greeting, the name where it is empty; `dsn`: RFC 3461's parameters are taken."""

    name: bytes
    size: int
    max_recipients: int
    timeout: float
    starttls: bool = False
    auth: tuple[bytes, ...] = ()
    max_errors: int = 20
    hello: bytes = b""
    dsn: bool = False

    @cached_property
    def greeting(self) -> bytes:
        """What is said first."""
        return Reply(220, b"", ((self.hello or self.name) + b" ESMTP",)).encode()

    @cached_property
    def ehlo(self) -> bytes:
        """The answer to EHLO (RFC 5321 section 4.1.1.1)."""
        lines = [self.name, b"PIPELINING", b"SIZE %d" % self.size, b"8BITMIME", b"SMTPUTF8"]
        lines.append(b"ENHANCEDSTATUSCODES")
        if self.dsn:
            lines.append(b"DSN")
        if self.starttls:
            lines.append(b"STARTTLS")
        if self.auth:
            lines.append(b"AUTH " + b" ".join(self.auth))
        lines.append(b"HELP")
        return Reply(250, b"", tuple(lines)).encode()

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
TLS_OK = b"220 2.0.0 ready to start TLS\r\n"
AUTH_OK = b"235 2.7.0 authenticated\r\n"

# The answers to what changes nothing, or only the machine.
OK = b"250 2.0.0 ok\r\n"
CANNOT_VERIFY = b"252 2.5.0 cannot verify, but send some mail and see\r\n"
HELP = b"214 2.0.0 see RFC 5321\r\n"
