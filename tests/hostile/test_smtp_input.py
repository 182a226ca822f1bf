"""What strangers send to a running service: each is answered clearly, and the next client is served."""

import contextlib
import socket
from collections.abc import Iterator

import pytest

from homes import Home, Place, Waiting

HELLO = b"EHLO c.example\r\n"
ENVELOPE = HELLO + b"MAIL FROM:<s@c.example>\r\nRCPT TO:<alice@a.example>\r\n"
DATA = ENVELOPE + b"DATA\r\n"


@pytest.fixture(scope="module")
def served() -> Iterator[Home]:
    """A service whose limits are small enough to be met."""
    with Place() as place:
        home = place.home("a.example", "alice", "bob")
        home.control("databytes", "100000")
        home.control("maxrecipients", "100")
        home.control("timeoutsmtpd", "2")
        home.start()
        yield home
        assert home.stop() == 0


def connect(home: Home) -> socket.socket:
    return socket.create_connection(("127.0.0.1", home.port), 10)


def everything(peer: socket.socket) -> bytes:
    """All that the server says until it hangs up."""
    said = b""
    peer.settimeout(20)
    while True:
        try:
            data = peer.recv(65536)
        except ConnectionResetError:
            return said
        if not data:
            return said
        said += data


def talk(home: Home, data: bytes, end: bytes = b"QUIT\r\n") -> list[bytes]:
    """Send it all at once, then QUIT; the lines that came back, without the greeting and EHLO's."""
    with connect(home) as peer:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            peer.sendall(data + end)
        lines = everything(peer).splitlines()
    return [line for line in lines[1:] if line[3:4] == b" "]


def codes(home: Home, data: bytes, end: bytes = b"QUIT\r\n") -> list[int]:
    return [int(line[:3]) for line in talk(home, data, end)]


def assert_well(home: Home) -> None:
    """The service still takes a message and delivers it."""
    before = len(home.mails("bob"))
    message = b"RSET\r\nMAIL FROM:<>\r\nRCPT TO:<bob@a.example>\r\nDATA\r\nstill well\r\n.\r\n"
    assert 250 in codes(home, HELLO + message)
    assert b"still well\n" in home.wait_mails("bob", before + 1)[-1]


def test_a_command_line_without_end_is_refused(served: Home) -> None:
    assert codes(served, HELLO + b"NOOP " + b"x" * 100_000 + b"\r\n", end=b"")[-1] == 500
    assert_well(served)


@pytest.mark.parametrize("line", [b"FOO", b"", b"MAIL", b"\xff\xfe", b"STARTTLS", b"AUTH PLAIN AA"])
def test_an_unknown_command_is_refused_and_the_session_goes_on(served: Home, line: bytes) -> None:
    first, *_, last = codes(served, line + b"\r\n")
    assert 500 <= first < 600 and last == 221


def test_pipelined_junk_ends_the_session(served: Home) -> None:
    answers = codes(served, b"junk\r\n" * 1000, end=b"")
    assert answers[-1] == 421 and len(answers) < 50
    assert_well(served)


@pytest.mark.parametrize("data", [b"NO\0OP\r\n", ENVELOPE.replace(b"s@c", b"s\0@c")])
def test_a_nul_in_a_command_ends_the_session(served: Home, data: bytes) -> None:
    answers = codes(served, data + b"NOOP\r\n")
    assert answers[-1] in (500, 501)


@pytest.mark.parametrize("body", [b"a\0b\r\n.\r\n", b"\0\r\n.\r\n", b"Subject: \0\r\n\r\nx\r\n.\r\n"])
def test_a_nul_in_a_message_is_refused(served: Home, body: bytes) -> None:
    before = len(served.mails("alice"))
    assert codes(served, DATA + body)[-1] // 100 == 5
    assert len(served.mails("alice")) == before


BARE = {
    "LF for CRLF in the header": b"Subject: x\n\r\nx\r\n.\r\n",
    "LF for CRLF in the body": b"Subject: x\r\n\r\none\ntwo\r\n.\r\n",
    "CR in the header": b"Subject: x\ry\r\n\r\nx\r\n.\r\n",
    "CR in the body": b"x\ry\r\n.\r\n",
    "CR before CRLF": b"x\r\r\n.\r\n",
    "LF after CRLF": b"x\r\n\n.\r\n",
    "LF dot LF": b"x\n.\nMAIL FROM:<evil@c.example>\r\n",
    "LF dot CRLF": b"x\n.\r\nMAIL FROM:<evil@c.example>\r\n",
    "CR dot CR": b"x\r.\rMAIL FROM:<evil@c.example>\r\n",
    "CRLF dot LF": b"x\r\n.\nMAIL FROM:<evil@c.example>\r\n",
    "CRLF dot CR": b"x\r\n.\rMAIL FROM:<evil@c.example>\r\n",
    "dot LF at the very start": b".\nMAIL FROM:<evil@c.example>\r\n",
    "CR as the first octet": b"\rx\r\n.\r\n",
    "LF as the first octet": b"\nx\r\n.\r\n",
}


@pytest.mark.parametrize("name", BARE)
def test_a_bare_cr_or_lf_in_a_message_ends_the_session(served: Home, name: str) -> None:
    before = len(served.mails("alice"))
    answers = codes(served, DATA + BARE[name])
    assert answers[-1] // 100 == 5 and 221 not in answers
    assert answers.count(250) == 3  # EHLO, MAIL, RCPT: nothing smuggled was answered
    assert len(served.mails("alice")) == before


@pytest.mark.parametrize(
    "line", [b"NOOP\n", b"NOOP\r", b"NO\rOP\r\n", b"MAIL FROM:<a@b.example>\nRCPT TO:<x@y>\r\n"]
)
def test_a_bare_cr_or_lf_in_a_command_ends_the_session(served: Home, line: bytes) -> None:
    assert codes(served, HELLO + line + b"NOOP\r\n")[-1] == 500


def test_a_line_of_998_octets_is_taken_and_one_of_999_refused(served: Home) -> None:
    before = len(served.mails("alice"))
    assert codes(served, DATA + b"x" * 998 + b"\r\n.\r\n")[-2:] == [250, 221]
    assert codes(served, DATA + b"." + b"." * 998 + b"\r\n.\r\n")[-2:] == [250, 221]
    assert codes(served, DATA + b"x" * 999 + b"\r\n.\r\n")[-2:] == [554, 221]
    assert len(served.wait_mails("alice", before + 2)) == before + 2


@pytest.mark.parametrize(
    "address",
    [
        b"alice@a.example",
        b"<alice@a.example",
        b"<alice@>",
        b"<@a.example>",
        b"<al ice@a.example>",
        b"<alice@a..example>",
        b"<alice@-a.example>",
        b"<alice@a.example>junk",
        b"<alice\x80@a.example>",
        b"<.alice@a.example>",
        b'<"alice@a.example>',
        b"<alice@[300.1.1.1]>",
        b"<" + b"x" * 1500 + b"@a.example>",
        b"<>",
    ],
)
def test_an_address_of_the_wrong_form_is_refused(served: Home, address: bytes) -> None:
    answers = codes(served, HELLO + b"MAIL FROM:<>\r\nRCPT TO:" + address + b"\r\n")
    assert answers[2] // 100 == 5 and answers[-1] == 221


def test_recipients_over_the_limit_are_told_to_come_again(served: Home) -> None:
    recipient = b"RCPT TO:<alice@a.example>\r\n"
    assert codes(served, HELLO + b"MAIL FROM:<>\r\n" + recipient * 101)[2:] == [250] * 100 + [452, 221]


def test_a_size_over_the_limit_is_refused_when_announced(served: Home) -> None:
    assert codes(served, HELLO + b"MAIL FROM:<> SIZE=100001\r\n")[1] == 552
    assert codes(served, HELLO + b"MAIL FROM:<> SIZE=100000\r\n")[1] == 250


def test_a_size_over_the_limit_is_refused_when_sent(served: Home) -> None:
    before = len(served.mails("alice"))
    assert codes(served, DATA + b"0123456789\r\n" * 20_000 + b".\r\n")[-2:] == [552, 221]
    assert len(served.mails("alice")) == before
    assert_well(served)


@pytest.mark.parametrize("sent", [b"", HELLO, ENVELOPE, DATA + b"half a mess"])
def test_silence_ends_the_session_with_421(served: Home, sent: bytes) -> None:
    with connect(served) as peer:
        peer.sendall(sent)
        assert everything(peer).splitlines()[-1].startswith(b"421")


@pytest.mark.parametrize("sent", [b"", b"EHLO c.exa", ENVELOPE, DATA + b"half a mess"])
def test_a_half_closed_connection_ends_and_leaves_nothing(served: Home, sent: bytes) -> None:
    before = len(served.mails("alice"))
    with connect(served) as peer:
        peer.sendall(sent)
        peer.shutdown(socket.SHUT_WR)
        everything(peer)
    assert len(served.mails("alice")) == before
    assert_well(served)


def test_a_looping_mail_is_refused(served: Home) -> None:
    loop = b"Received: from a by b\r\n" * 100 + b"\r\nround and round\r\n.\r\n"
    assert codes(served, DATA + loop)[-2:] == [554, 221]


def test_a_thousand_open_connections_that_reset_stop_nothing(served: Home) -> None:
    for _ in range(10):
        peers = [connect(served) for _ in range(100)]
        for peer in peers:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            peer.close()
    assert_well(served)


def test_nothing_of_a_stranger_reaches_the_log_unescaped(served: Home) -> None:
    codes(served, HELLO + b'MAIL FROM:<"new\\ msg 1 %s"@c.example>\r\nRCPT TO:<nobody-here@a.example>\r\n')
    data = b'MAIL FROM:<"x y%z"@c.example>\r\nRCPT TO:<alice@a.example>\r\nDATA\r\nx\r\n.\r\n'
    before = len(served.mails("alice"))
    assert 354 in codes(served, HELLO + data)
    served.wait_mails("alice", before + 1)
    for _ in Waiting("the log has the message"):
        if b"from <x_y_z@c.example>" in (log := served.log.read_bytes()):
            break
    assert b"x y%z" not in log
    assert all(0x20 <= code < 0x7F or code == 0x0A for code in log)
