"""Whether a certificate is that of a host (RFC 7817, by the rules of RFC 6125), and whose a client's is.

Only names that were meant for it count: dNSName.  The common name is not looked at for hosts, as RFC
9525 has it.  A `*` stands for one whole label, the first.
"""

import ssl
from collections.abc import Iterable

from openqmail.core.tls.certificate import Certificate, TlsError, read_certificate


def verified_name(certificate: Certificate | bytes, references: Iterable[str]) -> str:
    """The first of `references` (names of hosts, A-labels) that the certificate is for; "" for none.

    `.example.org` means any name one label below.  The chain has to be verified by others."""
    try:
        found = certificate if isinstance(certificate, Certificate) else read_certificate(certificate)
    except TlsError:
        return ""
    for reference in references:
        wanted = reference.lower().rstrip(".")
        if wanted and any(_matches(wanted, host.rstrip(".")) for host in found.hosts):
            return wanted
    return ""


def client_names(peer: ssl.SSLObject | ssl.SSLSocket) -> tuple[str, ...]:
    """Whose the client's certificate is, when OpenSSL has verified it: mailboxes, hosts, and without any
    alternative name the common name, where there is but one.  Lower case."""
    if peer.context.verify_mode is ssl.CERT_NONE:
        return ()
    data = peer.getpeercert(binary_form=True)
    if not data:
        return ()
    try:
        found = read_certificate(data)
    except TlsError:
        return ()
    names = (*found.mailboxes, *found.hosts)
    if not names and not found.alternatives:
        names = (found.common_name,)
    return tuple(
        name.lower()
        for name in names
        if name and name.isprintable() and "\N{REPLACEMENT CHARACTER}" not in name
    )


def _matches(wanted: str, host: str) -> bool:
    if wanted == host:
        return True
    label, dot, rest = host.partition(".")
    if wanted.startswith("."):
        return bool(dot) and rest == wanted[1:]
    if label != "*" or "." not in rest:  # never `*.org`
        return False
    first, _, below = wanted.partition(".")
    return bool(first) and below == rest
