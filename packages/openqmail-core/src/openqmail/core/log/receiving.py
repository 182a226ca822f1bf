"""The facts of receiving: who handed a message in, what was refused, how a session went.

qmail-smtpd wrote no log; these lines are ours, in qmail-send's manner: `smtpd: ` or `submit: `, then
what happened, then names and values.  No line begins with a word that qmailanalog's matchup
takes for one of qmail-send's.  What a stranger said is escaped as everywhere, and cut, so that a line has
1,000 bytes at most; `...` stands where it was cut.
"""

import msgspec

from openqmail.core.log.escaping import SAFE

HELO = 128
ADDRESS = 256
TEXT = 160
"""Bytes that are shown of a name, an address, a text."""


class SmtpdAccepted(msgspec.Struct, frozen=True, gc=False):
    """A client was told that its message is in the queue, or would have been had it stayed.

    `recipients`: how many; `login`: of a client that has one."""

    number: int
    client: str
    port: int
    helo: bytes
    sender: bytes
    recipients: int
    login: bytes | None = None

    def line(self) -> bytes:
        return b"smtpd: accepted msg %d: client %s helo %s from <%s> recipients %d%s" % (
            self.number,
            host_and_port(self.client, self.port),
            word(self.helo),
            cut(self.sender, ADDRESS),
            self.recipients,
            b"" if self.login is None else b" login <%s>" % cut(self.login, ADDRESS),
        )


class SmtpdRefused(msgspec.Struct, frozen=True, gc=False):
    """A command got 4xx or 5xx.

    `command` is its word in lower case: `connect` for the connection itself, `message` for what came after
    DATA, `line` for what is no command at all, `unknown` for one that nobody knows.  `argument`:
    the address of `mail` or `rcpt`, or as it was written where it is none.  `sender`: of the transaction,
    None outside of one.  `text`: all of the reply behind its code."""

    command: str
    argument: bytes
    code: int
    client: str
    port: int
    helo: bytes
    sender: bytes | None
    text: bytes

    def line(self) -> bytes:
        return b"smtpd: refused %s%s: code %d client %s helo %s%s text %s" % (
            self.command.encode(),
            b" <%s>" % cut(self.argument, ADDRESS) if self.argument else b"",
            self.code,
            host_and_port(self.client, self.port),
            word(self.helo),
            b" from <%s>" % cut(self.sender, ADDRESS) if self.sender is not None else b"",
            cut(self.text, TEXT),
        )


class SmtpdSession(msgspec.Struct, frozen=True, gc=False):
    """A session is over.

    `end` is how, in a word (docs/log.md has them).  `seconds`: how long it was.  `messages` were accepted,
    for `recipients` in all; `refused`: commands; `size`: bytes that came from the client.  `tls`: version,
    `cipher`: suite, `sni`: the name the client asked for, `peer`: the verified name of its certificate;
    None where there is none.  `via`: address and port of the front end that spoke for the client; None: it
    came by itself."""

    end: str
    client: str
    port: int
    service: str
    helo: bytes
    seconds: float
    messages: int
    recipients: int
    refused: int
    size: int
    via: str | None = None
    tls: str | None = None
    cipher: str | None = None
    sni: str | None = None
    peer: str | None = None

    def line(self) -> bytes:
        return b"smtpd: session %s: client %s service %s helo %s seconds %.3f messages %d" % (
            self.end.encode(),
            host_and_port(self.client, self.port),
            word(self.service.encode()),
            word(self.helo),
            self.seconds,
            self.messages,
        ) + b" recipients %d refused %d bytes %d%b" % (
            self.recipients,
            self.refused,
            self.size,
            (b" via " + word(self.via.encode("utf-8", "replace")) if self.via else b"")
            + (self._secured() if self.tls else b""),
        )

    def _secured(self) -> bytes:
        facts = (self.tls, self.cipher, self.sni, self.peer)
        words = [word((text or "").encode("utf-8", "replace")) for text in facts]
        return b" tls %b cipher %b sni %b peer %b" % tuple(words)


class SmtpdTlsFailed(msgspec.Struct, frozen=True, gc=False):
    """A TLS handshake came to nothing, which ends the session.  `text`: why."""

    client: str
    port: int
    service: str
    helo: bytes
    text: bytes

    def line(self) -> bytes:
        return b"smtpd: tls failed: client %s service %s helo %s text %s" % (
            host_and_port(self.client, self.port),
            word(self.service.encode()),
            word(self.helo),
            cut(self.text, TEXT),
        )


class AuthAccepted(msgspec.Struct, frozen=True, gc=False):
    """A client has logged in."""

    login: bytes
    mechanism: bytes
    client: str
    port: int
    service: str
    tls: bool

    def line(self) -> bytes:
        return b"auth: accepted <%s>: %s" % (cut(self.login, ADDRESS), _how(self))


class AuthRefused(msgspec.Struct, frozen=True, gc=False):
    """A client has not.

    `why`: `wrong`, the secret or the login; `undecided`, so says one of those who know the logins, and
    another could not tell; `later`, it could not be told; `locked`, after too many failures;
    `abandoned`, by the client, as SCRAM had told it a salt.  `login`: as it was said, empty where it was
    not."""

    why: str
    login: bytes
    mechanism: bytes
    client: str
    port: int
    service: str
    tls: bool

    def line(self) -> bytes:
        return b"auth: refused <%s>, %s: %s" % (
            cut(self.login, ADDRESS),
            word(self.why.encode("utf-8", "replace")),
            _how(self),
        )


def _how(one: AuthAccepted | AuthRefused) -> bytes:
    return b"client %s service %s mechanism %s tls %s" % (
        host_and_port(one.client, one.port),
        word(one.service.encode("utf-8", "replace")),
        word(one.mechanism),
        b"yes" if one.tls else b"no",
    )


class SubmitAccepted(msgspec.Struct, frozen=True, gc=False):
    """A program of this host was told that its message is in the queue."""

    number: int
    uid: int
    pid: int
    sender: bytes
    recipients: int

    def line(self) -> bytes:
        return b"submit: accepted msg %d: uid %d pid %d from <%s> recipients %d" % (
            self.number,
            self.uid,
            self.pid,
            cut(self.sender, ADDRESS),
            self.recipients,
        )


class SubmitRefused(msgspec.Struct, frozen=True, gc=False):
    """A program of this host got no, or went before it was told anything.

    `outcome`: `failure` for good, `deferral` for now, `gone`.  `uid` and `pid` are None where the kernel
    does not say who it is."""

    outcome: str
    uid: int | None
    pid: int | None
    sender: bytes
    text: bytes

    def line(self) -> bytes:
        return b"submit: refused, %s: uid %s pid %s from <%s> text %s" % (
            self.outcome.encode(),
            _number(self.uid),
            _number(self.pid),
            cut(self.sender, ADDRESS),
            cut(self.text, TEXT),
        )


def host_and_port(address: str, port: int) -> bytes:
    """Address and port, an IPv6 address in brackets."""
    host = address.encode("utf-8", "replace").translate(SAFE)
    return b"[%s]:%d" % (host, port) if b":" in host else b"%s:%d" % (host, port)


def word(text: bytes) -> bytes:
    """A name, `-` where there is none."""
    return cut(text, HELO) or b"-"


def _number(number: int | None) -> bytes:
    return b"-" if number is None else b"%d" % number


def cut(text: bytes, most: int) -> bytes:
    """What a stranger said, escaped, at most so many bytes of it."""
    return text.translate(SAFE) if len(text) <= most else text[:most].translate(SAFE) + b"..."
