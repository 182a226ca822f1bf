"""The transport `lmtp`: to a store of mailboxes behind this host, by LMTP over TCP (RFC 2033).

All is as in the transport `smtp` but the language: a line `example.org:lmtp!store.example.org` of
control/smtproutes names it, whose port is 24 when none is given.  Unix sockets are not served: a
route leads to addresses.
"""

from openqmail.core.remote.smtp import SmtpTransport
from openqmail.core.smtp.lmtp import LmtpSession


class LmtpTransport(SmtpTransport):
    """Serves the protocol `Transport`."""

    name = "lmtp"
    session = LmtpSession
