"""TLS, both directions: certificates as values, contexts, policies, and what a handshake came to.

No socket is opened here and nothing is decided about mail.  Certificates are made by
`cryptography`, which is imported for that alone; everything else is Python's own `ssl`.
"""

from openqmail.core.tls.certificate import Certificate, TlsError, read_certificates
from openqmail.core.tls.client import Policy, client_context
from openqmail.core.tls.facts import TlsFacts, facts_of
from openqmail.core.tls.files import pin_files, stamp
from openqmail.core.tls.names import client_names, verified_name
from openqmail.core.tls.selfsign import self_signed
from openqmail.core.tls.server import ServerTls
from openqmail.core.tls.stream import TlsStream

__all__ = [
    "Certificate",
    "Policy",
    "ServerTls",
    "TlsError",
    "TlsFacts",
    "TlsStream",
    "client_context",
    "client_names",
    "facts_of",
    "pin_files",
    "read_certificates",
    "self_signed",
    "stamp",
    "verified_name",
]
