"""A mail as a test looks at it: who sent it to whom, what it says, and its very bytes.

Addresses are str, as test writers have them; what is no UTF-8 in one is escaped as \\xNN.
"""

import re
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from functools import cached_property

_TRACE = re.compile(rb"Return-Path: <(?P<sender>[^\n]*)>\nDelivered-To: (?P<recipient>[^\n]*)\n")

Message = EmailMessage | str | bytes
"""What may be sent; a str is encoded as UTF-8.  Line ends may be LF or CRLF."""


class Mail:
    """A mail that has arrived somewhere.

    `sender` and `recipients` are the envelope's ("" for the sender of a bounce); `raw` are all its
    bytes with LF, the trace fields on top included; `mail["Subject"]` is a header, or None.
    `repr` is for the message of a failed assertion.
    """

    def __init__(self, sender: str, recipients: tuple[str, ...], raw: bytes) -> None:
        self.sender = sender
        self.recipients = recipients
        self.raw = raw

    @property
    def recipient(self) -> str:
        """The first, who is the only one of a mail in a mailbox."""
        return self.recipients[0]

    @cached_property
    def message(self) -> EmailMessage:
        """As the standard library parses it."""
        return BytesParser(EmailMessage, policy=policy.default).parsebytes(self.raw)

    @property
    def text(self) -> str:
        """What is to be read: its plain text, or its HTML; "" where there is neither."""
        body = self.message.get_body(("plain", "html"))
        return "" if body is None else str(body.get_content())

    def __getitem__(self, header: str) -> str | None:
        found = self.message[header]
        return None if found is None else str(found)

    def __repr__(self) -> str:
        return f"<Mail {self['Subject']!r} from <{self.sender}> to {', '.join(self.recipients)}>"


def from_maildir(content: bytes) -> Mail:
    """A file of a Maildir, whose first two lines are the envelope's."""
    found = _TRACE.match(content)
    if found is None:
        return Mail("", ("",), content)
    return Mail(text_of(found["sender"]), (text_of(found["recipient"]),), content)


def text_of(address: bytes) -> str:
    return address.decode("utf-8", "backslashreplace")


def wire_of(message: Message) -> bytes:
    """With CRLF, and a final one."""
    if isinstance(message, EmailMessage):
        data = message.as_bytes(policy=policy.SMTPUTF8)
    else:
        data = message.encode() if isinstance(message, str) else message
    lines = re.sub(rb"\r\n|\r|\n", b"\r\n", data)
    return lines if lines.endswith(b"\r\n") else lines + b"\r\n"
