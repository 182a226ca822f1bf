"""The name servers, and the order in which they are asked.

They are asked in the order given, each for a short time, then all again for twice as long.  One that
says that it cannot tell, or talks nonsense, is not asked again, and when any has spoken like that
the silent ones get no further round.  One from which nothing has come since it was asked goes
behind the others for a minute.  Without any given, those of /etc/resolv.conf are asked; what that
file says is looked up again each minute, since other programs write it.  They are never trusted.
"""

import asyncio
import ipaddress
from collections.abc import Sequence

import msgspec

from openqmail.core.dns import wire
from openqmail.core.dns.exchange import exchange
from openqmail.core.dns.types import BadReply, LookupFailed, NameServer, NoReply, ServerFailed

SYSTEM = "/etc/resolv.conf"
MOST_OF_THE_SYSTEM = 3  # as in resolv.conf(5)
ROUNDS = 3
LOOPBACK = NameServer("127.0.0.1")
"""Asked when the system names none; where its file cannot be read any more, those that it named hold."""


class Patience(msgspec.Struct, frozen=True):
    """Seconds: for a server when it is asked first, for a name in all, until a failure is asked for
    again, until a server that is silent is asked first again."""

    a_try: float = 2.0
    a_lookup: float = 15.0
    a_failure: float = 5.0
    a_silence: float = 60.0


class Servers:
    def __init__(self, given: Sequence[NameServer], patience: Patience) -> None:
        self._given = tuple(given)
        self._patience = patience
        self._system: tuple[float, tuple[NameServer, ...]] = (float("-inf"), ())
        self._heard: dict[NameServer, float] = {}
        self._silent_until: dict[NameServer, float] = {}

    def __str__(self) -> str:
        """Those that would be asked now, in their order."""
        return ", ".join(map(str, self._in_order()))

    async def ask(self, question: wire.Question) -> tuple[wire.Reply, NameServer]:
        """A reply that says yes or no, and who said it.  Raises LookupFailed."""
        servers = self._in_order()
        failure: LookupFailed | None = None
        for attempt in range(ROUNDS):
            for server in tuple(servers):
                try:
                    reply = await self._ask_one(server, question, self._patience.a_try * 2**attempt)
                    if reply is not None:
                        return reply, server
                except LookupFailed as error:
                    servers.remove(server)
                    if failure is None or isinstance(failure, NoReply):
                        failure = error
            if not servers or not isinstance(failure, NoReply | None):
                break
        raise failure or NoReply(f"no reply from {', '.join(map(str, servers))}")

    async def _ask_one(self, server: NameServer, question: wire.Question, wait: float) -> wire.Reply | None:
        """Its reply; None when none comes in time."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            async with asyncio.timeout(wait):
                reply = await exchange(server, question)
        except (TimeoutError, NoReply) as error:
            if self._heard.get(server, float("-inf")) < begun:
                self._silent_until[server] = loop.time() + self._patience.a_silence
            if isinstance(error, NoReply):
                raise
            return None
        self._heard[server] = loop.time()
        self._silent_until.pop(server, None)
        if reply.rcode not in (wire.NOERROR, wire.NXDOMAIN):
            why = wire.RCODES.get(reply.rcode, f"error {reply.rcode}")
            more = "" if reply.extended is None else f", extended error {reply.extended}"
            raise ServerFailed(f"{server} says {why}{more}")
        if reply.referral:
            raise BadReply(f"{server} points to others instead of asking them: it is no resolver")
        return reply

    def _in_order(self) -> list[NameServer]:
        now = asyncio.get_running_loop().time()
        servers = self._given
        if not servers:
            if self._system[0] <= now:
                self._system = (now + 60.0, _of_the_system() or self._system[1] or (LOOPBACK,))
            servers = self._system[1]
        return sorted(servers, key=lambda server: self._silent_until.get(server, now) > now)


def _of_the_system() -> tuple[NameServer, ...]:
    """What resolv.conf(5) names."""
    found = []
    try:
        with open(SYSTEM, encoding="utf-8", errors="replace") as file:
            for line in file.read(65536).splitlines():
                words = line.split()
                if words[:1] == ["nameserver"] and len(words) > 1 and _is_address(words[1]):
                    found.append(NameServer(words[1]))
    except OSError:
        pass
    return tuple(dict.fromkeys(found[:MOST_OF_THE_SYSTEM]))


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
