"""The resolver that asks name servers, by dnspython's async resolver (RFC 1035, RFC 5321 section 5.1).

It follows CNAMEs to records, but never hands the canonical name back: what an address says is
not rewritten.  dnspython is imported when the first name is looked up, not before: it costs
50 ms.  A truncated answer is asked for again by TCP.  Whatever a name server says that is not a
plain host name (RFC 1123, with the underscore that some use) is passed over.
"""

import asyncio
import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from openqmail.core.dns.cache import Cache, Known
from openqmail.core.dns.types import Answer, LookupFailed, MailExchanger, NoSuchName

if TYPE_CHECKING:
    import dns.asyncresolver
    import dns.message
    import dns.resolver

MOST_EXCHANGERS = 100
MOST_ADDRESSES = 100
SECONDS_A_TRY = 4.0
SECONDS_A_LOOKUP = 15.0

_PLAIN = re.compile(rb"(?!.{254})[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\Z", re.DOTALL)


class DnspythonResolver:
    """Asks `nameservers` (address and port each); with none given, those of the system."""

    def __init__(self, nameservers: Sequence[tuple[str, int]] = (), cache: Cache | None = None) -> None:
        self._nameservers = tuple(nameservers)
        self._cache = Cache() if cache is None else cache
        self._resolver: dns.asyncresolver.Resolver | None = None

    async def mx(self, domain: bytes) -> Answer[MailExchanger]:
        return cast("Answer[MailExchanger]", await self._look_up(domain, "MX"))

    async def addresses(self, host: bytes) -> Answer[str]:
        found = await asyncio.gather(
            self._look_up(host, "A"), self._look_up(host, "AAAA"), return_exceptions=True
        )
        answers = [cast("Answer[str]", each) for each in found if isinstance(each, Answer)]
        records = tuple(record for answer in answers for record in answer.records)
        if records or len(answers) == len(found):
            return Answer(records[:MOST_ADDRESSES], min(answer.ttl for answer in answers))
        # A failed lookup says less than one that found nothing.
        errors = [each for each in found if isinstance(each, BaseException)]
        raise next((error for error in errors if not isinstance(error, NoSuchName)), errors[0])

    async def _look_up(self, name: bytes, kind: str) -> Answer[MailExchanger | str]:
        name = name.lower().removesuffix(b".")
        if not _PLAIN.match(name):
            raise NoSuchName(f"{name.decode('ascii', 'backslashreplace')!r} is not the name of a host")
        known = self._cache.get(name, kind, time.monotonic())
        if known is None:
            known, ttl = await self._ask(name.decode("ascii"), kind)
            self._cache.put(name, kind, known, ttl, time.monotonic())
        if isinstance(known, NoSuchName):
            # A fresh one each time: a raised exception carries its traceback along.
            raise NoSuchName(*known.args)
        return known

    async def _ask(self, name: str, kind: str) -> tuple[Known, float]:
        """Ask the name servers; the answer and its TTL.  Raises LookupFailed."""
        import dns.exception  # noqa: PLC0415
        import dns.resolver  # noqa: PLC0415

        try:
            if self._resolver is None:
                self._resolver = _make(self._nameservers)
            answer = await self._resolver.resolve(name + ".", kind, raise_on_no_answer=False, search=False)
        except dns.resolver.NXDOMAIN as error:
            responses = list(error.responses().values())  # type: ignore[no-untyped-call]
            return NoSuchName(f"there is no name {name} in the DNS"), _ttl(responses[0]) if responses else 0.0
        except (dns.exception.DNSException, OSError, ValueError) as error:
            text = str(error) or type(error).__name__
            raise LookupFailed(f"looking up {kind} of {name} failed: {text}") from None
        ttl = _ttl(answer.response)
        return Answer(_records(answer, kind), ttl), ttl


def _make(nameservers: tuple[tuple[str, int], ...]) -> "dns.asyncresolver.Resolver":
    import dns.asyncresolver  # noqa: PLC0415
    import dns.nameserver  # noqa: PLC0415

    resolver = dns.asyncresolver.Resolver(configure=not nameservers)
    if nameservers:
        resolver.nameservers = [dns.nameserver.Do53Nameserver(*each) for each in nameservers]
    # The EDNS buffer that fits an unfragmented datagram everywhere.
    resolver.use_edns(0, 0, 1232)
    resolver.timeout = SECONDS_A_TRY
    resolver.lifetime = SECONDS_A_LOOKUP
    return resolver


def _ttl(response: "dns.message.Message") -> float:
    """The least TTL on the way to the answer; of a negative one the SOA's (RFC 2308), 0 without it."""
    import dns.exception  # noqa: PLC0415
    import dns.message  # noqa: PLC0415
    import dns.ttl  # noqa: PLC0415

    if not isinstance(response, dns.message.QueryMessage):
        return 0.0
    try:
        ttl = response.resolve_chaining().minimum_ttl
    except dns.exception.DNSException:
        return 0.0
    return 0.0 if ttl >= dns.ttl.MAX_TTL else float(ttl)


def _records(answer: "dns.resolver.Answer", kind: str) -> tuple[MailExchanger | str, ...]:
    if answer.rrset is None:
        return ()
    if kind != "MX":
        return tuple(record.address for record in answer.rrset)
    found = []
    for record in answer.rrset:
        host = record.exchange.to_text(omit_final_dot=True).encode("ascii", "replace").lower()
        if host in (b".", b"@", b""):
            found.append(MailExchanger(record.preference, b""))
        elif _PLAIN.match(host):
            found.append(MailExchanger(record.preference, host))
    found.sort(key=lambda exchanger: exchanger.preference)
    return tuple(found[:MOST_EXCHANGERS])
