"""What strangers send where TLS is spoken, and TLS where it is not: nothing of it is obeyed, the next client
is served, and the processes live on."""

import contextlib
import socket
import ssl
from collections.abc import Iterator

import pytest

from homes import Home, Place, Waiting, free_port

HELLO = b"EHLO c.example\r\n"
MAIL = b"MAIL FROM:<evil@c.example>\r\nRCPT TO:<alice@a.example>\r\nDATA\r\nSubject: evil\r\n\r\nx\r\n.\r\n"


class Served:
    def __init__(self, home: Home, implicit: int) -> None:
        self.home, self.implicit = home, implicit
        self.pids = self.processes()

    def processes(self) -> dict[str, int]:
        """Those of the service; workers come and go."""
        return {one["name"]: one["pid"] for one in self.home.status()["processes"] if one["name"] != "worker"}

    def connect(self, port: int) -> socket.socket:
        return socket.create_connection(("127.0.0.1", port), 20)

    def assert_well(self) -> None:
        """Both ports serve, by the same processes, and nothing evil has come in."""
        with self.connect(self.home.port) as peer:
            assert greeted(peer, HELLO).count(b"STARTTLS") == 1
            assert say(peer, b"STARTTLS\r\n")[:3] == b"220"
            with context().wrap_socket(peer) as secured:
                assert b"250 " in say(secured, HELLO)
        with context().wrap_socket(self.connect(self.implicit)) as secured:
            assert b"250 " in greeted(secured, HELLO)
        assert self.processes() == self.pids
        assert not self.home.mails("alice")


def context() -> ssl.SSLContext:
    """That of a client who believes anybody."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    return made


def say(peer: socket.socket, line: bytes) -> bytes:
    """The whole reply."""
    peer.sendall(line)
    said = b""
    while not said.endswith(b"\r\n") or said.splitlines()[-1][3:4] == b"-":
        data = peer.recv(65536)
        if not data:
            return said
        said += data
    return said


def greeted(peer: socket.socket, line: bytes) -> bytes:
    say(peer, b"")
    return say(peer, line)


def everything(peer: socket.socket) -> bytes:
    said = b""
    with contextlib.suppress(ConnectionResetError):
        while data := peer.recv(65536):
            said += data
    return said


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Place() as place:
        implicit = free_port()
        home = place.home("a.example", "alice")
        home.control("listen", f"smtp 127.0.0.1:{home.port}\nsmtps 127.0.0.1:{implicit}")
        home.control("timeoutsmtpd", "2")
        home.start()
        yield Served(home, implicit)
        assert home.stop() == 0


def hello_of_tls() -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    peer = context().wrap_bio(incoming, outgoing)
    with contextlib.suppress(ssl.SSLWantReadError):
        peer.do_handshake()
    return outgoing.read()


NOT_TLS = {
    "nothing": b"",
    "smtp": HELLO + MAIL,
    "http": b"POST / HTTP/1.1\r\nHost: a.example\r\n\r\n" + HELLO + MAIL,
    "zeros": bytes(70_000),
    "a record that never ends": b"\x16\x03\x01\x40\x00" + b"\x01\x00\x3f\xfc" + bytes(100),
    "a record of no length": b"\x16\x03\x01\x00\x00" * 1000,
    "a hello of 16 MiB": b"\x16\x03\x01\x40\x00\x01\xff\xff\xff"
    + bytes(16_380)
    + (b"\x16\x03\x01\x40\x00" + bytes(16_384)) * 20,
    "an alert": b"\x15\x03\x01\x00\x02\x02\x28",
    "half of a hello": hello_of_tls()[:100],
    "old ssl": b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + bytes(40),
}


@pytest.mark.parametrize("name", NOT_TLS)
@pytest.mark.parametrize("way", ["starttls", "implicit"])
def test_what_is_no_handshake_is_no_session(served: Served, name: str, way: str) -> None:
    with served.connect(served.implicit if way == "implicit" else served.home.port) as peer:
        if way == "starttls":
            greeted(peer, HELLO)
            assert say(peer, b"STARTTLS\r\n")[:3] == b"220"
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            peer.sendall(NOT_TLS[name])
        said = everything(peer)
        assert not said or said[:1] == b"\x15"  # an alert of TLS
    served.assert_well()


@pytest.mark.parametrize(
    "ahead", [HELLO + MAIL, MAIL, b"RSET\r\n" * 1000, b"QUIT\r\n", b"NOOP", b"\x00\r\n", b"x" * 5000]
)
def test_what_is_sent_in_plaintext_behind_starttls_is_not_obeyed(served: Served, ahead: bytes) -> None:
    with served.connect(served.home.port) as peer:
        greeted(peer, HELLO)
        assert say(peer, b"STARTTLS\r\n" + ahead) == b"220 2.0.0 ready to start TLS\r\n"
        with context().wrap_socket(peer) as secured:
            assert say(secured, b"NOOP\r\n") == b"250 2.0.0 ok\r\n"  # nothing was answered before
            assert say(secured, b"MAIL FROM:<x@c.example>\r\n")[:3] == b"503"  # nor is EHLO remembered
    served.assert_well()


def test_what_comes_in_plaintext_while_the_handshake_is_awaited_ends_it(served: Served) -> None:
    with served.connect(served.home.port) as peer:
        greeted(peer, HELLO)
        assert say(peer, b"STARTTLS\r\n")[:3] == b"220"
        peer.sendall(HELLO + MAIL)
        assert everything(peer)[:1] in (b"", b"\x15")
    served.assert_well()


def test_plaintext_in_the_midst_of_tls_ends_the_session(served: Served) -> None:
    with served.connect(served.home.port) as peer:
        greeted(peer, HELLO)
        say(peer, b"STARTTLS\r\n")
        secured = context().wrap_socket(peer)
        raw = socket.socket(fileno=secured.detach())
        with raw:
            raw.settimeout(20)
            raw.sendall(HELLO + MAIL)
            assert b"250" not in everything(raw)
    served.assert_well()


@pytest.mark.parametrize("begun", [b"", HELLO])
def test_a_tls_handshake_where_smtp_is_spoken_is_told_at_once(served: Served, begun: bytes) -> None:
    with served.connect(served.home.port) as peer:
        greeted(peer, begun or b"NOOP\r\n")
        peer.sendall(hello_of_tls())
        assert everything(peer)[:4] == b"500 "
    served.assert_well()


@pytest.mark.parametrize("verb", [b"GET", b"POST", b"put", b"CONNECT", b"OPTIONS"])
def test_a_browser_that_was_sent_here_hands_nothing_in(served: Served, verb: bytes) -> None:
    """ALPACA and older: the body of a request is commands of SMTP."""
    request = verb + b" / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 500\r\n\r\n" + HELLO + MAIL
    with served.connect(served.home.port) as peer:
        peer.sendall(request)
        assert [line[:4] for line in everything(peer).splitlines()] == [b"220 ", b"500 "]
    asked = context()
    asked.set_alpn_protocols(["http/1.1"])
    with asked.wrap_socket(served.connect(served.implicit)) as secured:
        secured.sendall(request)
        assert [line[:4] for line in everything(secured).splitlines()] == [b"220 ", b"500 "]
    served.assert_well()


ENVELOPE = [part + b"\r\n" for part in MAIL.split(b"\r\n")[:2]]
HALF = {
    "behind DATA": [*ENVELOPE, b"DATA\r\n", b"Subject: half\r\n\r\n"],
    "in a chunk": [*ENVELOPE, b"BDAT 100\r\nSubject: half\r\n\r\n"],
    "in the last chunk": [*ENVELOPE, b"BDAT 100 LAST\r\nSubject: half\r\n\r\n"],
    "between chunks": [*ENVELOPE, b"BDAT 17\r\nSubject: half\r\n\r\n", b""],
}


@pytest.mark.parametrize("where", HALF)
@pytest.mark.parametrize("end", ["close_notify", "the connection alone"])
def test_a_message_that_tls_ends_in_the_midst_of_is_nobodys(served: Served, where: str, end: str) -> None:
    *lines, half = HALF[where]
    with served.connect(served.home.port) as peer:
        greeted(peer, HELLO)
        say(peer, b"STARTTLS\r\n")
        with context().wrap_socket(peer) as secured:
            for line in (HELLO, *lines):
                assert say(secured, line)[:1] in (b"2", b"3")
            secured.sendall(half)
            with contextlib.suppress(OSError):
                secured.unwrap() if end == "close_notify" else secured.shutdown(socket.SHUT_RDWR)
    served.assert_well()


def test_many_stalled_handshakes_keep_nobody_from_mail(served: Served) -> None:
    stalled = []
    with contextlib.ExitStack() as stack:
        for _ in range(110):
            peer = stack.enter_context(served.connect(served.home.port))
            greeted(peer, HELLO)
            stalled.append(say(peer, b"STARTTLS\r\n")[:3])
        assert set(stalled) == {b"220", b"454"}
        with served.connect(served.home.port) as peer:
            assert b"250 " in greeted(peer, HELLO)
            assert say(peer, b"MAIL FROM:<s@c.example>\r\n")[:3] == b"250"
    for _ in Waiting("the stalled ones have gone"):
        with served.connect(served.home.port) as peer:
            greeted(peer, HELLO)
            if say(peer, b"STARTTLS\r\n")[:3] == b"220":
                break
    served.assert_well()
