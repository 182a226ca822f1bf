"""TLS towards other hosts: how much is asked of them, and the contexts for that.

`Policy` says it in order of strength; files.py which hosts have a file of their own that is believed.
"""

import os
import ssl
from contextlib import suppress
from enum import Enum

from openqmail.core.tls import files
from openqmail.core.tls.files import PemFile
from openqmail.core.tls.server import SUITES

_ANY = "DEFAULT:!aNULL:@SECLEVEL=1"
"""Where nobody is verified: what is weak is still better than nothing (RFC 7435)."""


class Policy(Enum):
    """What mail to a domain needs.

    NONE: no TLS.  MAY: TLS where it is offered, else without, whoever it is.  ENCRYPT: never without TLS,
    whoever it is.  VERIFY: a chain that is believed, and the name of the exchanger.  SECURE: the same, and
    the name is that of the domain itself or one below it, as the DNS could lie about its exchangers.
    """

    NONE = "none"
    MAY = "may"
    ENCRYPT = "encrypt"
    VERIFY = "verify"
    SECURE = "secure"

    @property
    def encrypted(self) -> bool:
        """Never without TLS."""
        return self in (Policy.ENCRYPT, Policy.VERIFY, Policy.SECURE)

    @property
    def verified(self) -> bool:
        """Never with somebody else."""
        return self in (Policy.VERIFY, Policy.SECURE)

    def references(self, domain: str, exchanger: str) -> tuple[str, ...]:
        """The names one of which the certificate has to be for (`verified_name`)."""
        return (domain, f".{domain}") if self is Policy.SECURE else (exchanger,)


def client_context(
    policy: Policy, control_folder: str, pin: PemFile | None = None, ciphers: str = ""
) -> ssl.SSLContext:
    """A context for hosts of this policy; `pin`: of `pin_files`, makes the chain count in any case.

    Its owner checks the name after the handshake, by `facts_of(…, references=…)`: SNI and what is asked
    for may differ.  `control/clientcert.pem` is shown to who asks.  Raises ControlError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED if policy.verified or pin else ssl.CERT_NONE
    context.options |= ssl.OP_NO_RENEGOTIATION
    strict = context.verify_mode is ssl.CERT_REQUIRED
    files.set_ciphers(context, ciphers or (SUITES if strict else _ANY), "control/tlsclientciphers")
    if pin:
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the host's own certificate is enough
        files.load_authorities(context, pin, "certificate")
    elif policy.verified:
        _believe_the_system(context)
    own = PemFile(os.path.join(control_folder, "clientcert.pem"), "control/clientcert.pem")
    if os.path.exists(own.path):
        files.load_chain(context, own, files.content(own))
    return context


def _believe_the_system(context: ssl.SSLContext) -> None:
    """All of its authorities now.  OpenSSL would look for one in their folder when it meets it, by links
    that lead to where a process behind walls may not read."""
    context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    folder = ssl.get_default_verify_paths().capath
    if folder is None or context.cert_store_stats()["x509_ca"]:
        return
    names = os.listdir(folder)
    bundle = "ca-certificates.crt"  # all in one file, on Debian
    for name in (bundle,) if bundle in names else names:
        with suppress(OSError):  # ssl.SSLError is one
            context.load_verify_locations(os.path.join(folder, name))
