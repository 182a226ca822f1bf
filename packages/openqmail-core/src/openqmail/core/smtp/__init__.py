"""SMTP as two state machines without IO: the server's side and the client's (RFC 5321)."""

from openqmail.core.smtp import client_events, events
from openqmail.core.smtp.client import ClientSession
from openqmail.core.smtp.client_events import ExtensionMissing, Transaction
from openqmail.core.smtp.grammar import AddressError, quote, wire_domain
from openqmail.core.smtp.lmtp import LmtpSession
from openqmail.core.smtp.offer import Offer
from openqmail.core.smtp.server import ServerSession

__all__ = [
    "AddressError",
    "ClientSession",
    "ExtensionMissing",
    "LmtpSession",
    "Offer",
    "ServerSession",
    "Transaction",
    "client_events",
    "events",
    "quote",
    "wire_domain",
]
