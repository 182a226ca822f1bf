"""As whom a command touches a home: always as its owner.

Root becomes the owner for as long as it works there, so that nothing in a folder that
somebody else may write to leads root anywhere.
"""

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager

from openqmail.core.control.home import Home
from openqmail.core.control.syntax import load_idna
from openqmail.core.values import HomeError


@contextmanager
def as_owner(home: Home) -> Iterator[None]:
    """Work as the home's owner.  Raises HomeError for anybody else but root."""
    me = os.geteuid()
    if me in (home.uid, 0):
        with acting_as(home.uid, home.gid):
            yield
        return
    raise HomeError(
        f"{home.path}: belongs to {user_name(home.uid)}, you are {user_name(me)}; become its owner first"
    )


@contextmanager
def acting_as(uid: int, gid: int) -> Iterator[None]:
    """Take on a uid, its group and its other groups, and give them back.

    What is used inside must be imported before: the owner may not be able to read it."""
    if os.geteuid() != 0 or uid == 0:
        yield
        return
    load_idna()
    before = os.getegid(), os.getgroups()
    try:
        groups = os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
    except KeyError:  # a uid without a name, as in a container
        groups = [gid]
    os.setgroups(groups)
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(before[0])
        os.setgroups(before[1])


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
