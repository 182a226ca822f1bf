"""A scripted SMTP peer on loopback, and the settings and jobs of these tests."""

import asyncio
import contextlib

from openqmail.core.control.reader import defaults
from openqmail.core.control.settings import Route
from openqmail.core.log import MemoryLog, RemoteLogin, RemoteTls, RemoteTlsFailed, Warn
from openqmail.core.ports import RemoteJob
from openqmail.core.remote import LmtpTransport, Remote, SmtpTransport
from openqmail.core.values import BytesBody, MessageId

CLOSE = object()
RESET = object()
HANG = object()
EXTENSIONS = b"250-peer.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SIZE 100000000\r\n250 SMTPUTF8\r\n"
PLAIN = b"250 peer.test\r\n"
SECURE = b"250-peer.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 STARTTLS\r\n"
START = b"220 2.0.0 go\r\n"
POLITE = {
    "": b"220 peer.test ESMTP\r\n",
    "EHLO": EXTENSIONS,
    "STAR": START,
    "HELO": PLAIN,
    "MAIL": b"250 2.1.0 sender ok\r\n",
    "RCPT": b"250 2.1.5 recipient ok\r\n",
    "DATA": b"354 go ahead\r\n",
    ".": b"250 2.0.0 accepted\r\n",
    "RSET": b"250 2.0.0 ok\r\n",
    "QUIT": b"221 2.0.0 bye\r\n",
}


class Peer:
    """Answers each verb (`""` the greeting, `"."` the message) as told, politely otherwise.

    An answer is bytes, CLOSE, RESET, HANG, or a list of those, used up one at a time over all
    connections (the last one stays).  `commands`, `messages`, `connections` and
    `sources` (the address of each client) tell what came.  `tls`: the context of a peer that has TLS,
    `implicit` for one that begins with it; `secured` has what the client showed at each handshake, and
    `inside` what commands came behind one.
    """

    def __init__(self, answers=None, host="127.0.0.1", port=0, tls=None, implicit=False):
        self.tls, self.implicit = tls, implicit
        self.secured, self.inside = [], []
        self.answers = {**POLITE, **(answers or {})}
        self.host, self.port = host, port
        self.commands, self.messages, self.connections = [], [], 0
        self.sources = []
        self.ended = asyncio.Event()
        self._tasks = set()

    async def __aenter__(self):
        at_once = self.tls if self.implicit else None
        self._server = await asyncio.start_server(self._serve, self.host, self.port, ssl=at_once)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def hang_up(self):
        """Close every connection that is open."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader, writer):
        self.connections += 1
        self.sources.append(writer.get_extra_info("peername")[0])
        self._tasks.add(asyncio.current_task())
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._session(reader, writer)
        finally:
            self._tasks.discard(asyncio.current_task())
            self.ended.set()
            writer.close()

    async def _session(self, reader, writer):
        if not await self._say(writer, ""):
            return
        while line := await reader.readline():
            verb = line[:4].strip().upper().decode("latin-1")
            self.commands.append(line.removesuffix(b"\r\n"))
            if writer.get_extra_info("ssl_object") is not None:
                self.inside.append(line.removesuffix(b"\r\n"))
            answer = self._next(verb)
            if not await self._say(writer, verb, answer):
                return
            if verb == "QUIT":
                return
            if verb == "STAR" and answer == START and self.tls is not None:
                await writer.start_tls(self.tls)
                self.secured.append(writer.get_extra_info("ssl_object"))
            if verb == "DATA" and bytes(answer[:1]) in (b"2", b"3"):
                await self._message(reader)
                if not await self._say(writer, "."):
                    return

    async def _message(self, reader):
        body = bytearray(b"\r\n")
        while not body.endswith(b"\r\n.\r\n"):
            piece = await reader.read(1 << 16)
            if not piece:
                raise asyncio.IncompleteReadError(b"", None)
            body += piece
        self.messages.append(bytes(body[2:-3]))

    def _next(self, verb):
        answer = self.answers.get(verb, b"502 what?\r\n")
        if isinstance(answer, list):
            return answer.pop(0) if len(answer) > 1 else answer[0]
        return answer

    async def _say(self, writer, verb, answer=None):
        if answer is None:
            answer = self._next(verb)
        if answer is HANG:
            await asyncio.Event().wait()
        if answer is RESET:
            writer.transport.abort()
            return False
        if answer is CLOSE:
            return False
        closing = isinstance(answer, tuple)
        writer.write(answer[0] if closing else answer)
        await writer.drain()
        return not closing


def settings(**changes):
    given = {"timeoutconnect": 2, "timeoutremote": 2}
    return defaults(b"mail.example.test", **given | changes)


def to(*peers_or_hosts, port=None, transport="smtp"):
    """Routes that lead everything to these peers, in order."""
    hosts = tuple(b"[%s]" % each.host.encode() for each in peers_or_hosts)
    return {b"": Route(transport, hosts, port or peers_or_hosts[0].port)}


def job(
    body=b"Subject: t\n\nbody\n",
    recipients=(b"r@remote.test",),
    sender=b"s@example.test",
    domain=b"remote.test",
    smtputf8=False,
):
    if isinstance(body, bytes):
        body = BytesBody(body)
    return RemoteJob(1, MessageId(1, b"k" * 24), sender, domain, tuple(recipients), body, smtputf8)


class Nowhere:
    """A resolver that must not be asked."""

    async def mx(self, domain):
        raise AssertionError(f"asked for the MX of {domain}")

    async def addresses(self, host):
        raise AssertionError(f"asked for the addresses of {host}")


@contextlib.asynccontextmanager
async def remote(given, **more):
    log = MemoryLog()
    more.setdefault("resolver", Nowhere())
    made = Remote(given, log, transports={"smtp": SmtpTransport, "lmtp": LmtpTransport}.__getitem__, **more)
    made.log = log
    try:
        yield made
    finally:
        await made.close()
    known = Warn | RemoteTls | RemoteTlsFailed | RemoteLogin
    assert all(isinstance(event, known) for event in log.events), log.lines()
