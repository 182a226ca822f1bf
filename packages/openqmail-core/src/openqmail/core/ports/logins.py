"""The port by which gate has done what it may not do itself: checkpassword programs are run, and a hash
is strengthened.  Served by the spawner, which knows the programs from its own settings.
"""

from asyncio import Future
from typing import Literal, Protocol

from openqmail.core.control.smtpauth import Rehash

Program = Literal["checkpassword", "checkcram", "checktoken"]
"""Each has a control file of this name with its command line."""


class LoginChecks(Protocol):
    """As root in a home of root's, else as the owner of the home."""

    def check(self, program: Program, told: bytes, client: str) -> "Future[int | None]":
        """Run the program with `told` to be read from descriptor 3 and `client`, an address, in its
        environment; its exit code.  None: it could not be run, was killed, or nobody knows.

        Never raises."""
        ...

    def strengthen(self, rehash: Rehash) -> None:
        """Put this in the place of what the login has, unless that has been changed since."""
        ...
