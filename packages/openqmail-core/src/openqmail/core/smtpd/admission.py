"""What the DNS says of a client before its first message: the name of its host, and who lists it.

A name counts only when it leads back to the client's address, as tcpserver -p has it.  Lists are asked
while the client is greeted and says hello; their word is wanted before MAIL is answered.  Both have their
time, and a DNS that fails says nothing against anybody.  Only who has a lease of the gate is asked about, and
no longer than it stays, so clients that come and go leave no questions behind; questions are on
behalf of the client's network, so that one network leaves room to the others.
"""

import asyncio
import ipaddress
from asyncio import Future
from collections.abc import Coroutine
from contextvars import copy_context
from typing import Any, TypeVar

from openqmail.core.control.blocklists import Blocklist
from openqmail.core.control.settings import Settings
from openqmail.core.dns import (
    ClientResolver,
    LookupFailed,
    NameServer,
    NoSuchName,
    StubResolver,
    behalf,
    wire,
)
from openqmail.core.limits import network_of
from openqmail.core.log import Log, Warn
from openqmail.core.values import Reply

T = TypeVar("T")

NAME_PATIENCE = 10.0
"""Seconds for the name of a client's host."""

LIST_PATIENCE = 8.0
"""Seconds for all lists together."""

MOST_NAMES = 5
"""Names of one address that are looked at."""

_TOLD = 300
"""Octets of a list's text that are told."""


class Admission:
    """Asks about clients, under one set of settings; needs a running loop."""

    def __init__(self, settings: Settings, resolver: ClientResolver | None, log: Log) -> None:
        self._resolver = resolver
        self._log = log
        self._lists = settings.dnsbl
        self._score = settings.dnsblscore
        self._silent: set[bytes] = set()  # lists of whose silence the log has been told
        self._tasks: set[asyncio.Task[Any]] = set()
        wanted = settings.lookupclients or settings.requirereverse or settings.rules.by_name
        self.by_name = wanted and resolver is not None
        """Whether names of clients are looked up."""
        self.lists = bool(self._lists) and resolver is not None
        """Whether there is any to ask."""

    def name_of(self, client: str) -> "Future[str | None]":
        """The name of a client's host in lower case, empty when it has none that leads back to it, None
        when that could not be found out.  Never raises; to be cancelled when the client is gone."""
        return self._begin(client, self._name(client))

    def listed(self, client: str) -> "Future[Reply | None]":
        """The reply that refuses its mail, or None.  Never raises; to be cancelled as `name_of` is."""
        return self._begin(client, self._judge(client))

    def _begin(self, client: str, work: Coroutine[Any, Any, T]) -> "Future[T]":
        """A task of its own, which nobody need wait for."""
        context = copy_context()
        context.run(behalf.set, network_of(client))
        task = asyncio.get_running_loop().create_task(work, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- names ------------------------------------------------------------------------

    async def _name(self, client: str) -> str | None:
        address = _address(client)
        resolver = self._resolver
        if address is None or resolver is None:
            return ""
        try:
            async with asyncio.timeout(NAME_PATIENCE):
                found = await resolver.pointers(address.reverse_pointer.encode())
                failed = False
                for name in found.records[:MOST_NAMES]:
                    if not wire.is_plain(name):
                        continue
                    try:
                        if str(address) in (await resolver.addresses(name)).records:
                            return name.decode().lower()
                    except NoSuchName:
                        pass
                    except LookupFailed:
                        failed = True
        except NoSuchName:
            return ""
        except (LookupFailed, TimeoutError):
            return None
        return None if failed else ""

    # --- lists ------------------------------------------------------------------------

    async def _judge(self, client: str) -> Reply | None:
        address = _address(client)
        if address is None:
            return None
        reverse = address.reverse_pointer.rpartition(".")[0].rpartition(".")[0].encode()
        asked = [
            asyncio.get_running_loop().create_task(self._ask(one, reverse + b"." + one.zone))
            for one in self._lists
        ]
        try:
            done, _ = await asyncio.wait(asked, timeout=LIST_PATIENCE)
        finally:
            for task in asked:
                task.cancel()  # of no effect on one that is done
        on = [one for one, task in zip(self._lists, asked, strict=True) if task in done and task.result()]
        if sum(one.weight for one in on) < self._score:
            return None
        worst = max(on, key=lambda one: one.weight)
        text = worst.text or await self._text(reverse + b"." + worst.zone)
        said = b"%s is listed by %s" % (str(address).encode(), worst.zone)
        return Reply(554, b"5.7.1", (said + b": " + text if text else said,))

    async def _ask(self, one: Blocklist, name: bytes) -> bool:
        """Whether a list has the client."""
        assert self._resolver is not None
        try:
            answers = (await self._resolver.ipv4(name)).records
        except NoSuchName:
            answers = ()
        except LookupFailed as error:
            self._tell(
                one.zone, f"control/dnsbl: {one.zone.decode()} does not answer, so it counts nothing: {error}"
            )
            return False
        if any(answer.startswith("127.255.255.") for answer in answers):
            self._tell(
                one.zone, f"control/dnsbl: {one.zone.decode()} says that it does not serve us: {answers[0]}"
            )
        else:
            self._silent.discard(one.zone)
        return any(one.counts(answer) for answer in answers)

    async def _text(self, name: bytes) -> bytes:
        """What a list says itself, as a reply may carry it."""
        assert self._resolver is not None
        try:
            async with asyncio.timeout(LIST_PATIENCE / 2):
                found = (await self._resolver.texts(name)).records
        except (NoSuchName, LookupFailed, TimeoutError):
            return b""
        return bytes(each if 32 <= each < 127 else 63 for each in found[0][:_TOLD]) if found else b""

    def _tell(self, zone: bytes, sentence: str) -> None:
        """Once, until it works again."""
        if zone not in self._silent:
            self._silent.add(zone)
            self._log(Warn(sentence))


def client_resolver(settings: Settings) -> ClientResolver | None:
    """Asks the name servers of `control/resolvers`, or the system's; None where nothing is to be asked."""
    if not (settings.dnsbl or settings.lookupclients or settings.requirereverse or settings.rules.by_name):
        return None
    return StubResolver([NameServer(each.address, each.port, each.trusted) for each in settings.resolvers])


def _address(client: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Of a client; one of IPv4 that came in by IPv6 as IPv4."""
    try:
        address = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
