"""A small name server on loopback, UDP and TCP, that says what a test wants it to say."""

import asyncio
import struct
from collections import Counter

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

from openqmail.core.dns import NameServer


class Nameserver(asyncio.DatagramProtocol):
    """`records[(name, kind)]`: texts of records, or the name of an rcode ("SERVFAIL").

    A name without any entry does not exist.  `silent`: names that get no answer at all.
    `truncated`: names whose answers do not fit a datagram.  `follows`: whether it follows aliases.
    `ttls`: names, or names with a kind, whose records have another TTL than `ttl`.  `zone`: whose SOA
    comes with what is denied; None: none does.
    `authentic`: names, or names with a kind, of which it says that DNSSEC proves them; `wanted`: of
    the flags AD and DO those that anybody set.
    """

    def __init__(self, records: dict[tuple[str, str], list[str] | str], ttl: int = 60) -> None:
        self.records = records
        self.ttl = ttl
        self.silent: set[str] = set()
        self.truncated: set[str] = set()
        self.follows = True
        self.ttls: dict[str | tuple[str, str], int] = {}
        self.zone: str | None = "test."
        self.authentic: set[str | tuple[str, str]] = set()
        self.wanted: set[str] = set()
        self.asked: Counter[tuple[str, str, str]] = Counter()
        self.port = 0

    async def __aenter__(self) -> "Nameserver":
        loop = asyncio.get_running_loop()
        self._server = await asyncio.start_server(self._stream, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self._transport, _ = await loop.create_datagram_endpoint(
            lambda: self, local_addr=("127.0.0.1", self.port)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._transport.close()
        self._server.close()
        await self._server.wait_closed()

    @property
    def address(self) -> NameServer:
        return NameServer("127.0.0.1", self.port)

    def datagram_received(self, data: bytes, peer: tuple[str, int]) -> None:
        answer = self.answer(data, "udp")
        if answer is not None:
            self._transport.sendto(answer, peer)

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        answer = self.answer(await reader.readexactly(length), "tcp")
        if answer is not None:
            writer.write(struct.pack("!H", len(answer)) + answer)
        writer.close()

    def answer(self, data: bytes, way: str) -> bytes | None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked[(name, kind, way)] += 1
        if name in self.silent:
            return None
        self.wanted |= {word for word in ("AD",) if query.flags & dns.flags.AD}
        self.wanted |= {word for word in ("DO",) if query.ednsflags & dns.flags.DO}
        response = dns.message.make_response(query)
        if name in self.authentic or (name, kind) in self.authentic:
            response.flags |= dns.flags.AD
        if name in self.truncated and way == "udp":
            response.flags |= dns.flags.TC
            return response.to_wire()
        self._fill(response, name, kind)
        return response.to_wire(max_size=65535)

    def _fill(self, response: dns.message.Message, name: str, kind: str) -> None:
        alias = self.records.get((name, "CNAME"))
        if alias:
            ttl = self._ttl(name, "CNAME")
            response.answer.append(dns.rrset.from_text(name + ".", ttl, "IN", "CNAME", *alias))
            if self.follows:
                self._fill(response, alias[0].rstrip("."), kind)
            return
        found = self.records.get((name, kind))
        if isinstance(found, str):
            response.set_rcode(dns.rcode.from_text(found))
        elif found:
            response.answer.append(dns.rrset.from_text(name + ".", self._ttl(name, kind), "IN", kind, *found))
        else:
            if not any(known == name for known, _ in self.records):
                response.set_rcode(dns.rcode.NXDOMAIN)
            soa = f"ns.invalid. root.invalid. 1 60 60 60 {self.ttl}"
            if self.zone is not None:
                response.authority.append(dns.rrset.from_text(self.zone, self.ttl, "IN", "SOA", soa))

    def _ttl(self, name: str, kind: str) -> int:
        return self.ttls.get((name, kind), self.ttls.get(name, self.ttl))
