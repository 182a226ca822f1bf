"""Looking up where mail goes: the resolver's protocol, its answers and errors, and the one by dnspython."""

from openqmail.core.dns.cache import Cache
from openqmail.core.dns.resolver import DnspythonResolver
from openqmail.core.dns.types import Answer, LookupFailed, MailExchanger, NoSuchName, Resolver

__all__ = [
    "Answer",
    "Cache",
    "DnspythonResolver",
    "LookupFailed",
    "MailExchanger",
    "NoSuchName",
    "Resolver",
]
