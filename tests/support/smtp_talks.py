"""Conversations with a service that several tests begin with."""

import smtplib

from homes import Home


def taken_and_refused(home: Home) -> int:
    """A message for alice, whose number is returned, and at RCPT one who is nobody of this host."""
    with smtplib.SMTP("127.0.0.1", home.port, timeout=30) as smtp:
        smtp.ehlo("client.example")
        smtp.mail("s@c.example")
        smtp.rcpt("alice@a.example")
        assert smtp.rcpt("x@elsewhere.example")[0] == 553
        code, text = smtp.data(b"Subject: x\r\n\r\nx\r\n")
        assert code == 250
    return int(text.split()[-1])
