"""The files of control/ that are no lists of lines: certificates and keys in PEM.

They are explained like the others; what is in them is read by tls/, and shown by `openqmail tls show`,
which never shows a key.
"""

import msgspec

from openqmail.core.values import ControlError

IMPLICIT = ("smtps", "submissions")
"""Services in which TLS begins before anything is said."""


def no_certificate(service: str) -> ControlError:
    """Such a service in a home without one."""
    why = f"{service} needs control/servercert.pem; 'openqmail tls selfsign' makes one"
    return ControlError("control/listen", 0, why)


class PemDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """One file, or each `NAME.pem` of a folder.  `without`: what holds when it is not there."""

    name: str
    kind: str
    readers: tuple[str, ...]
    without: str
    explanation: str
    secret: bool


PEM: tuple[PemDefinition, ...] = (
    PemDefinition(
        name="servercert.pem",
        kind="a private key and certificates in PEM",
        readers=("smtpd",),
        without="no TLS for clients; services smtps and submissions cannot be served",
        explanation=(
            "The certificate of this host, for SMTP clients: its private key, not encrypted, its own "
            "certificate, then those that lead to an authority, in one file. 'openqmail tls selfsign' makes "
            "one that nobody can verify. In a home of root's it is root's, mode 400: smtpd reads it before "
            "it becomes its user. A new one is noticed within a minute, or by HUP."
        ),
        secret=True,
    ),
    PemDefinition(
        name="certs/NAME.pem",
        kind="a private key and certificates in PEM",
        readers=("smtpd",),
        without="clients get control/servercert.pem, whatever name they ask for",
        explanation=(
            "The same for clients that ask for the host NAME (SNI), in lower case; _.example.org.pem is for "
            "every name one label below example.org."
        ),
        secret=True,
    ),
    PemDefinition(
        name="clientca.pem",
        kind="certificates in PEM",
        readers=("smtpd",),
        without="no client is asked for a certificate",
        explanation=(
            "The authorities whose certificates clients may show. With it, each client is asked for one: who "
            "has none is served, who shows one that does not verify is not. So not where strangers' hosts "
            "deliver, some of which show whatever they have."
        ),
        secret=False,
    ),
    PemDefinition(
        name="clientcrl.pem",
        kind="certificate revocation lists in PEM",
        readers=("smtpd",),
        without="no certificate of a client is revoked",
        explanation=(
            "The revocation list of each authority in control/clientca.pem. One that is out of date, or "
            "missing for an authority, lets no certificate of it pass."
        ),
        secret=False,
    ),
)
