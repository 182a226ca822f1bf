"""Secrets as they are stored, one kind by its own prefix, and what each can serve.

`{SCRAM-SHA-256}ITERATIONS,SALT,STOREDKEY,SERVERKEY` is the form that Dovecot's doveadm pw writes, the
three last in base64 (RFC 5802 section 3); `{PLAIN}` and `{PLAIN.b64}` are Dovecot's too, and a word
without any prefix is a password, as qmail-chkpw has it.  Hashes are crypt(5)'s and argon2's.
"""

import base64
import hashlib
import hmac
import math
import re
from collections.abc import Mapping
from types import MappingProxyType

import msgspec

ITERATIONS = 65_536
"""Of PBKDF2 in a verifier of ours: a stolen one shall not be easier to guess from than it must be.  More than
these no client of Cyrus SASL computes, and it falls back to nothing else."""

FEWEST, MOST = 4096, 1_000_000
"""Iterations that are taken: RFC 7677 section 4, and what does not stop a client for seconds."""

SALT = 16
"""Bytes."""

SALT_LENGTH = 64
"""Bytes that a salt may have."""

_DIGEST = 32

_B64 = r"[A-Za-z0-9+/]"
_CRYPT = r"[./0-9A-Za-z]"
_ROUNDS = r"(?:rounds=[1-9][0-9]{3,5}\$)?"
_HASHES = {
    "argon2id": re.compile(
        rf"\$argon2id\$v=19\$m=[1-9]\d{{0,5}},t=[1-9]\d?,p=[1-9]\d?\${_B64}{{11,86}}\${_B64}{{16,86}}"
    ),
    "md5-crypt": re.compile(rf"\$1\${_CRYPT}{{0,8}}\${_CRYPT}{{22}}"),
    "sha256-crypt": re.compile(rf"\$5\${_ROUNDS}{_CRYPT}{{0,16}}\${_CRYPT}{{43}}"),
    "sha512-crypt": re.compile(rf"\$6\${_ROUNDS}{_CRYPT}{{0,16}}\${_CRYPT}{{86}}"),
    "bcrypt": re.compile(rf"\$2[aby]\$(?:0[4-9]|1[0-6])\${_CRYPT}{{53}}"),
    "yescrypt": re.compile(rf"\$y\${_CRYPT}{{1,16}}\${_CRYPT}{{0,86}}\${_CRYPT}{{43}}"),
}


class Hidden(msgspec.Struct, frozen=True):
    """A value that shows nothing of what is in it."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"


class Hash(Hidden, frozen=True):
    """A password that has been hashed; `kind` as `openqmail user list` names it."""

    kind: str
    text: str

    def written(self) -> str:
        return self.text


class ScramVerifier(Hidden, frozen=True):
    """What a server needs for SCRAM-SHA-256, and cannot log in elsewhere with (RFC 5802 section 3)."""

    iterations: int
    salt: bytes
    stored_key: bytes
    server_key: bytes

    @property
    def kind(self) -> str:
        return "SCRAM-SHA-256"

    def written(self) -> str:
        parts = (base64.b64encode(one).decode() for one in (self.salt, self.stored_key, self.server_key))
        return f"{{SCRAM-SHA-256}}{self.iterations},{','.join(parts)}"


class Plain(Hidden, frozen=True):
    """A password as it is, which CRAM-MD5 cannot do without."""

    password: bytes

    @property
    def kind(self) -> str:
        return "plain"

    def written(self) -> str:
        return f"{{PLAIN.b64}}{base64.b64encode(self.password).decode()}"


Secret = Hash | ScramVerifier | Plain


def parse_secret(text: str) -> Secret:
    """One secret, without blanks.  Raises ValueError with a sentence that quotes nothing of it."""
    if text.startswith("$"):
        for kind, form in _HASHES.items():
            if form.fullmatch(text):
                return Hash(kind, text)
        raise ValueError(
            "has a hash of a form that is not known or not whole; known are $argon2id$, $1$, $5$, $6$, $2b$ "
            "and $y$; a line of /etc/shadow goes on after it, which must not be here"
        )
    if text.startswith("{"):
        scheme, brace, rest = text[1:].partition("}")
        scheme = scheme.upper()
        if brace and rest and scheme == "PLAIN":
            return Plain(rest.encode())
        if brace and rest and scheme == "PLAIN.B64":
            return Plain(_decoded(rest, "a password"))
        if brace and scheme == "SCRAM-SHA-256":
            return _verifier(rest)
        raise ValueError(
            "has a secret in braces that is not known; known are {SCRAM-SHA-256}, {PLAIN} and {PLAIN.b64}"
        )
    if text.startswith(("!", "*")):
        raise ValueError(
            "has a secret that would lock a line of /etc/shadow; remove the line to lock it here"
        )
    if re.fullmatch(f"{_CRYPT}{{13}}", text):
        raise ValueError(
            "has what may be a hash of the old crypt, which is too weak to keep; set the password anew, "
            "or write {PLAIN} before it if it is the password itself"
        )
    return Plain(text.encode())


def _verifier(text: str) -> ScramVerifier:
    fields = text.split(",")
    if len(fields) != 4 or not (fields[0].isascii() and fields[0].isdigit() and len(fields[0]) <= 7):
        raise ValueError("has a verifier of another form than {SCRAM-SHA-256}ITERATIONS,SALT,STORED,SERVER")
    iterations = int(fields[0])
    salt, stored, server = (_decoded(one, "a verifier") for one in fields[1:])
    if not FEWEST <= iterations <= MOST:
        raise ValueError(f"has a verifier of {iterations} iterations; set the password anew")
    if not 1 <= len(salt) <= SALT_LENGTH or len(stored) != _DIGEST or len(server) != _DIGEST:
        raise ValueError("has a verifier that is cut off; set the password anew")
    return ScramVerifier(iterations, salt, stored, server)


def _decoded(text: str, what: str) -> bytes:
    try:
        found = base64.b64decode(text, validate=True)
    except ValueError:
        found = b""
    if not found:
        raise ValueError(f"has {what} that is not base64; set the password anew")
    return found


def make_verifier(password: bytes, salt: bytes, iterations: int = ITERATIONS) -> ScramVerifier:
    """`password` prepared (saslprep.py).  Takes as long as a guess at it shall take."""
    salted = hashlib.pbkdf2_hmac("sha256", password, salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    return ScramVerifier(
        iterations, salt, hashlib.sha256(client_key).digest(), hmac.digest(salted, b"Server Key", "sha256")
    )


Looks = Mapping[tuple[int, int], int]
"""Iterations and length of the salt -> how many verifiers have them."""


def false_verifier(key: bytes, login: bytes, looks: Looks = MappingProxyType({})) -> ScramVerifier:
    """For a login that nobody has: always the same for the same `key`, which no stranger knows, with a look
    that others have, each as often, and with a proof that nobody can give."""
    iterations, length = max(
        looks or ((ITERATIONS, SALT),), key=lambda look: _lot(key, login, look, looks.get(look, 1))
    )
    salt, stored, server = (hmac.digest(key, b"%b %b" % (what, login), "sha512") for what in _FALSE)
    return ScramVerifier(iterations, salt[:length], stored[:_DIGEST], server[:_DIGEST])


def _lot(key: bytes, login: bytes, look: tuple[int, int], weight: int) -> float:
    """Weighted rendezvous hashing: where a look becomes more frequent, as few as can be go over to it."""
    drawn = int.from_bytes(hmac.digest(key, b"look %d %d %b" % (*look, login), "sha256")[:6], "big")
    return -weight / math.log((drawn + 1) / (2**48 + 2))


_FALSE = (b"salt", b"stored", b"server")
