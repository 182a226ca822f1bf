"""The programming interface: what a hook is given, and the steps at which it is asked.

A hook implements only the methods that it needs, plain or `async`.  It is registered as an entry
point of the group `openqmail.hooks`, a callable `(HookContext) -> hook`, and runs once a line of
`control/hooks` names it.  docs/hooks.md is the guide.
"""

from collections.abc import Awaitable
from typing import Literal, Protocol, TypeAlias, TypeVar

import msgspec

from openqmail.core.control.settings import Route, Settings
from openqmail.core.hooks.body import MessageBody
from openqmail.core.hooks.edits import Edits
from openqmail.core.log import Log
from openqmail.core.message.fields import Field
from openqmail.core.ports import Programs
from openqmail.core.tls import TlsFacts
from openqmail.core.values import Answer, Envelope, MessageId, Recipient, Result
from openqmail.core.world import Clock

Place = Literal["smtpd", "send", "remote"]
"""The processes that ask hooks: each makes its own of what `control/hooks` names."""

WhyReset = Literal["done", "refused", "abandoned", "end"]
"""Taken; refused at its end; given up by the client or broken off; the session is over."""


class HookContext(msgspec.Struct, frozen=True):
    """What a hook is made with; a reload makes new hooks.

    `place`: the process that it is made in.  `programs`: how it runs a program; None where it may not."""

    settings: Settings
    log: Log
    clock: Clock
    place: Place = "smtpd"
    programs: Programs | None = None


class SessionFacts(msgspec.Struct, frozen=True):
    """What is known of the client.  Addresses without brackets; `helo` empty before HELO, and again when
    TLS begins; `name` of its host, one that leads back to its address, empty where it has none or nobody
    has looked; `tls` None without; `identity`: the login after AUTH, else empty.

    `id` is the session's in this process, from `connect` to the `reset` whose why is "end".
    Within a message `sender` is the one of MAIL, else None, and `count` how many recipients were taken;
    `listed`, at rcpt: whether core would take mail for that recipient's domain from this client."""

    service: str
    client: str
    client_port: int
    server: str
    relay: bool
    helo: bytes = b""
    extended: bool = False
    name: bytes = b""
    tls: TlsFacts | None = None
    identity: bytes = b""
    id: int = 0
    sender: bytes | None = None
    count: int = 0
    listed: bool = True


class Delivery(msgspec.Struct, frozen=True):
    """One transaction with another host: some recipients of one message.  `number` is the delivery's in
    the log; `domain` in small letters and A-labels; `route`: by which way, without hosts: the domain's own
    MX."""

    number: int
    message: MessageId
    sender: bytes
    recipients: tuple[bytes, ...]
    domain: bytes
    route: Route
    smtputf8: bool = False


T = TypeVar("T")
Maybe: TypeAlias = T | Awaitable[T]
"""A method may be plain or `async`."""


class Inbound(Protocol):
    """A message's way in, from the network or from this host's programs; a hook has any of these methods.

    In local submission there is no connect, helo or auth."""

    def connect(self, session: SessionFacts) -> Maybe[Answer]:
        """Before the greeting."""
        ...

    def helo(self, session: SessionFacts, name: bytes) -> Maybe[Answer]: ...

    def auth(self, session: SessionFacts, identity: bytes) -> Maybe[Answer]:
        """The client has proved who it is, and has not been told so yet."""
        ...

    def mail(self, session: SessionFacts, sender: bytes) -> Maybe[Answer]: ...

    def rcpt(self, session: SessionFacts, recipient: Recipient) -> Maybe[Answer]: ...

    def data(self, session: SessionFacts, envelope: Envelope) -> Maybe[Answer]:
        """Before the message comes."""
        ...

    def header(self, session: SessionFacts, field: Field) -> Maybe[Answer]:
        """A field of the header, as it comes; a refusal is told at the message's end."""
        ...

    def chunk(self, session: SessionFacts, data: bytes) -> Maybe[Answer]:
        """A piece of what stands behind the header, lines ended by LF; it may end anywhere."""
        ...

    def message(
        self, session: SessionFacts, envelope: Envelope, body: MessageBody, edits: Edits
    ) -> Maybe[Answer]:
        """The whole message, as the client sent it and hooks before have edited it; last of all.

        A plain method is called in a thread when the body is not in memory."""
        ...

    def reset(self, session: SessionFacts, why: WhyReset) -> Maybe[None]:
        """A message is over, for whatever reason; with "end" the session is."""
        ...


class Outbound(Protocol):
    """A message's way out."""

    def forward(self, envelope: Envelope, via: bytes) -> Maybe[Envelope | None]:
        """In send.  A message is about to be forwarded by `via`, an address of this host: its new envelope,
        of which the sender is taken."""
        ...

    def route(self, recipient: bytes, proposed: Route) -> Maybe[Route | None]:
        """In remote.  By which way mail for this recipient of another host goes."""
        ...

    def prepare(self, delivery: Delivery, body: MessageBody, edits: Edits) -> Maybe[None]:
        """In remote, once a transaction, last of all.  `body` is what goes over the wire,
        lines ended by CRLF, no dots added.  A plain method is called in a thread when that is not in
        memory."""
        ...

    def finished(self, delivery: Delivery, results: tuple[Result, ...]) -> Maybe[None]:
        """In remote: what became of each recipient, in their order."""
        ...


INBOUND = (
    "connect",
    "helo",
    "auth",
    "mail",
    "rcpt",
    "data",
    "header",
    "chunk",
    "message",
    "reset",
)
STEPS: dict[Place, tuple[str, ...]] = {
    "smtpd": INBOUND,
    "send": ("forward",),
    "remote": ("route", "prepare", "finished"),
}
"""Which steps are asked where."""
