"""An SMTP server of the tests' own, which does with each recipient what its domain says.

`sink.example` takes everything, `later.example` puts off at RCPT unless it is told to be kind, by
chance now and then all the same; `bad.example` refuses.  What was answered with 250 is in `taken`.
It is this simple on purpose, and shares nothing with the code that is tested.
"""

import contextlib
import random
import re
import socketserver
import threading
from types import TracebackType

TAKES, PUTS_OFF, REFUSES = "sink.example", "later.example", "bad.example"
_ADDRESS = re.compile(rb"<([^>]*)>")


class Sink:
    """Listens on a loopback port that the kernel chooses; `taken`: (recipient, message with LF).

    `kindness`: how often later.example takes a recipient, from 0 to 1; `patience`: whether it puts
    off the others, or refuses them for good."""

    def __init__(self, kindness: float = 0.0, seed: int = 0) -> None:
        self.kindness = kindness
        self.patience = True
        self.taken: list[tuple[str, bytes]] = []
        self.transactions = 0
        self._dice = random.Random(seed)
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Session)
        self._server.sink = self
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def routes(self) -> str:
        """The lines of control/smtproutes that lead here."""
        return "\n".join(f"{domain}:[127.0.0.1]:{self.port}" for domain in (TAKES, PUTS_OFF, REFUSES))

    def reply_to(self, recipient: str) -> bytes:
        domain = recipient.rpartition("@")[2]
        if domain == REFUSES:
            return b"550 5.1.1 nobody of that name\r\n"
        with self._lock:
            if domain == PUTS_OFF and self._dice.random() >= self.kindness:
                return b"451 4.3.0 not now\r\n" if self.patience else b"550 5.1.1 never\r\n"
        return b"250 2.1.5 ok\r\n"

    def take(self, recipients: list[str], message: bytes) -> None:
        with self._lock:
            self.transactions += 1
            self.taken += [(recipient, message) for recipient in recipients]

    def of(self, recipient: str) -> list[bytes]:
        """All that one recipient got."""
        with self._lock:
            return [message for address, message in self.taken if address == recipient]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> "Sink":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128
    sink: Sink


class _Session(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(OSError):
            self._converse()

    def _converse(self) -> None:
        assert isinstance(self.server, _Server)
        sink, recipients = self.server.sink, list[str]()
        self._say(b"220 sink.example ESMTP\r\n")
        while line := self.rfile.readline(4096):
            verb = line[:4].upper().rstrip()
            if verb == b"EHLO":
                self._say(b"250-sink.example\r\n250-PIPELINING\r\n250 8BITMIME\r\n")
            elif verb == b"MAIL":
                recipients.clear()
                self._say(b"250 2.1.0 ok\r\n")
            elif verb == b"RCPT":
                found = _ADDRESS.search(line)
                recipient = found[1].decode("ascii", "replace") if found else ""
                reply = sink.reply_to(recipient)
                if reply[:1] == b"2":
                    recipients.append(recipient)
                self._say(reply)
            elif verb == b"DATA" and recipients:
                self._say(b"354 go on\r\n")
                if (message := self._message()) is None:
                    return
                sink.take(recipients, message)
                self._say(b"250 2.0.0 taken\r\n")
            elif verb == b"DATA":
                self._say(b"554 5.5.1 no recipients\r\n")
            elif verb == b"QUIT":
                self._say(b"221 2.0.0 bye\r\n")
                return
            else:
                self._say(b"250 2.0.0 ok\r\n")

    def _message(self) -> bytes | None:
        """Up to the final dot; None when the client has gone before it."""
        lines: list[bytes] = []
        while line := self.rfile.readline():
            if line == b".\r\n":
                return b"".join(lines).replace(b"\r\n", b"\n")
            lines.append(line[1:] if line.startswith(b".") else line)
        return None

    def _say(self, reply: bytes) -> None:
        self.wfile.write(reply)
