"""The work of `openqmail init --system`: a home of root's, with a user for each process.

Users and groups that are missing are made as qmail's INSTALL.ids says, by useradd and groupadd,
and removed again when something fails.  Mail goes to users of this host, in their own homes: a
Maildir there is made as its user, and stays.  Root writes nothing into a folder that is another's.
"""

import os
import pwd
import shutil
import subprocess
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from grp import getgrnam

from openqmail.core.commands import contents
from openqmail.core.commands.writing import MAILDIR, Made, all_or_nothing
from openqmail.core.control import syntax
from openqmail.core.control.accounts import Accounts, look_up
from openqmail.core.control.assign import Assignment, User
from openqmail.core.control.home import Home
from openqmail.core.control.modes import PARTS
from openqmail.core.control.owner import acting_as, user_name
from openqmail.core.control.settings import ACCOUNTS
from openqmail.core.control.text import shown
from openqmail.core.values import HomeError

LISTEN = "smtp :25"

GROUPS = {"smtpd": "nofiles", "gate": "nofiles", "send": "qmail", "remote": "qmail", "alias": "nofiles"}
OTHERS = {"qmailq": "qmail", "qmaill": "nofiles"}
"""Users of qmail's that no process here runs as; made with the others when all have qmail's names."""


class Plan:
    """What was asked for, checked.  Raises HomeError."""

    def __init__(self, accounts: Sequence[str], users: Sequence[str], path: str) -> None:
        if os.geteuid() != 0:
            raise HomeError("--system: only root can make a home of root's; be root, or leave it out")
        self._path = path
        self._given = _accounts(accounts)
        names = ACCOUNTS | self._given
        for role, name in names.items():
            if list(names.values()).count(name) > 1:
                raise HomeError(f"--account: {name} would be {role} and more; give each role its own user")
        self._wanted = {name: GROUPS[role] for role, name in names.items()}
        if not self._given:
            self._wanted |= OTHERS
        self._alias = names["alias"]
        self._users = [mail_user(name, self._wanted) for name in users]

    @contextmanager
    def accounts(self) -> Iterator[Accounts]:
        """The users for the processes, made where they are missing; those go again on an exception."""
        made: list[tuple[str, str]] = []
        try:
            for name, group in self._wanted.items():
                if not _is_there(pwd.getpwnam, name):
                    if not _is_there(getgrnam, group):
                        _shadow("groupadd", "--system", group)
                        made.append(("groupdel", group))
                    folder = os.path.join(self._path, "alias") if name == self._alias else self._path
                    _shadow("useradd", *_OPTIONS, "--gid", group, "--home-dir", folder, name)
                    made.append(("userdel", name))
            yield look_up(self._given, self._path)
        except BaseException:
            for command, name in reversed(made):
                with suppress(HomeError):
                    _shadow(command, name)
            raise

    def fill(self, home: Home, accounts: Accounts, files: Mapping[str, str], pem: bytes, made: Made) -> None:
        """All that is in the home, whose folder is there; `pem`: key and certificate.  Raises HomeError,
        OSError."""
        for user in self._users:
            give_maildir(user)
        os.chmod(home.path, PARTS[""].mode)
        for name, part in PARTS.items():
            if name:
                made.folder(os.path.join(home.path, name), part.mode & 0o777)
        if self._given:
            lines = "".join(f"{role} {name}\n" for role, name in self._given.items())
            files = {**files, "accounts": lines}
        contents.control(home, files, made)
        contents.certificate(home, pem, made)
        contents.users(home, [line for user in self._users for line in lines_of(user)], made)
        contents.aliases(home, f"{self._users[0].pw_name}@{files['me'].strip()}", made)
        for name, part in PARTS.items():
            if part.owner in GROUPS:
                one, folder = accounts.by_role()[part.owner], os.path.join(home.path, name)
                os.chown(folder, one.uid, one.gid, follow_symlinks=False)
                os.chmod(folder, part.mode)
        send = accounts.send
        with acting_as(send.uid, send.gid), all_or_nothing() as queue:
            try:
                contents.queue(home, queue)
            except PermissionError:
                raise HomeError(
                    f"{home.path}: {send.name} cannot come there; choose a place that all can pass to"
                ) from None


_OPTIONS = ("--system", "--no-create-home", "--shell", "/usr/sbin/nologin", "--comment", "openqmail")


def _accounts(given: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        try:
            (role,), name = syntax.account(text.replace("=", " ", 1))
        except ValueError as error:
            raise HomeError(f"--account: {error}".replace("ROLE USER", "ROLE=USER")) from None
        if found.setdefault(role.decode(), name) != name:
            raise HomeError(f"--account: {role.decode()} is named twice; name it once")
    return {role: name for role, name in found.items() if name != ACCOUNTS[role]}


def mail_user(name: str, processes: Container[str]) -> pwd.struct_passwd:
    """A user of this host who may get mail: qmail-getpw's conditions."""
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        raise HomeError(f"there is no user '{shown(name)}' on this host; make it first") from None
    if found.pw_uid == 0 or name in processes:
        why = "runs a process" if found.pw_uid else "is root, who gets no mail"
        raise HomeError(f"{name} {why}; name a person's user")
    try:
        owner = os.stat(found.pw_dir).st_uid
    except OSError as error:
        raise HomeError(f"the home of {name}, {found.pw_dir}: {error.strerror}; make it") from None
    if owner != found.pw_uid:
        raise HomeError(f"{found.pw_dir} is {user_name(owner)}'s, not {name}'s; mend its owner")
    return found


def lines_of(user: pwd.struct_passwd) -> Iterator[Assignment]:
    """For users/assign: `name`, and `name-anything`."""
    name, folder = user.pw_name.encode(), os.fsencode(user.pw_dir)
    for local, wildcard, dash in ((name, False, b""), (name + b"-", True, b"-")):
        yield Assignment(local, wildcard, User(name, user.pw_uid, user.pw_gid, folder, dash, b""))


def give_maildir(user: pwd.struct_passwd) -> None:
    """A Maildir in the user's home, by the user, where there is none."""
    maildir = os.path.join(user.pw_dir, "Maildir")
    with acting_as(user.pw_uid, user.pw_gid), all_or_nothing() as made:
        try:
            if os.path.lexists(maildir):
                return
            made.folder(maildir, 0o700)
            for name in MAILDIR:
                made.folder(os.path.join(maildir, name), 0o700)
        except PermissionError:
            raise HomeError(f"{user.pw_name} may not make {maildir}; mend that home") from None


def _is_there(look: Callable[[str], object], name: str) -> bool:
    try:
        look(name)
    except KeyError:
        return False
    return True


def _shadow(command: str, *arguments: str) -> None:
    """One of shadow's commands.  Raises HomeError."""
    path = shutil.which(command, path="/usr/sbin:/sbin:/usr/bin:/bin")
    if path is None:
        raise HomeError(f"this system has no {command}; make the user or group {arguments[-1]} by hand first")
    ran = subprocess.run([path, *arguments], capture_output=True, text=True, check=False)
    if ran.returncode:
        why = ran.stderr.strip() or f"exit {ran.returncode}"
        raise HomeError(f"{command} {arguments[-1]}: {why}; mend that, or make it by hand first")
