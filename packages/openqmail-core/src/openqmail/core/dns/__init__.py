"""Looking up where mail goes: the resolver's protocol, its answers and errors, and the one that asks."""

from openqmail.core.dns.cache import Cache
from openqmail.core.dns.hosts import look_up_hosts
from openqmail.core.dns.resolver import StubResolver
from openqmail.core.dns.servers import Patience
from openqmail.core.dns.slots import behalf
from openqmail.core.dns.types import (
    Answer,
    BadReply,
    ClientResolver,
    LookupFailed,
    MailExchanger,
    NameServer,
    NoReply,
    NoSuchName,
    Resolver,
    ServerFailed,
)

__all__ = [
    "Answer",
    "BadReply",
    "Cache",
    "ClientResolver",
    "LookupFailed",
    "MailExchanger",
    "NameServer",
    "NoReply",
    "NoSuchName",
    "Patience",
    "Resolver",
    "ServerFailed",
    "StubResolver",
    "behalf",
    "look_up_hosts",
]
