"""The files of control/ that are no part of `Settings`: certificates and keys in PEM, and passwords.

They are explained like the others; what is in them is read by tls/ and by the process that needs it alone,
and shown by `openqmail tls show`, which never shows a key.
"""

import msgspec

from openqmail.core.values import ControlError

SECRET = "it is secret"

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
    shown: str = "'openqmail tls show' tells what there is to know"

    @property
    def folder(self) -> str:
        """What it is called among the files of control/."""
        return self.name.partition("/")[0]


def described(name: str) -> PemDefinition | None:
    """What there is to know of a file that has this name, of a folder, or of a file in one."""
    folder = name.partition("/")[0]
    for one in PEM:
        if name == one.name or ("/" in one.name and folder == one.folder):
            return one
    return None


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
    PemDefinition(
        name="clientcert.pem",
        kind="a private key and certificates in PEM",
        readers=("remote",),
        without="other hosts are shown no certificate",
        explanation=(
            "The certificate that other hosts are shown who ask for one: its private key, not encrypted, and "
            "the certificates, in one file. In a home of root's it is root's, mode 400: remote reads it "
            "before it becomes its user."
        ),
        secret=True,
    ),
    PemDefinition(
        name="tlshosts/NAME.pem",
        kind="certificates in PEM",
        readers=("remote",),
        without="what the system believes counts, where control/tlspolicy asks for a proof",
        explanation=(
            "eQmail's: what is believed for the host NAME, in lower case, and nothing else: its own "
            "certificate, whatever its names, or those of who signs for it. Mail for that host then goes "
            "there with TLS and that proof alone."
        ),
        secret=False,
    ),
    PemDefinition(
        name="notlshosts/NAME",
        kind="an empty file",
        readers=("remote",),
        without="TLS is tried with every host that offers it",
        explanation=(
            "eQmail's: no TLS is begun with the host NAME, where no line of control/tlspolicy speaks of the "
            "domain. Better is a line there."
        ),
        secret=False,
        shown="it is empty",
    ),
    PemDefinition(
        name="credentials",
        kind="a list of HOST USER PASSWORD",
        readers=("remote",),
        without="nobody is told who we are, but by a line of control/smtproutes",
        explanation=(
            "Who we are to the hosts that control/smtproutes leads to: the host's name as it stands there, a "
            "blank, the user, a blank, the password, which may have blanks inside. The best mechanism of "
            "AUTH that the host offers is used: SCRAM-SHA-256-PLUS, SCRAM-SHA-256, CRAM-MD5, PLAIN, LOGIN. "
            "It is told to a host that has proved its name by its certificate, and to others only where a "
            "line of control/tlspolicy names that very host; a password itself never without TLS, but where "
            "that line says none. In a home of root's it is root's, mode 400: only remote reads it, before "
            "it becomes its user."
        ),
        secret=True,
        shown=SECRET,
    ),
)
