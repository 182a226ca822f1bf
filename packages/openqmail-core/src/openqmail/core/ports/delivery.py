"""The ports by which mail goes out: to users of this host, and to other hosts."""

from asyncio import Future
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from openqmail.core.values import Body, MessageId, Result


class LocalJob(msgspec.Struct, frozen=True):
    """One recipient of one message.

    `recipient` is the address as routed (`prepend-` of a virtual domain included);
    `position` its place in the envelope; `again` is true when an earlier attempt may have
    left files behind (after a crash, or a deferral), which are then recognised.  `synced`: the
    message lies in qmail's layout, so each file is made durable by itself, with its folder,
    before the report, which then has no `written`.
    """

    delivery: int
    message: MessageId
    birth: int
    sender: bytes
    recipient: bytes
    position: int
    body: Body
    again: bool
    synced: bool = False


class Written(msgspec.Struct, frozen=True):
    """A file that is complete under its final name, but not known to be on the disk."""

    path: bytes
    size: int


class Forward(msgspec.Struct, frozen=True):
    """A new message that closes the recipient it came from: `header` stands before the body."""

    sender: bytes
    recipients: tuple[bytes, ...]
    header: bytes


class LocalReport(msgspec.Struct, frozen=True):
    """`result` holds once every file of `written` is durable (see `LocalDelivery.sync`);
    a `forward` is submitted together with closing the recipient."""

    result: Result
    written: tuple[Written, ...] = ()
    forward: Forward | None = None


class LocalDelivery(Protocol):
    """Served by local."""

    def deliver(self, job: LocalJob) -> Future[LocalReport]:
        """Never raises for a message's sake: what goes wrong is a deferral or a failure."""
        ...

    def sync(self, written: Sequence[Written]) -> Future[tuple[bool, ...]]:
        """Make files durable, with their folders; False for one that could not be made so."""
        ...


Told = Mapping[bytes, Result | None]
"""Of each address what would become of mail for it."""


class RecipientCheck(Protocol):
    """Served by local."""

    def check(self, recipients: Sequence[bytes]) -> Future[Told]:
        """What would become of mail for the first of `recipients`, addresses as routed: FAILURE when it
        would be refused for good, DEFERRAL when it could not be delivered just now.  None when it would
        be taken, and when nobody can tell.  Of others the same is told where it is no trouble; who is
        missing then is to be asked for alone.  Nothing is delivered or written.  Never raises."""
        ...


class RemoteJob(msgspec.Struct, frozen=True):
    """One transaction: some recipients of one message at one `domain` (`canonical_domain`).

    `envid`, `ret`: RFC 3461's parameters of MAIL, as they came; `dsn`: NOTIFY and ORCPT of each
    recipient, parallel to `recipients`, empty when none of them has any."""

    delivery: int
    message: MessageId
    sender: bytes
    domain: bytes
    recipients: tuple[bytes, ...]
    body: Body
    smtputf8: bool = False
    envid: bytes = b""
    ret: bytes = b""
    dsn: tuple[tuple[bytes, bytes], ...] = ()


class RemoteDelivery(Protocol):
    """Served by remote."""

    def deliver(self, job: RemoteJob) -> Future[tuple[Result, ...]]:
        """A result for each recipient, in their order.  Never raises for a message's sake."""
        ...
