"""Changes of users/smtpauth: whole, by one writer at a time, for nobody's eyes but its reader's.

The file is gate's in a home of root's (0400), else the owner's (0600).  All is done as the owner of
the home; gate itself may write only where it is the owner.
"""

from collections.abc import Callable

from openqmail.core.control.accounts import find_accounts
from openqmail.core.control.home import Home
from openqmail.core.control.replacing import one_writer, replace
from openqmail.core.control.smtpauth import (
    SIZE,
    Rehash,
    parse_smtpauth,
    path_of,
    read_smtpauth,
    with_salt_key,
    with_secrets,
    written,
)
from openqmail.core.sasl import prepared
from openqmail.core.values import TemporaryFailure


def change(home: Home, edit: Callable[[bytes], bytes]) -> None:
    """Put what `edit` makes of the content in its place, with nobody else writing meanwhile.

    Raises what `edit` does, TemporaryFailure, HomeError, OSError."""
    path = path_of(home)
    with one_writer(home.users):
        content = read_smtpauth(path)
        new = edit(content)
        if new == content:
            return
        new = with_salt_key(new)
        if len(new) > SIZE:
            raise TemporaryFailure(f"{path}: would be larger than {SIZE} bytes; remove logins")
        if home.uid == 0:
            gate = find_accounts(home).gate
            replace(path, new, 0o400, (gate.uid, gate.gid))
        else:
            replace(path, new, 0o600)


def apply(home: Home, rehash: Rehash) -> None:
    """Strengthen what a login has, unless it has been changed since.  Raises as `change`."""

    def edit(content: bytes) -> bytes:
        entry = parse_smtpauth(content)[0].get(prepared(rehash.login))
        if entry is None or written(entry.secrets) != rehash.old:
            return content
        return with_secrets(content, rehash.login, rehash.new)

    change(home, edit)
