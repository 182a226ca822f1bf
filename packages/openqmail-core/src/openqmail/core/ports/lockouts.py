"""The port for people who ask who may not log in after too many failures, and let somebody try again."""

from collections.abc import Sequence
from typing import Protocol

import msgspec


class LockedOut(msgspec.Struct, frozen=True, gc=False):
    """A network (`192.0.2.0/24`); a login, where it has never been; both: a login where it was before.

    `login` as it compares, bytes beyond UTF-8 as \\xNN; `seconds` that are left."""

    network: str
    login: str
    failures: int
    seconds: int


class LockedNow(msgspec.Struct, frozen=True):
    """The latest first; `more`: how many there are beside these."""

    locked: tuple[LockedOut, ...]
    more: int = 0


class LockoutAdmin(Protocol):
    """Served by gate.  Raises TemporaryFailure where that is not there."""

    async def locked(self) -> LockedNow: ...

    async def unlock(self, names: Sequence[str]) -> tuple[int, ...]:
        """Forget the failures of logins, addresses and networks; how many lock-outs that lifts of each."""
        ...
