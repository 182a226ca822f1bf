"""TLS with one host: the handshake, and whether it is who it has to be; what the log is told.  No socket.

Whatever goes wrong is a `TlsError`, whose text is a clause about the host.
"""

import re
import ssl

from openqmail.core.log import RemoteLogin, RemoteTls, RemoteTlsFailed
from openqmail.core.remote.security import Security
from openqmail.core.remote.transport import Stop
from openqmail.core.tls import TlsError, TlsFacts, TlsStream

SECONDS = 30.0
"""That a handshake may take."""

HUNG_UP = "it hung up"
TOO_LATE = "it took too long"

_NAME = re.compile(rb"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+")


class Securing:
    """Of one connection; `facts` are there when the handshake is done.  `to_send` has what the host is to be
    told, also when something went wrong."""

    def __init__(self, security: Security, name: bytes) -> None:
        """`name`: of the host, by which it is asked for (RFC 6066 section 3).  Raises TlsError."""
        assert security.context is not None
        self._security = security
        self.facts: TlsFacts | None = None
        try:
            self._stream = TlsStream(security.context, server_name(name))
            self._stream.begin()
        except (ssl.SSLError, ValueError) as error:
            raise TlsError(words(error)) from None

    def receive(self, data: bytes) -> bytes:
        """What it says; nothing before `facts` are there.  Raises TlsError."""
        stream = self._stream
        try:
            plain = stream.receive(data)
        except ssl.SSLError as error:
            raise TlsError(words(error)) from None
        if stream.opened and self.facts is None:
            facts = stream.facts(self._security.references)
            self.facts = self._security.judged(facts, stream.certificate)
        return plain

    @property
    def over(self) -> bool:
        """It has said that no more will come."""
        return self._stream.closed

    def send(self, data: bytes) -> bytes:
        """The same, ciphered.  Raises TlsError."""
        try:
            self._stream.send(data)
        except ssl.SSLError as error:
            raise TlsError(words(error)) from None
        return self._stream.data_to_send()

    def to_send(self) -> bytes:
        return self._stream.data_to_send()

    def close(self) -> bytes:
        """Our last word."""
        self._stream.close()
        return self._stream.data_to_send()


def begun(delivery: int, stop: Stop, facts: TlsFacts) -> RemoteTls:
    """For the log."""
    return RemoteTls(
        delivery,
        stop.address,
        stop.port,
        stop.name,
        stop.security.policy.value,
        facts.version,
        facts.cipher,
        facts.server_name or None,
        facts.peer or None,
    )


def failed(delivery: int, stop: Stop, why: str, again: bool) -> RemoteTlsFailed:
    """For the log; `again`: it is tried without TLS."""
    return RemoteTlsFailed(
        delivery,
        stop.address,
        stop.port,
        stop.name,
        stop.security.policy.value,
        "plain" if again else "wait",
        why.encode("utf-8", "replace"),
    )


def logged_in(delivery: int, stop: Stop, mechanism: bytes, tls: bool) -> RemoteLogin:
    """For the log.  Some relays know a customer by one secret in both places: that is no name."""
    login = stop.security.login
    told = login.name if login is not None and login.password not in login.name else b""
    return RemoteLogin(delivery, stop.address, stop.port, stop.name, told, mechanism, tls)


def server_name(name: bytes) -> str:
    """The name for SNI; "" for an address."""
    name = name.rstrip(b".")
    if not _NAME.fullmatch(name) or name.replace(b".", b"").isdigit():
        return ""
    return name.decode()


def words(error: ssl.SSLError | ValueError) -> str:
    """Why, in OpenSSL's words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not believed: {error.verify_message}"
    reason = error.reason if isinstance(error, ssl.SSLError) else ""
    return (reason or str(error)).lower().replace("_", " ")
