"""What a resolver is asked, and what it answers.

Two errors, because two things follow from them: `NoSuchName` is the DNS saying that there is
nothing (NXDOMAIN), and will not change soon; `LookupFailed` (SERVFAIL, no server answers) says
nothing at all, so mail waits.  A name that exists but has no record of the kind asked for is
an empty answer.  Names are bytes in wire form (A-labels), lower case, without a final dot.
"""

from typing import Generic, Protocol, TypeVar

import msgspec

from openqmail.core.values import PermanentFailure, TemporaryFailure

Record = TypeVar("Record")


class NoSuchName(PermanentFailure):
    """The DNS says that this name does not exist."""


class LookupFailed(TemporaryFailure):
    """The DNS could not be asked, or gave no usable answer."""


class Answer(msgspec.Struct, Generic[Record], frozen=True):
    """`ttl`: for how many seconds the records may be believed from now on."""

    records: tuple[Record, ...]
    ttl: float


class MailExchanger(msgspec.Struct, frozen=True):
    """An MX record; `host` is empty for the root, which as the only one means: no mail (RFC 7505)."""

    preference: int
    host: bytes


class Resolver(Protocol):
    async def mx(self, domain: bytes) -> Answer[MailExchanger]:
        """The mail exchangers of a domain, lowest preference first, at most 100.

        Raises NoSuchName, LookupFailed."""
        ...

    async def addresses(self, host: bytes) -> Answer[str]:
        """The IPv4 addresses of a host, then its IPv6 addresses.

        Raises NoSuchName, LookupFailed."""
        ...
