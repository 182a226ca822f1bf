"""users/smtpauth: who may log in, and with what (qmail-chkpw's file, with more than one secret).

A line `login:secret[ secret...]` a login; `#` begins a comment.  The secrets are forms of one password
(sasl/secret.py), and the forms decide which mechanisms serve a login.  Reading finds every bad line and
goes on, so that one mistake locks out nobody else.  Nothing here writes: enrolment.py does.
"""

import base64
import os
import re
import secrets as secrets_
from collections.abc import Iterable, Sequence

from openqmail.core.control.home import Home
from openqmail.core.control.mechanisms import Served, served
from openqmail.core.control.text import shown
from openqmail.core.sasl import (
    CRAM_MD5,
    LOGIN,
    PLAIN,
    SCRAM,
    SCRAM_PLUS,
    Hash,
    Plain,
    ScramVerifier,
    Secret,
    parse_secret,
    prepared,
)
from openqmail.core.sasl.secret import ITERATIONS, Hidden
from openqmail.core.sasl.steps import LOGIN_LENGTH
from openqmail.core.values import ControlError, TemporaryFailure

FILE = "users/smtpauth"

SIZE = 16 * 1024 * 1024
"""Bytes of the file."""

LINE = 8192
"""Bytes of a line."""

SECRETS = 8
"""Of one login: each hash costs as much to check as the first."""

_SALTS = re.compile(rb"^#salts ([A-Za-z0-9+/]{43}=)\r?$", re.MULTILINE)

_SERVES: dict[type[Secret], tuple[bytes, ...]] = {
    Hash: (PLAIN, LOGIN),
    ScramVerifier: (PLAIN, LOGIN, SCRAM, SCRAM_PLUS),
    Plain: (PLAIN, LOGIN, CRAM_MD5),
}


class Entry(Hidden, frozen=True):
    """A line."""

    login: bytes
    secrets: tuple[Secret, ...]

    @property
    def mechanisms(self) -> frozenset[bytes]:
        """What this login can use."""
        return frozenset(name for one in self.secrets for name in _SERVES[type(one)])


class Rehash(Hidden, frozen=True):
    """A login's secrets that are to take the place of weaker ones, both as the line has them."""

    login: bytes
    old: str
    new: str


Entries = dict[bytes, Entry]
"""By prepared login."""


def parse_smtpauth(content: bytes) -> tuple[Entries, list[ControlError]]:
    """The entries, and what is wrong.  Of a login that is there twice the first counts."""
    found: Entries = {}
    lines: dict[bytes, int] = {}
    problems: list[ControlError] = []
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip() or line.startswith(b"#"):
            continue
        try:
            entry = _entry(line)
            name = prepared(entry.login)
            if name in found:
                raise ValueError(f"has the login of line {lines[name]}, which counts; remove one of them")
        except ValueError as error:
            problems.append(ControlError(FILE, number, str(error)))
            continue
        found[name], lines[name] = entry, number
    return found, problems


def served_by(entries: Entries) -> Served:
    """The mechanisms that some entries serve, and those that all do."""
    return served(one.mechanisms for one in entries.values())


def with_many_iterations(entries: Entries) -> Iterable[ControlError]:
    """A warning, where logins have verifiers that some clients refuse."""
    found = [
        entry.login.decode()
        for entry in entries.values()
        if any(isinstance(one, ScramVerifier) and one.iterations > ITERATIONS for one in entry.secrets)
    ]
    if found:
        rest = f" and {len(found) - 1} more" if found[1:] else ""
        why = (
            f"'{shown(found[0])}'{rest} cannot log in by clients of Cyrus SASL (Postfix is one), which take "
            f"no verifier of more than {ITERATIONS} iterations; set the password anew: openqmail user passwd "
            "NAME"
        )
        yield ControlError(FILE, 0, why)


def checked_login(login: str) -> bytes:
    """A login as the file can hold it.  Raises ValueError with a sentence."""
    if not login or len(login.encode("utf-8", "surrogateescape")) > LOGIN_LENGTH:
        raise ValueError(f"has a login that is empty or longer than {LOGIN_LENGTH} bytes")
    if login.startswith("#") or not login.isprintable() or any(one in ": " for one in login):
        raise ValueError("has a login with a colon, a blank, something unprintable or a # at its beginning")
    return login.encode()


def _entry(line: bytes) -> Entry:
    """Raises ValueError; its text quotes nothing, for any part may be a password."""
    if len(line) > LINE:
        raise ValueError(f"is longer than {LINE} bytes; it cannot be meant")
    try:
        text = line.decode().rstrip()
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8; write it in UTF-8 or ASCII") from None
    login, colon, rest = text.partition(":")
    if not colon:
        raise ValueError("has no colon; write login:secret, or let 'openqmail user add' do it")
    name = checked_login(login)
    words = rest.split()
    if not words:
        raise ValueError("has no secret; set one with 'openqmail user passwd', or remove the line")
    if len(words) > SECRETS:
        raise ValueError(
            f"has more than {SECRETS} secrets; a password with blanks is written as {{PLAIN.b64}}"
        )
    return Entry(name, tuple(parse_secret(one) for one in words))


# --- the file ---------------------------------------------------------------------------------


def path_of(home: Home) -> str:
    return os.path.join(home.path, FILE)


def read_smtpauth(path: str) -> bytes:
    """b"" where there is none.  Raises TemporaryFailure."""
    try:
        with open(path, "rb") as opened:
            content = opened.read(SIZE + 1)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise TemporaryFailure(f"{path}: cannot be read: {error.strerror}; see 'openqmail check'") from None
    if len(content) > SIZE:
        raise TemporaryFailure(f"{path}: is larger than {SIZE} bytes; it cannot be meant")
    return content


def written(secrets: Sequence[Secret]) -> str:
    return " ".join(one.written() for one in secrets)


def with_secrets(content: bytes, login: bytes, secrets: str | None) -> bytes:
    """The file with this line of a login's, in its old place or at the end; None: without any."""
    line = b"" if secrets is None else b"%b:%b\n" % (login, secrets.encode())
    found = []
    for old in content.splitlines(keepends=True):
        if _login_of(old) != prepared(login):
            found.append(old if old.endswith(b"\n") else old + b"\n")
        elif line:
            found.append(line)
            line = b""
    return b"".join([*found, line])


# --- the key of salts -------------------------------------------------------------------------


def salt_key(content: bytes) -> bytes | None:
    """What the salts of those whom nobody knows are made with; None where the file has no such line.

    In the file as it has to be as secret, live as long, and go wherever the file goes."""
    found = _SALTS.search(content)
    return base64.b64decode(found.group(1)) if found else None


def with_salt_key(content: bytes) -> bytes:
    """The file with such a line, a comment for others; the one that it has, or a new one at its end."""
    if salt_key(content) is not None:
        return content
    end = b"" if content.endswith(b"\n") or not content else b"\n"
    return b"%b%b#salts %b\n" % (content, end, base64.b64encode(secrets_.token_bytes(32)))


def _login_of(line: bytes) -> bytes | None:
    login, colon, _ = line.partition(b":")
    return prepared(login) if colon and not line.startswith(b"#") else None
