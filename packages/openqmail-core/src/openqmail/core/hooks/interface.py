"""The programming interface for mail coming in: implement only the methods you need.

Each method may be plain or `async`; None means: no opinion.  The first refusal ends the
step.  A hook is registered as an entry point of the group `openqmail.hooks`, a callable
`(HookContext) -> hook`, and runs once `control/hooks` names it.
"""

from collections.abc import Awaitable
from typing import Protocol

import msgspec

from openqmail.core.control.settings import Settings
from openqmail.core.log import Log
from openqmail.core.tls import TlsFacts
from openqmail.core.values import Envelope, Recipient, Reply
from openqmail.core.world import Clock


class HookContext(msgspec.Struct, frozen=True):
    """What a hook is made with; a reload makes new hooks."""

    settings: Settings
    log: Log
    clock: Clock


class Refuse(msgspec.Struct, frozen=True):
    """Answer with this reply (4xx: try later, 5xx: never)."""

    reply: Reply


class SessionFacts(msgspec.Struct, frozen=True):
    """What is known of the client.  Addresses without brackets; `helo` empty before HELO, and again when
    TLS begins; `name` of its host, one that leads back to its address, empty where it has none or nobody
    has looked; `tls` None without; `identity`: the login after AUTH, else empty."""

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


Answer = Refuse | None
MaybeAwaitable = Answer | Awaitable[Answer]


class Inbound(Protocol):
    """The steps of a message's way in; a hook has any of these methods."""

    def connect(self, session: SessionFacts) -> MaybeAwaitable: ...

    def helo(self, session: SessionFacts) -> MaybeAwaitable: ...

    def mail(self, session: SessionFacts, sender: bytes) -> MaybeAwaitable: ...

    def rcpt(self, session: SessionFacts, sender: bytes, recipient: Recipient) -> MaybeAwaitable: ...

    def data(self, session: SessionFacts, envelope: Envelope) -> MaybeAwaitable: ...

    def message(self, session: SessionFacts, envelope: Envelope, size: int) -> MaybeAwaitable: ...


STEPS = ("connect", "helo", "mail", "rcpt", "data", "message")
