"""What the server machine tells of a command that got 4xx or 5xx: for the log, not for the session.

No secret is told: neither what AUTH says, nor an unknown command, which may be a password that was
sent astray.
"""

import re

import msgspec

from openqmail.core.smtp.events import Auth, AuthResponse, Data, Hello, Mail, MessageEnd, Rcpt, StartTls
from openqmail.core.smtp.tables import STANDARD, TABLE
from openqmail.core.values import Reply

TOLD = 255
"""Octets of what a refused command says that are told."""

_WORDS: dict[type, str] = {
    Mail: "mail",
    Rcpt: "rcpt",
    Data: "data",
    MessageEnd: "message",
    StartTls: "starttls",
    Auth: "auth",
    AuthResponse: "auth",
}
_SHOWN = frozenset({b"MAIL", b"RCPT", b"EHLO", b"HELO"})
_PATH = re.compile(rb"(?:FROM|TO): ?<([^<>]*)>", re.IGNORECASE)


class Refused(msgspec.Struct, frozen=True, gc=False):
    """`command` is its word in lower case; `connect` for the connection itself, `message` for what came
    after DATA or BDAT, `line` for what is no command at all, `unknown` for one that nobody knows.
    `argument`:
    the address of MAIL or RCPT, the name of EHLO or HELO, or as it was written where it is none;
    empty for any other.  `sender`: of the mail transaction, None outside of one."""

    command: str
    argument: bytes
    sender: bytes | None
    reply: Reply


def of_event(event: object, sender: bytes | None, reply: Reply) -> Refused:
    """Of a command that was understood, by the event that it made."""
    if type(event) is Hello:
        return Refused("ehlo" if event.extended else "helo", event.name, None, reply)
    argument = b""
    if type(event) is Mail:
        argument = event.sender
    elif type(event) is Rcpt:
        argument = event.recipient.address
    return Refused(_WORDS.get(type(event), "connect"), argument, sender, reply)


def of_line(line: bytes, sender: bytes | None, reply: Reply) -> Refused:
    """Of a command that was not obeyed, by its line."""
    verb, _, argument = line.rstrip(b" \t\r\n").partition(b" ")
    verb = verb.upper()
    if verb not in TABLE and verb not in STANDARD:
        return Refused("unknown", b"", sender, reply)
    if verb not in _SHOWN:
        argument = b""
    elif path := _PATH.match(argument):
        argument = path[1]
    return Refused(verb.decode().lower(), argument[:TOLD], sender, reply)
