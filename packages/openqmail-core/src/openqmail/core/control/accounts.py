"""As whom each process of a home runs: the users of control/accounts, else qmail's.

The owner of the home decides: in a home of root's each role has a user of the system's, in any
other all five are its owner.  Names are looked up, nothing is made; root is nobody's account.
"""

import os
import pwd
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import msgspec

from openqmail.core.control import syntax
from openqmail.core.control.assign import User
from openqmail.core.control.home import Home
from openqmail.core.control.owner import acting_as, as_owner, user_name
from openqmail.core.control.reader import content
from openqmail.core.control.settings import ACCOUNTS
from openqmail.core.control.text import ControlText, mapping
from openqmail.core.values import HomeError

FILE = "control/accounts"


class Account(msgspec.Struct, frozen=True):
    """A user of the system's; `gid` is the only group that it has while it serves."""

    name: str
    uid: int
    gid: int


class Accounts(msgspec.Struct, frozen=True):
    """Who runs what; `alias` gets the mail that belongs to no user."""

    smtpd: Account
    gate: Account
    send: Account
    remote: Account
    alias: Account

    def by_role(self) -> dict[str, Account]:
        return {role: getattr(self, role) for role in ACCOUNTS}

    def alias_in(self, home: Home) -> User:
        """`alias` as one who gets mail."""
        alias = self.alias
        return User(os.fsencode(alias.name), alias.uid, alias.gid, os.fsencode(home.alias), b"-", b"")


def find_accounts(home: Home) -> Accounts:
    """Raises ControlError for a bad control/accounts, HomeError naming a user that is missing."""
    if home.uid != 0:
        owner = Account(user_name(home.uid), home.uid, home.gid)
        return Accounts(**dict.fromkeys(ACCOUNTS, owner))
    text = ControlText(FILE, content(home, "accounts") or b"")
    named = mapping(syntax.account)(text)
    if text.problems:
        raise text.problems[0]
    return look_up({role.decode(): name for role, name in named.items()}, home.path)


@contextmanager
def as_send(home: Home) -> Iterator[None]:
    """Work on the queue as whom it belongs to: the owner, in a home of root's the user of `send`.

    Raises HomeError for who is neither the owner nor root."""
    with as_owner(home):
        if home.uid:
            yield
            return
        send = find_accounts(home).send
        with acting_as(send.uid, send.gid):
            yield


def look_up(named: Mapping[str, str], path: str) -> Accounts:
    """The accounts of a home at `path`; roles without a name have qmail's.  Raises HomeError."""
    return Accounts(
        **{role: _account(role, named.get(role, usual), path) for role, usual in ACCOUNTS.items()}
    )


def _account(role: str, name: str, path: str) -> Account:
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        raise HomeError(
            f"{path}: there is no user '{name}', as whom {role} runs; make it, as 'openqmail init --system' "
            f"does, or name another in {FILE}: {role} USER"
        ) from None
    if found.pw_uid == 0:
        raise HomeError(f"{path}: '{name}', as whom {role} runs, is root; name another user in {FILE}")
    return Account(name, found.pw_uid, found.pw_gid)
