"""TLS towards clients: the certificates of this host, chosen by the name that the client asks for.

`control/servercert.pem` is for whoever asks for no other; `control/certs/NAME.pem` for clients that ask for
NAME by SNI (`_.example.org.pem`: for any name one label below).  With `control/clientca.pem` clients are
asked for a certificate, which may be missing but not wrong; `control/clientcrl.pem` says which are revoked.
TLS 1.2 and 1.3 alone, forward secret, no renegotiation (RFC 9325).  ALPN: `smtp`, where it is offered.
"""

import os
import ssl
from collections.abc import Callable, Container

from openqmail.core.tls import files
from openqmail.core.tls.certificate import Certificate
from openqmail.core.tls.files import PemFile
from openqmail.core.values import ControlError

SUITES = "@SECLEVEL=2:ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES:!aNULL:!eNULL:!aDSS:!SHA1:!AESCCM"
"""Of TLS 1.2; those of 1.3 are all sound."""


class ServerObject(ssl.SSLObject):
    """The server's end of one connection; the name that the client asked for, and the certificate it got."""

    server_name = ""
    certificate = b""


class ServerTls:
    """What this host is to its clients.

    `context` serves all names; `chains` by the name in SNI, "" for any other: the host's own first."""

    def __init__(self, context: ssl.SSLContext, chains: dict[str, tuple[Certificate, ...]]) -> None:
        self.context, self.chains = context, chains

    @classmethod
    def load(cls, control_folder: str, me: bytes, ciphers: str = "") -> "ServerTls | None":
        """None: there is no servercert.pem.  Raises ControlError naming the file and what to do."""
        found = files.server_files(control_folder)
        if found and "" not in found:
            raise files.without_default(me.decode())
        contexts: dict[str, ssl.SSLContext] = {}
        chains: dict[str, tuple[Certificate, ...]] = {}
        for name, file in found.items():
            content = files.content(file)
            chains[name] = files.certificates(file, content)
            contexts[name] = _context(ciphers)
            files.load_chain(contexts[name], file, content)
            _ask_clients(contexts[name], control_folder)
        if not contexts:
            return None
        contexts[""].sni_callback = _chooser(contexts, chains)
        return cls(contexts[""], chains)

    def certificate_for(self, server_name: str) -> bytes:
        """The certificate in DER that a client gets who asks for this name ("": for none)."""
        return self.chains[_chosen(self.chains, server_name)][0].der


def _chosen(names: Container[str], server_name: str) -> str:
    """Which of the names has the certificate for a client's wish."""
    wanted = server_name.lower().rstrip(".")
    if wanted in names:
        return wanted
    below = "_." + wanted.partition(".")[2]
    return below if below in names else ""


def _context(ciphers: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.num_tickets = 1
    context.sslobject_class = ServerObject
    context.set_alpn_protocols(["smtp"])
    files.set_ciphers(context, ciphers or SUITES, "control/tlsserverciphers")
    return context


def _ask_clients(context: ssl.SSLContext, control_folder: str) -> None:
    """Ask clients for certificates, where there is a clientca.pem."""
    authorities, revoked = (
        PemFile(os.path.join(control_folder, name), f"control/{name}") for name in files.CLIENT_FILES
    )
    if not os.path.lexists(authorities.path):
        if os.path.lexists(revoked.path):
            raise ControlError(revoked.name, 0, files.NO_AUTHORITIES)
        return
    files.load_authorities(context, authorities, "certificate")
    if os.path.lexists(revoked.path):
        files.load_authorities(context, revoked, "revocation list")
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    context.verify_mode = ssl.CERT_OPTIONAL


def _chooser(
    contexts: dict[str, ssl.SSLContext], chains: dict[str, tuple[Certificate, ...]]
) -> Callable[[ssl.SSLObject, str | None, ssl.SSLContext], None]:
    def choose(peer: ssl.SSLObject, server_name: str | None, context: ssl.SSLContext) -> None:
        name = _chosen(contexts, server_name or "")
        if name:
            peer.context = contexts[name]
        if isinstance(peer, ServerObject):
            peer.server_name, peer.certificate = (server_name or "").lower(), chains[name][0].der

    return choose
