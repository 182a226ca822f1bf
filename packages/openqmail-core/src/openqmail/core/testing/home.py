"""A home in a temporary folder, which is gone when it is closed, and at the latest when Python ends.

It is what `openqmail init` makes, without its syncs: who makes it owns it, root too.  Control files
are written over without a look at what they say, which the service reads; one that nobody reads is told.
"""

import os
import secrets
import tempfile
from collections.abc import Iterable, Mapping, Sequence

from openqmail.core.commands import boxes, contents
from openqmail.core.commands.init import DATABYTES, RULES
from openqmail.core.commands.writing import Made
from openqmail.core.control.home import Home, check_socket_paths
from openqmail.core.control.modes import PARTS
from openqmail.core.control.pem import described
from openqmail.core.control.reader import definition_of
from openqmail.core.control.smtpauth import checked_login, path_of, with_secrets, written
from openqmail.core.sasl import Plain, make_verifier, prepared
from openqmail.core.sasl.secret import FEWEST, SALT
from openqmail.core.testing.errors import TestingError

NO_NAME_SERVER = "127.0.0.1:1"
"""Nobody is there, and that is known at once: a test asks no name server of the world."""


class TemporaryHome(Home):
    """`users`: names of mailboxes; `control`: more control files, or other contents for those here;
    `logins`: who may log in, with passwords.  Raises OpenqmailError."""

    def __init__(
        self, users: Sequence[str], domain: str, control: Mapping[str, str], logins: Mapping[str, str]
    ) -> None:
        if not users:
            raise TestingError('an MTA needs somebody to get mail: users=["alice"]')
        for name in users:
            boxes.check_name(name)
        if "." not in domain:
            raise TestingError(
                f"domain={domain!r} is not a full name; write one with a dot: {domain}.example"
            )
        _expect(control)
        known = _logins(logins)
        self._folder = tempfile.TemporaryDirectory(prefix="openqmail-", ignore_cleanup_errors=True)
        try:
            check_socket_paths(self._folder.name)
            super().__init__(self._folder.name)
            self._fill(users, domain.lower(), control)
            if known:
                _Quickly().file(path_of(self), known, 0o600)
        except BaseException:
            self._folder.cleanup()
            raise

    def close(self) -> None:
        self._folder.cleanup()

    def write(self, name: str, text: str | None) -> str | None:
        """A control file, or none of that name; what was there before.  Raises OpenqmailError."""
        _expect((name,))
        path = os.path.join(self.control, name)
        before = None
        if os.path.exists(path):
            with open(path, encoding="utf-8") as opened:
                before = opened.read()
        if text is not None:
            with open(path, "w", encoding="utf-8") as opened:
                opened.write(text if text.endswith("\n") or not text else text + "\n")
        elif before is not None:
            os.unlink(path)
        return before

    def _fill(self, users: Sequence[str], domain: str, control: Mapping[str, str]) -> None:
        made = _Quickly()
        for name, part in PARTS.items():
            if name:
                made.folder(os.path.join(self.path, name), part.private)
        contents.queue(self, made)
        for name in users:
            made.maildir(os.path.join(self.mail, name))
        contents.aliases(self, f"{users[0]}@{domain}", made)
        contents.users(self, boxes.assignments(self, users), made)
        files = {
            "me": domain,
            "locals": domain,
            "rcpthosts": domain,
            "listen": "smtp 127.0.0.1:0",
            "rules": RULES,
            "databytes": str(DATABYTES),
            "defaultdelivery": "./Maildir/",
            "bounceformat": "dsn",
            "resolvers": NO_NAME_SERVER,
            "historydays": "0",
        }
        for name, text in {**files, **control}.items():
            self.write(name, text)


def _expect(names: Iterable[str]) -> None:
    """A misspelt one would be none, and nobody would see it."""
    for name in names:
        if described(name) is None:
            definition_of(name)


def _logins(logins: Mapping[str, str]) -> bytes:
    """users/smtpauth, for every mechanism there is, and no stronger than a test has time for."""
    content = b""
    for name, password in logins.items():
        try:
            login = checked_login(name)
        except ValueError as error:
            raise TestingError(f"logins: {name!r} {error}") from None
        if not password or not password.isprintable():
            raise TestingError(f"logins: {name!r} needs a password that can be printed")
        verifier = make_verifier(prepared(password.encode()), secrets.token_bytes(SALT), FEWEST)
        content = with_secrets(content, login, written([verifier, Plain(password.encode())]))
    return content


class _Quickly(Made):
    def file(self, path: str, content: bytes, mode: int) -> str:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(content)
        return path
