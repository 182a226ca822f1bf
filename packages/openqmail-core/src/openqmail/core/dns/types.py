"""What a resolver is asked, and what it answers.

Two errors, because two things follow from them: `NoSuchName` is the DNS saying that there is
nothing (NXDOMAIN), and will not change soon; `LookupFailed` says nothing at all, so mail waits;
its three kinds tell apart whose fault that is, for the log.  A name that exists but has no record
of the kind asked for is an empty answer.  Names are bytes in wire form (A-labels), lower case,
without a final dot.  An alias (CNAME) is followed, and its target is never handed back.
"""

from typing import Generic, Protocol, TypeVar

import msgspec

from openqmail.core.values import PermanentFailure, TemporaryFailure

Record = TypeVar("Record")


class NoSuchName(PermanentFailure):
    """The DNS says that this name does not exist."""


class LookupFailed(TemporaryFailure):
    """The DNS could not be asked, or gave no usable answer."""


class ServerFailed(LookupFailed):
    """A name server says that it cannot tell: SERVFAIL (DNSSEC that is wrong, too), REFUSED."""


class NoReply(LookupFailed):
    """No name server can be reached, or none has answered in time."""


class BadReply(LookupFailed):
    """What came is no answer: junk, another question's, a referral, aliases in a circle."""


class Answer(msgspec.Struct, Generic[Record], frozen=True):
    """`ttl`: for how many seconds the records may be believed from now on.

    `authentic`: a trusted name server says that DNSSEC proves all of it, an empty answer, too."""

    records: tuple[Record, ...]
    ttl: float
    authentic: bool = False


class MailExchanger(msgspec.Struct, frozen=True):
    """An MX record; `host` is empty for the root, which as the only one means: no mail (RFC 7505)."""

    preference: int
    host: bytes


class NameServer(msgspec.Struct, frozen=True):
    """One to ask.  `trusted`: the way to it is safe, and what it says of DNSSEC is believed."""

    address: str
    port: int = 53
    trusted: bool = False

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


class ClientResolver(Protocol):
    """What is asked about who sends us mail.  All raise NoSuchName, LookupFailed."""

    async def ipv4(self, name: bytes) -> Answer[str]:
        """The IPv4 addresses of a name, at most 50."""
        ...

    async def addresses(self, host: bytes) -> Answer[str]:
        """As of a `Resolver`."""
        ...

    async def texts(self, name: bytes) -> Answer[bytes]:
        """Its TXT records, each with its strings put together, as a stranger wrote them."""
        ...

    async def pointers(self, name: bytes) -> Answer[bytes]:
        """The names that a name of in-addr.arpa or ip6.arpa points to."""
        ...


class Resolver(Protocol):
    async def mx(self, domain: bytes) -> Answer[MailExchanger]:
        """The mail exchangers of a domain, lowest preference first, at most 100.

        Raises NoSuchName, LookupFailed."""
        ...

    async def addresses(self, host: bytes) -> Answer[str]:
        """The IPv4 addresses of a host, then its IPv6 addresses, at most 50 of each.

        When one of the two could not be looked up, the other is the answer; `authentic` then
        speaks of what is there.  Raises NoSuchName, LookupFailed."""
        ...
