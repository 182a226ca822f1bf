"""Root becomes somebody else, for good, and makes sure that there is no way back."""

import os
from collections.abc import Callable

from openqmail.core.control.accounts import Account
from openqmail.core.values import HomeError


def become(account: Account) -> None:
    """Run as this account from here on, with its one group and no other; nothing for who is not root.

    Raises HomeError for an account of root's, and when root could be taken back."""
    if 0 not in (os.getuid(), os.geteuid()):
        return
    if account.uid == 0:
        raise HomeError(f"'{account.name}' is root; a process that reads mail needs another user")
    os.setgroups([account.gid])
    os.setgid(account.gid)
    os.setuid(account.uid)
    _prove(account)


def _prove(account: Account) -> None:
    """What the calls returned is not believed: it is tried."""
    now = os.getuid(), os.geteuid(), os.getgid(), os.getegid(), os.getgroups()
    if now != (account.uid, account.uid, account.gid, account.gid, [account.gid]) or _can(os.setuid, 0):
        raise HomeError(f"this process could not become '{account.name}' for good; the system keeps it root")
    if account.gid != 0 and _can(os.setgid, 0):
        raise HomeError(f"'{account.name}' could take root's group back; the system keeps it privileged")


def _can(take: Callable[[int], None], number: int) -> bool:
    try:
        take(number)
    except PermissionError:
        return False
    return True
