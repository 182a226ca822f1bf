"""Mailboxes of a home: their names, their lines in users/assign, their Maildirs.

A mailbox NAME has the home `HOME/mail/NAME`, gets the mail of NAME and of NAME-anything
(qmail-users(5)), and belongs to the home's owner.
"""

import os
import re
from collections.abc import Sequence
from errno import ENOENT

from openqmail.core.commands.writing import Made
from openqmail.core.control.assign import Assignment, User, compile_cdb, parse_assign
from openqmail.core.control.home import Home
from openqmail.core.control.owner import user_name
from openqmail.core.control.replacing import one_writer, replace
from openqmail.core.log.escaping import readable
from openqmail.core.values import ControlError, HomeError

_NAME = re.compile(r"[a-z0-9_][a-z0-9_.+-]{0,62}")


def check_name(name: str) -> None:
    """Raises HomeError when this cannot be the name of a mailbox."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in name[:60])
    if name != name.lower():
        raise HomeError(f"'{shown}' has capital letters; mailboxes have small ones: {shown.lower()}")
    if "@" in name:
        raise HomeError(f"'{shown}' is an address; give the part before the @ alone")
    if not _NAME.fullmatch(name) or name.endswith((".", "-")) or ".." in name:
        raise HomeError(
            f"'{shown}' cannot be a mailbox; write small letters, digits, and . _ + - inside, like alice"
        )


def assignments(home: Home, names: Sequence[str]) -> list[Assignment]:
    """The lines of users/assign for these mailboxes."""
    owner = user_name(home.uid).encode()
    found = []
    for name in names:
        folder = os.fsencode(os.path.join(home.mail, name))
        for local, wildcard, dash in ((name, False, b""), (f"{name}-", True, b"-")):
            user = User(owner, home.uid, home.gid, folder, dash, b"")
            found.append(Assignment(local.encode(), wildcard, user))
    return found


def written(lines: Sequence[Assignment]) -> bytes:
    """Lines as users/assign has them, without the final one."""
    return b"".join(
        b"%b%b:%b:%d:%d:%b:%b:%b:\n"
        % (
            b"+" if one.wildcard else b"=",
            one.local,
            user.name,
            user.uid,
            user.gid,
            user.home,
            user.dash,
            user.ext,
        )
        for one in lines
        for user in (one.user,)
    )


def listed(home: Home) -> list[tuple[str, str]]:
    """(name, home) of every mailbox, in the order of users/assign."""
    found, _ = _read(home)
    return [(readable(one.local), readable(one.user.home)) for one in found if not one.wildcard]


def add(home: Home, names: Sequence[str], made: Made, users: Sequence[Assignment] | None = None) -> None:
    """Make mailboxes: Maildirs first, then the lines, then users/cdb, which makes them count.

    `users`: the lines, where these are users of the host, who have their Maildirs already."""
    for name in names:
        check_name(name)
    if len(set(names)) < len(names):
        raise HomeError("a mailbox is named twice; name each once")
    with one_writer(home.users):
        found, content = _read(home)
        taken = {one.local.decode("utf-8", "replace").lower() for one in found if not one.wildcard}
        for name in names:
            if name in taken or (users is None and os.path.lexists(os.path.join(home.mail, name))):
                raise HomeError(
                    f"there is a mailbox '{name}' in {home.path} already; see 'openqmail mailbox list'"
                )
        if users is None:
            for name in names:
                made.maildir(os.path.join(home.mail, name))
        added = assignments(home, names) if users is None else users
        at = _final_line(content)
        new = content[:at] + written(added) + content[at:]
        # Compiled from what is then in the file, so that the two never differ.
        compiled = compile_cdb(parse_assign(new)[0])
        replace(os.path.join(home.users, "assign"), new)
        try:
            replace(os.path.join(home.users, "cdb"), compiled)
        except BaseException:
            replace(os.path.join(home.users, "assign"), content)
            raise


def _read(home: Home) -> tuple[list[Assignment], bytes]:
    path = os.path.join(home.users, "assign")
    try:
        with open(path, "rb") as opened:
            content = opened.read()
    except OSError as error:
        remedy = "restore it, or write the line '.' into it" if error.errno == ENOENT else "mend its mode"
        raise HomeError(f"{path}: cannot be read: {error.strerror}; {remedy}") from None
    found, problems = parse_assign(content)
    if problems:
        raise problems[0]
    return found, content


def _final_line(content: bytes) -> int:
    if content.startswith(b"."):
        return 0
    at = content.find(b"\n.")
    if at < 0:
        raise ControlError("users/assign", 0, "does not end with a line '.'; add it")
    return at + 1
