"""The load of W8: sessions under TLS, a new one for each message, by a process for each connection.

smtp-source speaks no TLS.  A session goes as its sessions do, every command answered before the next:
EHLO, STARTTLS, the handshake, EHLO, AUTH PLAIN where somebody has to log in, MAIL, RCPT, DATA, QUIT.
TLS 1.3 alone, no session is resumed, and nobody looks at whose the certificate is.  The processes are
there and wait before the clock starts; for each message they take a byte out of one pipe.
"""

import base64
import multiprocessing
import os
import resource
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from load import CONNECTIONS, SENDER, SIZE, TIMEOUT, LoadError

LOGIN, PASSWORD = "sender", "correct-horse-battery-staple"

EHLO = b"EHLO client.example\r\n"
PATIENCE = 60
"""Seconds that a session may take."""


class Turn(NamedTuple):
    """What the client says, and the code that it expects."""

    said: bytes
    expected: bytes


class Clients:
    """Clients of one server that are ready to send to one recipient."""

    def __init__(self, host: str, port: int, to: str, login: bool) -> None:
        self._server = f"{host}:{port}"
        command = [sys.executable, __file__, host, str(port), to, *["login"] * login]
        self._process = subprocess.Popen(
            command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"ready\n":
            self._process.kill()
            raise LoadError("the clients that speak TLS did not start")

    def send(self, messages: int) -> float:
        """Returns when so many were taken: the clients' own seconds of CPU.  Raises LoadError."""
        try:
            told, _ = self._process.communicate(b"." * messages, TIMEOUT)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            raise LoadError(f"{self._server} has not taken {messages} messages in {TIMEOUT:.0f} s") from None
        if self._process.returncode:
            raise LoadError(f"a client of {self._server} has failed")
        return float(told)


def context() -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    return made


def connected(host: str, port: int, by: ssl.SSLContext) -> ssl.SSLSocket:
    """A session up to its handshake.  Raises LoadError, OSError."""
    plain = socket.socket()
    try:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # no peer is to wait for an ACK
        plain.connect((host, port))
        hear(plain.recv, b"220")
        for turn in (Turn(EHLO, b"250"), Turn(b"STARTTLS\r\n", b"220")):
            plain.sendall(turn.said)
            hear(plain.recv, turn.expected)
        return by.wrap_socket(plain)
    except BaseException:
        plain.close()
        raise


def hear(receive: Callable[[int], bytes], expected: bytes) -> None:
    """One whole reply.  Raises LoadError for another than the expected."""
    reply = receive(4096)
    while reply[-2:] != b"\r\n" or reply[reply.rfind(b"\n", 0, -1) + 4 :][:1] == b"-":
        more = receive(4096)
        if not more:
            raise LoadError(f"expected {expected!r}, the server hung up behind {reply[-200:]!r}")
        reply += more
    if reply[:3] != expected:
        raise LoadError(f"expected {expected!r}, the server said {reply[:200]!r}")


# --- the processes ------------------------------------------------------------------------


def _turns(to: str, login: bool) -> list[Turn]:
    """What is said under TLS."""
    body = "X" * 78 + "\r\n"
    message = f"From: <{SENDER}>\r\nTo: <{to}>\r\n\r\n{body * (SIZE // len(body))}.\r\n"
    secret = base64.b64encode(f"\0{LOGIN}\0{PASSWORD}".encode())
    return [
        Turn(EHLO, b"250"),
        *[Turn(b"AUTH PLAIN %b\r\n" % secret, b"235")] * login,
        Turn(f"MAIL FROM:<{SENDER}>\r\n".encode(), b"250"),
        Turn(f"RCPT TO:<{to}>\r\n".encode(), b"250"),
        Turn(b"DATA\r\n", b"354"),
        Turn(message.encode(), b"250"),
        Turn(b"QUIT\r\n", b"221"),
    ]


def _send(tickets: int, host: str, port: int, by: ssl.SSLContext, turns: Sequence[Turn]) -> None:
    """A message for each ticket."""
    while os.read(tickets, 1):
        signal.alarm(PATIENCE)  # which ends the process
        with connected(host, port, by) as client:
            for turn in turns:
                client.sendall(turn.said)
                hear(client.recv, turn.expected)
            with suppress(OSError):  # a server that has closed already may do so
                client.unwrap()


def _main(host: str, port: int, to: str, login: bool) -> int:
    tickets = os.dup(0)  # multiprocessing closes its children's standard input
    forking = multiprocessing.get_context("fork")
    told = (tickets, host, port, context(), _turns(to, login))
    clients = [forking.Process(target=_send, args=told) for _ in range(CONNECTIONS)]
    for client in clients:
        client.start()
    print("ready", flush=True)
    for client in clients:
        client.join()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(used.ru_utime + used.ru_stime)
    return int(any(client.exitcode for client in clients))


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1], int(sys.argv[2]), sys.argv[3], "login" in sys.argv[4:]))
