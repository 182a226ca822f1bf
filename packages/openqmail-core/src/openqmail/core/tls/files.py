"""The files that certificates and keys come from: which there are, what they hold, what is wrong with them.

`control/servercert.pem` and `control/certs/NAME.pem` are key and chain in one file.  A file
`control/tlshosts/FQDN.pem` (eQmail's) holds the certificates, of the host or of who signs for it, that are
believed for this one host instead of the system's.  Whatever is the matter is a ControlError that names the
file and what to do.
"""

import os
import re
import ssl
from contextlib import suppress
from typing import NamedTuple

from openqmail.core.tls.certificate import Certificate, TlsError, read_certificates
from openqmail.core.values import ControlError

DEFAULT = "control/servercert.pem"
CLIENT_FILES = ("clientca.pem", "clientcrl.pem")
OUTGOING = ("clientcert.pem", "tlshosts")
NO_AUTHORITIES = "has no effect without control/clientca.pem; add that, or remove this"

_HOST = re.compile(r"(?:_\.)?[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*")
_MOST = 1024 * 1024


class PemFile(NamedTuple):
    """`path` to open it, `name` as the administrator knows it: `control/certs/mail.example.org.pem`."""

    path: str
    name: str


Stamp = tuple[tuple[str, int, int, int, int], ...]


def server_files(control_folder: str, wrong: list[ControlError] | None = None) -> dict[str, PemFile]:
    """Each certificate's file by the name that clients ask for, "" for any other.  Raises ControlError;
    `wrong`: takes those that are named after no host instead."""
    found: dict[str, PemFile] = {}
    path = os.path.join(control_folder, "servercert.pem")
    if os.path.lexists(path):
        found[""] = PemFile(path, DEFAULT)
    folder = os.path.join(control_folder, "certs")
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return found
    except OSError as error:
        raise unreadable("control/certs", error) from None
    for one in names:
        host, ending = os.path.splitext(one)
        if ending == ".pem" and not host.startswith("."):
            file = PemFile(os.path.join(folder, one), f"control/certs/{one}")
            if _HOST.fullmatch(host):
                found[host] = file
            else:
                _misnamed(file, wrong)
    return found


def pin_files(control_folder: str, wrong: list[ControlError] | None = None) -> dict[str, PemFile]:
    """The files of `control/tlshosts/` by the host that each is for.  Raises and takes as `server_files`."""
    folder = os.path.join(control_folder, "tlshosts")
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise unreadable("control/tlshosts", error) from None
    found = {}
    for one in names:
        host, ending = os.path.splitext(one)
        if ending != ".pem" or host.startswith("."):
            continue
        file = PemFile(os.path.join(folder, one), f"control/tlshosts/{one}")
        if host == host.lower().rstrip("."):
            found[host] = file
        else:
            _misnamed(file, wrong)
    return found


def _misnamed(file: PemFile, wrong: list[ControlError] | None) -> None:
    why = "is not named after a host, in lower case; rename it, as mail.example.org.pem"
    error = ControlError(file.name, 0, why)
    if wrong is None:
        raise error
    wrong.append(error)


def without_default(me: str) -> ControlError:
    """There are files in control/certs, and no servercert.pem."""
    why = f"is missing, for who asks for no name in control/certs; link that of {me} to it"
    return ControlError(DEFAULT, 0, why)


def stamp(control_folder: str) -> Stamp:
    """What stat says of all that a `ServerTls` is made of, and of what others are shown and believed for:
    another value when a file of it has changed, come or gone.  Raises nothing."""
    try:
        paths = [file.path for file in server_files(control_folder).values()]
    except ControlError:
        paths = []
    with suppress(ControlError):
        paths += [file.path for file in pin_files(control_folder).values()]
    paths += [os.path.join(control_folder, name) for name in ("certs", *CLIENT_FILES, *OUTGOING)]
    found = []
    for path in paths:
        try:
            one = os.stat(path)
        except OSError:
            continue
        found.append((path, one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns))
    return tuple(found)


def content(file: PemFile) -> bytes:
    """Raises ControlError."""
    try:
        with open(file.path, "rb") as opened:
            found = opened.read(_MOST + 1)
    except OSError as error:
        raise unreadable(file.name, error) from None
    if len(found) > _MOST:
        raise ControlError(file.name, 0, f"is larger than {_MOST} bytes; it cannot be meant")
    return found


def certificates(file: PemFile, found: bytes) -> tuple[Certificate, ...]:
    """What its content has, the host's own first.  Raises ControlError."""
    try:
        chain = read_certificates(found)
    except TlsError as error:
        raise ControlError(file.name, 0, str(error)) from None
    if not chain:
        why = "has no certificate in PEM; put the key and the chain into this one file"
        raise ControlError(file.name, 0, why)
    return chain


def load_chain(context: ssl.SSLContext, file: PemFile, found: bytes) -> None:
    """Key and chain into a context.  Raises ControlError."""
    if b"ENCRYPTED" in found:
        why = "its key is encrypted, and nobody is there to type the password; write it without one"
        raise ControlError(file.name, 0, why)
    if b"PRIVATE KEY-----" not in found:
        why = "has no private key; put the key and the chain into this one file"
        raise ControlError(file.name, 0, why)
    try:
        context.load_cert_chain(file.path, password=lambda: b"")  # never asked for at a terminal
    except ssl.SSLError as error:
        raise ControlError(file.name, 0, _unfit(error)) from None
    except OSError as error:
        raise unreadable(file.name, error) from None


def check(file: PemFile, found: bytes) -> None:
    """Whether its key is there and is that of its first certificate.  Raises ControlError."""
    load_chain(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), file, found)


def load_authorities(context: ssl.SSLContext, file: PemFile, kind: str) -> None:
    """Who is believed, or which certificates are revoked.  Raises ControlError."""
    content(file)  # which tells why one cannot be read
    try:
        context.load_verify_locations(file.path)
    except OSError:  # ssl.SSLError is one
        why = f"has no {kind} in PEM that can be read; mend or remove it"
        raise ControlError(file.name, 0, why) from None


def set_ciphers(context: ssl.SSLContext, ciphers: str, name: str) -> None:
    """Raises ControlError."""
    try:
        context.set_ciphers(ciphers)
    except ssl.SSLError:
        why = "names no cipher that OpenSSL knows; see 'openssl ciphers LIST', or remove the file"
        raise ControlError(name, 1, why) from None


def unreadable(name: str, error: OSError) -> ControlError:
    why = f"cannot be read: {error.strerror}; 'openqmail check' tells its owner and mode"
    return ControlError(name, 0, why)


def _unfit(error: ssl.SSLError) -> str:
    reason = error.reason or str(error)
    if reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"):
        return (
            "its key is not that of its first certificate; put the host's own certificate before the others"
        )
    if reason.endswith(("KEY_TOO_SMALL", "MD_TOO_WEAK")):
        return f"is too weak for OpenSSL ({reason.lower().replace('_', ' ')}); get a new one"
    return f"is of no use to OpenSSL ({reason.lower().replace('_', ' ')}); write key and chain anew"
