"""What only the process that speaks to other hosts holds: contexts of TLS with our key, pins, logins.

Read before that process becomes its user, so the files may be root's alone.  `control/tlshosts/FQDN.pem`
holds what is believed for that one host (eQmail's); `control/notlshosts/FQDN`, of the same family, says
that TLS does not work with it.
"""

import os
import ssl
from collections.abc import Mapping

import msgspec

from openqmail.core.control.credentials import Credential, Credentials, read_credentials
from openqmail.core.control.settings import Settings
from openqmail.core.tls import Policy, client_context, pin_files, read_certificates
from openqmail.core.tls.files import content
from openqmail.core.values import ControlError

FILES = ("clientcert.pem", "tlshosts", "notlshosts", "credentials")
"""In the folder of the control files."""


class Pin(msgspec.Struct, frozen=True):
    """`file` as the administrator knows it; `certificates`: those in it, in DER."""

    file: str
    context: ssl.SSLContext
    certificates: frozenset[bytes]


class Keys:
    """`any`: a context for whoever it is, `proved`: for who has to prove it, None where nobody has to.
    `pins`, `bare`: by host."""

    def __init__(
        self,
        any_: ssl.SSLContext,
        proved: ssl.SSLContext | None = None,
        pins: Mapping[bytes, Pin] | None = None,
        bare: frozenset[bytes] = frozenset(),
        credentials: Credentials | None = None,
    ) -> None:
        self.any, self.proved, self.pins, self.bare = any_, proved, pins or {}, bare
        self._credentials = credentials or Credentials()

    @classmethod
    def load(cls, control_folder: str, settings: Settings) -> "Keys":
        """Raises ControlError naming the file and what to do."""
        ciphers = settings.tlsclientciphers
        credentials = read_credentials(control_folder)
        strict = credentials or any(Policy(word).verified for word in settings.tlspolicy.values())
        return cls(
            client_context(Policy.MAY, control_folder, ciphers=ciphers),
            client_context(Policy.VERIFY, control_folder, ciphers=ciphers) if strict else None,
            _pins(control_folder, ciphers),
            _bare(control_folder),
            credentials,
        )

    def login(self, line: bytes | None, host: bytes) -> Credential | None:
        """Of the line of control/smtproutes that has this key, else of the host that it leads to."""
        found = self._credentials
        return (None if line is None else found.by_route.get(line)) or found.by_host.get(host)


def has_files(control_folder: str) -> bool:
    """Whether there is a file that `Keys` could fail to load."""
    return any(os.path.lexists(os.path.join(control_folder, name)) for name in FILES)


def _pins(control_folder: str, ciphers: str) -> dict[bytes, Pin]:
    found = {}
    for name, file in pin_files(control_folder).items():
        context = client_context(Policy.VERIFY, control_folder, file, ciphers)
        certificates = frozenset(each.der for each in read_certificates(content(file)))
        found[os.fsencode(name)] = Pin(file.name, context, certificates)
    return found


def _bare(control_folder: str) -> frozenset[bytes]:
    """The hosts that have a file in `notlshosts`."""
    try:
        names = os.listdir(os.path.join(control_folder, "notlshosts"))
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
    except OSError as error:
        why = f"cannot be listed: {error.strerror}; 'openqmail check' tells its owner and mode"
        raise ControlError("control/notlshosts", 0, why) from None
    return frozenset(os.fsencode(name) for name in names if not name.startswith("."))
