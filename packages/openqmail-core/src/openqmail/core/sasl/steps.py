"""What SASL's machines say and hear: steps, questions, answers (RFC 4422 section 3).

Values that may cross a process border.  Those that hold a password, a token or something that
stands for one never show it in their repr, and no error of this room quotes what the peer sent
but for the server's own reason.
"""

from collections.abc import Mapping

import msgspec

from openqmail.core.sasl.secret import Hidden, ScramVerifier
from openqmail.core.values.errors import OpenqmailError

PLAIN, LOGIN, CRAM_MD5 = b"PLAIN", b"LOGIN", b"CRAM-MD5"
SCRAM, SCRAM_PLUS = b"SCRAM-SHA-256", b"SCRAM-SHA-256-PLUS"
OAUTHBEARER, XOAUTH2 = b"OAUTHBEARER", b"XOAUTH2"

MECHANISMS = (SCRAM_PLUS, SCRAM, PLAIN, LOGIN, CRAM_MD5, OAUTHBEARER, XOAUTH2)
"""All of them, in the order in which a server offers them."""

IN_CLEAR = frozenset({PLAIN, LOGIN, OAUTHBEARER, XOAUTH2})
"""Those that say the secret itself, and so want TLS."""

LONGEST = 9216
"""Bytes of one message of a peer: what fits into the 12,288 of RFC 4954 section 4 as base64."""

LOGIN_LENGTH = PASSWORD_LENGTH = 255
"""Bytes."""

WRONG, LATER, MALFORMED = b"wrong", b"later", b"malformed"
"""Why a server denies: the secret is not right, nobody can tell now, or what came is no SASL."""


class SaslError(OpenqmailError):
    """The other side broke the rules, or could not prove that it is who it should be."""


class Facts(msgspec.Struct, frozen=True):
    """The connection.  `bindings`: name of a channel binding -> its data, as far as TLS has them
    ("tls-exporter", RFC 9266; "tls-server-end-point", RFC 5929); where there are any, a server offers
    -PLUS.  `host`: the server's name, as CRAM-MD5 and OAUTHBEARER say it; `port` 0: not known."""

    tls: bool = False
    bindings: Mapping[str, bytes] = {}
    host: bytes = b""
    port: int = 0


# --- what a server asks of those who know the users -------------------------------------------


class CheckPassword(Hidden, frozen=True, tag=True):
    """Is this the password?  PLAIN, LOGIN.  Both as they were said, not empty, without NUL.

    Answered with Yes, No or Later."""

    login: bytes
    password: bytes


class CheckResponse(Hidden, frozen=True, tag=True):
    """Does `response`, 32 small hexadecimal digits, answer `challenge`?  CRAM-MD5.

    Answered with Yes, No or Later."""

    login: bytes
    challenge: bytes
    response: bytes


class CheckToken(Hidden, frozen=True, tag=True):
    """Is this token good, and whose is it?  `login` may be empty.  Answered with Yes, No or Later."""

    login: bytes
    token: bytes


class WantSecrets(Hidden, frozen=True, tag=True):
    """What is stored for a login?  SCRAM.  Answered with Secrets, for a login that nobody knows with a
    false one (`false_verifier`), or with Later."""

    login: bytes
    mechanism: bytes


Query = CheckPassword | CheckResponse | CheckToken | WantSecrets


class Yes(msgspec.Struct, frozen=True, tag=True):
    """`identity`: who it is from now on."""

    identity: bytes


class No(msgspec.Struct, frozen=True, tag=True):
    """Wrong secret, or no such login; nobody shall learn which."""


class Later(msgspec.Struct, frozen=True, tag=True):
    """It cannot be told now.  `refused`: somebody who could tell has said no all the same, so it counts as a
    guess."""

    refused: bool = False


class Secrets(Hidden, frozen=True, tag=True):
    """`identity`: who it is if the proof is right."""

    identity: bytes
    verifier: ScramVerifier


Answer = Yes | No | Later | Secrets

# --- what a server says -----------------------------------------------------------------------


class Challenge(msgspec.Struct, frozen=True):
    """To be sent; what comes back goes to `respond`."""

    data: bytes


class Ask(msgspec.Struct, frozen=True):
    """To be asked; what comes back goes to `answer`."""

    query: Query


class Granted(msgspec.Struct, frozen=True):
    """The end: the client is `identity`."""

    identity: bytes


class Denied(msgspec.Struct, frozen=True):
    """The end.  `reason`: WRONG, LATER or MALFORMED."""

    reason: bytes


Step = Challenge | Ask | Granted | Denied
