"""The world outside of an MTA in a test: every domain has a mail server, and all of them are here.

The loop is where it begins: connections to port 25 and to the addresses that `Network` made up stay
in memory, so that no mail of a test comes out; others (control/smtproutes) are real ones.  Above
that everything is what always runs, from the MX to the last reply.  The addresses are of
198.18.0.0/15, which is set aside for tests (RFC 2544, appendix C.2.2) and routed nowhere.  Domains
under `invalid` do not exist (RFC 6761 section 6.4).
"""

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from openqmail.core.dns import Answer, MailExchanger, NoSuchName
from openqmail.core.testing.mail import Mail
from openqmail.core.testing.receiver import Dialogue, Receiver, Silence, Unreachable
from openqmail.core.testing.wire import Wire, connected

ALL_OTHERS = "*"
_TTL = 3600.0
_FIRST = int(ipaddress.ip_address("198.18.0.1"))


class Network:
    """A `Resolver`, and who answers at the addresses that it gives.

    `receivers`: by domain; the one of `*` for all that are not named, which else accept
    everything.  `sent`: (domain, mail) of all that was taken, in order."""

    def __init__(self, receivers: Mapping[str, Receiver], now: Callable[[], float]) -> None:
        self._receivers = {domain.lower(): receiver for domain, receiver in receivers.items()}
        self._now = now
        self._domains: dict[str, str] = {}  # by address
        self._addresses: dict[str, str] = {}
        self._wires: set[Wire] = set()
        self.sent: list[tuple[str, Mail]] = []

    def receiver(self, domain: str) -> Receiver:
        domain = domain.lower()
        if domain not in self._receivers:
            self._receivers[domain] = self._receivers.get(ALL_OTHERS) or Receiver()
        return self._receivers[domain]

    # --- Resolver -------------------------------------------------------------------------

    async def mx(self, domain: bytes) -> Answer[MailExchanger]:
        if domain.rpartition(b".")[2] == b"invalid":
            raise NoSuchName(f"{domain.decode()} does not exist")
        return Answer((MailExchanger(10, b"mx." + domain),), _TTL)

    async def addresses(self, host: bytes) -> Answer[str]:
        domain = host.decode().removeprefix("mx.")
        if domain not in self._addresses:
            address = str(ipaddress.ip_address(_FIRST + len(self._addresses)))
            self._addresses[domain], self._domains[address] = address, domain
        return Answer((self._addresses[domain],), _TTL)

    # --- asked by the loop ----------------------------------------------------------------

    def has(self, address: str, port: int) -> bool:
        return port == 25 or address in self._domains

    async def reach(self, address: str) -> Dialogue:
        """A connection is asked for.  Raises ConnectionRefusedError."""
        domain = self._domains.get(address, f"[{address}]")
        receiver = self.receiver(domain)
        step = receiver.attempt(self._now())
        if isinstance(step, Unreachable):
            raise ConnectionRefusedError(f"{domain} refuses connections")
        if step == Silence("connect"):
            await asyncio.get_running_loop().create_future()
        return Dialogue(f"mx.{domain}", step, partial(self._took, domain, receiver))

    def open(self, near: asyncio.BaseProtocol, far: Dialogue, address: str) -> Wire:
        wire, _ = connected(asyncio.get_running_loop(), near, far, ("127.0.0.1", 0), (address, 25))
        self._wires = {one for one in self._wires if not one.is_closing()} | {wire}
        return wire

    def down(self) -> None:
        """Every connection breaks."""
        for wire in self._wires:
            if not wire.is_closing():
                wire.abort()
        self._wires.clear()

    def _took(self, domain: str, receiver: Receiver, mail: Mail) -> None:
        receiver.mails.append(mail)
        self.sent.append((domain, mail))


class NetworkedLoop(asyncio.SelectorEventLoop):
    """A loop with such a network beside the real one; `network` is to be set before it runs."""

    network: Network

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._reached: WeakKeyDictionary[socket.socket, tuple[Dialogue, str]] = WeakKeyDictionary()

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        if not isinstance(address, tuple) or not self.network.has(*address[:2]):
            await super().sock_connect(sock, address)
            return
        self._reached[sock] = (await self.network.reach(address[0]), address[0])

    async def create_connection(self, protocol_factory: Any, *arguments: Any, **options: Any) -> Any:
        sock = options.get("sock")
        if sock is None or sock not in self._reached:
            return await super().create_connection(protocol_factory, *arguments, **options)
        reached = self._reached.pop(sock)
        sock.close()  # it has served as a name
        protocol = protocol_factory()
        return self.network.open(protocol, *reached), protocol
