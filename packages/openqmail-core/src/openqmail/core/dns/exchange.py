"""One question to one name server: by UDP, and by TCP where the reply does not fit (RFC 7766).

A socket of its own for each question, connected, so that the kernel takes nothing from others
and says at once when nobody listens there.  Datagrams with a wrong number are passed over; after
a few, somebody is guessing, and TCP is asked instead.  It waits as long as it is let: whoever
calls it sets the time.  No reply is larger than 64 KiB: its length is said in two bytes.
"""

import asyncio
import os
import socket

from openqmail.core.dns import wire
from openqmail.core.dns.types import BadReply, NameServer, NoReply

MOST_STRAYS = 16


async def exchange(server: NameServer, question: wire.Question) -> wire.Reply:
    """The server's reply to this question.  Raises NoReply, BadReply."""
    query = wire.ask(os.urandom(2), question, authentic=server.trusted)
    try:
        data = await _by_udp(server, query)
        reply = _reply(server, data, query, question) if data is not None else None
        if reply is None or reply.truncated:
            reply = _reply(server, await _by_tcp(server, query), query, question)
            if reply.truncated:
                raise BadReply(f"{server} truncates its reply even by TCP")
    except EOFError as error:
        raise BadReply(f"{server} ends the connection within its reply") from error
    except OSError as error:
        raise NoReply(f"{server} cannot be asked: {error.strerror or error}") from error
    return reply


async def _by_udp(server: NameServer, query: bytes) -> bytes | None:
    """A datagram that may be the reply; None when too many came that are not."""
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in server.address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect((server.address, server.port))
        sock.send(query)
        for _ in range(MOST_STRAYS):
            data = await loop.sock_recv(sock, 65535)
            if wire.answers(data, query):
                return data
    return None


async def _by_tcp(server: NameServer, query: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(server.address, server.port)
    try:
        writer.write(len(query).to_bytes(2, "big") + query)
        size = int.from_bytes(await reader.readexactly(2), "big")
        return await reader.readexactly(size)
    finally:
        writer.transport.abort()


def _reply(server: NameServer, data: bytes, query: bytes, question: wire.Question) -> wire.Reply:
    if not wire.answers(data, query):
        raise BadReply(f"{server} sends no reply to what it was asked")
    try:
        reply = wire.read(data, question.kind)
    except wire.Malformed as error:
        raise BadReply(f"{server} sends a reply that cannot be read: {error}") from error
    # A server that gives up may leave the question out.
    if reply.question is None and reply.rcode not in (wire.NOERROR, wire.NXDOMAIN):
        return reply
    if reply.question != question:
        raise BadReply(f"{server} answers another question")
    return reply
