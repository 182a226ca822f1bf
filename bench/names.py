"""A name server for W10: each domain of the simulated net has one exchanger, and that one address.

`dN.example` has the exchanger `mx.dN.example`; nothing else exists.  It answers at once, by UDP, as a
resolver would that knows everything; of domains that are nameless it says nothing, ever.
"""

import asyncio
import re
import socket
import struct
from collections.abc import Callable
from typing import cast

TTL = 300
_A, _SOA, _MX = 1, 6, 15
_NAME = re.compile(rb"(mx\.)?d(\d+)\.example")
_ZONE = b"\x07example\0"

AddressOf = Callable[[int], str | None]
"""The address of a domain's exchanger; None: nameless."""


class Names(asyncio.DatagramProtocol):
    def __init__(self, hosts: int, address_of: AddressOf) -> None:
        self._hosts = hosts
        self._address_of = address_of

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, peer: tuple[str, int]) -> None:
        end = data.index(0, 12) + 5
        question, kind = data[12:end], int.from_bytes(data[end - 4 : end - 2], "big")
        found = _NAME.fullmatch(_text(question))
        if found is None or int(found[2]) >= self._hosts:
            self._send(data, question, 3, b"", peer)
            return
        address = self._address_of(int(found[2]))
        if address is None:
            return
        answer = b""
        if kind == _MX and not found[1]:
            host = b"\x02mx" + question[:-4]
            answer = _record(b"\xc0\x0c", _MX, struct.pack("!H", 10) + host)
        elif kind == _A and found[1]:
            answer = _record(b"\xc0\x0c", _A, socket.inet_aton(address))
        self._send(data, question, 0, answer, peer)

    def _send(self, query: bytes, question: bytes, code: int, answer: bytes, peer: tuple[str, int]) -> None:
        soa = b"" if answer else _record(_ZONE, _SOA, _ZONE * 2 + struct.pack("!5I", 1, TTL, TTL, TTL, TTL))
        head = query[:2] + struct.pack("!5H", 0x8180 | code, 1, bool(answer), bool(soa), 0)
        self._transport.sendto(head + question + answer + soa, peer)


def _text(question: bytes) -> bytes:
    labels, at = [], 0
    while size := question[at]:
        labels.append(question[at + 1 : at + 1 + size])
        at += 1 + size
    return b".".join(labels).lower()


def _record(name: bytes, kind: int, data: bytes) -> bytes:
    return name + struct.pack("!HHIH", kind, 1, TTL, len(data)) + data
