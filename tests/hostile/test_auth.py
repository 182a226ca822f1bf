"""What strangers do with AUTH, against a running service: each ends as it should, and it goes on serving."""

import base64
import os
import random
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress

import pytest

from homes import Home, Place, Waiting, command

PASSWORD = "the right one"
RIGHT = base64.b64encode(b"\0alice\0" + PASSWORD.encode())
WRONG = base64.b64encode(b"\0alice\0guess")


@pytest.fixture(scope="module")
def served() -> Iterator[Home]:
    """Without TLS, so that what is sent is what arrives."""
    with Place() as place:
        home = place.home("a.example", "alice")
        home.control("listen", f"submission 127.0.0.1:{home.port}")
        home.control("rules", "127.:allow")
        home.control("authplain", "1")
        home.control("authfailures", "0")
        said = [*command(), "--home", str(home.path), "user", "add", "alice"]
        subprocess.run(said, input=PASSWORD + "\n", text=True, check=True, capture_output=True, timeout=60)
        home.start()
        yield home
        assert home.stop() == 0
        assert PASSWORD not in home.log.read_text()
        assert "Traceback" not in home.log.read_text()


def talk(home: Home, sent: bytes) -> bytes:
    """All that is said to this, until we hang up; who does not QUIT ends its half."""
    with socket.create_connection(("127.0.0.1", home.port), 60) as client:
        client.sendall(b"EHLO c.example\r\n" + sent)
        if b"QUIT" not in sent:
            client.shutdown(socket.SHUT_WR)
        said = b""
        with suppress(ConnectionError):
            while got := client.recv(65536):
                said += got
    return said


def codes(said: bytes) -> list[bytes]:
    """Of the replies behind EHLO's."""
    lines = said.split(b"250 HELP\r\n", 1)[1].splitlines()
    return [line[:3] for line in lines if line[3:4] != b"-"]


@pytest.mark.parametrize(
    ("sent", "answers"),
    [
        (b"AUTH LOGIN\r\n*\r\nAUTH PLAIN " + RIGHT + b"\r\nQUIT\r\n", [b"334", b"501", b"235", b"221"]),
        (b"AUTH PLAIN " + RIGHT + b"\r\nAUTH PLAIN " + RIGHT + b"\r\nQUIT\r\n", [b"235", b"503", b"221"]),
        (b"AUTH PLAIN " + WRONG + b"\r\nMAIL FROM:<x@a.example>\r\nQUIT\r\n", [b"535", b"530", b"221"]),
        (b"AUTH LOGIN\r\nMAIL FROM:<x@a.example>\r\nQUIT\r\n", [b"334", b"501", b"221"]),
        (b"AUTH PLAIN \r\n*\r\nQUIT\r\n", [b"334", b"501", b"221"]),
        (b"AUTH LOGIN\r\n=\r\nQUIT\r\n", [b"334", b"501", b"221"]),
        (b"AUTH SCRAM-SHA-256\r\nbixh\r\nQUIT\r\n", [b"334", b"501", b"221"]),
        (b"AUTH PLAIN\n" + RIGHT + b"\r\nQUIT\r\n", [b"500"]),
        (b"AUTH PLAIN " + RIGHT + b"\nQUIT\r\n", [b"500"]),
        (b"AUTH LOGIN\r\nYWxp\rY2U=\r\nQUIT\r\n", [b"334", b"500"]),
        (b"AUTH PLAIN " + b"A" * 12_289 + b"\r\nQUIT\r\n", [b"500"]),
        (b"AUTH LOGIN\r\n" + b"A" * 12_289 + b"\r\nQUIT\r\n", [b"334", b"500"]),
        (b"AUTH PLAIN " + RIGHT, []),
    ],
)
def test_each_is_answered_as_it_should_be(served: Home, sent: bytes, answers: list[bytes]) -> None:
    assert codes(talk(served, sent)) == answers
    assert codes(talk(served, b"AUTH PLAIN " + RIGHT + b"\r\nQUIT\r\n")) == [b"235", b"221"]


def test_a_downgrade_to_no_binding_where_none_is_there_is_no_downgrade(served: Home) -> None:
    """`n`: the client cannot bind; `p=` is not served without -PLUS; `y` is right, as none was shown."""
    for flag, code in ((b"n", b"334"), (b"y", b"334"), (b"p=tls-unique", b"501")):
        first = base64.b64encode(flag + b",,n=alice,r=nonce")
        assert codes(talk(served, b"AUTH SCRAM-SHA-256 " + first + b"\r\n*\r\nQUIT\r\n"))[0] == code


def test_garbage_of_any_kind_never_breaks_it(served: Home) -> None:
    draw = random.Random(8)
    mechanisms = (b"PLAIN", b"LOGIN", b"SCRAM-SHA-256", b"SCRAM-SHA-256-PLUS", b"CRAM-MD5", b"XOAUTH2", b"")
    for _ in range(60):
        lines = [b"AUTH " + draw.choice(mechanisms)]
        for _ in range(draw.randrange(4)):
            noise = draw.randbytes(draw.randrange(200))
            lines.append(draw.choice((base64.b64encode(noise), noise.translate(None, b"\r\n"))))
        joined = draw.choice((b"\r\n", b" ")).join(lines)
        assert talk(served, joined + b"\r\n*\r\nQUIT\r\n").startswith(b"220 ")
    assert codes(talk(served, b"AUTH PLAIN " + RIGHT + b"\r\nQUIT\r\n")) == [b"235", b"221"]


@pytest.mark.parametrize("begin", [b"AUTH LOGIN\r\n", b"AUTH PLAIN "])
def test_a_line_without_end_ends_the_session_and_nothing_else(served: Home, begin: bytes) -> None:
    with suppress(OSError):
        talk(served, begin + b"A" * 1_000_000)
    assert codes(talk(served, b"AUTH PLAIN " + RIGHT + b"\r\nQUIT\r\n")) == [b"235", b"221"]


@pytest.mark.parametrize(
    ("mechanism", "login"),
    [
        (b"PLAIN", b"x>, wrong: client 192.0.2.1:1\r\nauth: accepted <root"),
        (b"LOGIN", b"x>\nnew msg 1"),
        (b"LOGIN", b"\x1b]2;x\x07\xc2\x85"),
        (b"SCRAM-SHA-256", b"x>\nnew msg 1"),
    ],
)
def test_a_login_writes_nothing_into_the_log_but_itself(served: Home, mechanism: bytes, login: bytes) -> None:
    said = {
        b"PLAIN": [b"AUTH PLAIN " + base64.b64encode(b"\0" + login + b"\0guess")],
        b"LOGIN": [b"AUTH LOGIN", base64.b64encode(login), base64.b64encode(b"guess")],
        b"SCRAM-SHA-256": [
            b"AUTH SCRAM-SHA-256 " + base64.b64encode(b"n,,n=" + login + b",r=nonce"),
            base64.b64encode(b"c=biws,r=nonce,p=" + base64.b64encode(bytes(32))),
        ],
    }[mechanism]
    before = served.log.stat().st_size
    answers = codes(talk(served, b"\r\n".join(said) + b"\r\nQUIT\r\n"))
    assert b"235" not in answers
    for _ in Waiting("the session is over"):
        log = served.log.read_bytes()[before:]
        if b"session quit" in log:
            break
    assert b"auth: accepted <root" not in log and b"\nnew msg" not in log
    assert all(0x20 <= code < 0x7F or code == 0x0A for code in log)
    told = re.compile(
        rb"[^ ]+ auth: refused <[^ ]*>, [a-z]+: client 127\.0\.0\.1:[0-9]+ service submission .*"
    )
    assert all(told.fullmatch(line) for line in log.splitlines() if b"auth: refused" in line)


def test_those_who_hang_up_in_the_midst_of_it_leave_room_for_others(served: Home) -> None:
    for _ in range(120):
        with socket.create_connection(("127.0.0.1", served.port), 60) as client:
            client.sendall(b"EHLO c.example\r\nAUTH LOGIN\r\n")
            while b"334" not in client.recv(4096):
                pass
    for _ in Waiting("there is room"):
        if codes(talk(served, b"AUTH PLAIN " + RIGHT + b"\r\nQUIT\r\n")) == [b"235", b"221"]:
            break


def test_a_gate_that_is_killed_puts_logins_off_and_the_next_one_lets_in(served: Home) -> None:
    [gate] = [one["pid"] for one in served.status()["processes"] if one["name"] == "gate"]
    os.kill(gate, signal.SIGKILL)
    answer = codes(talk(served, b"AUTH PLAIN " + RIGHT + b"\r\nQUIT\r\n"))
    assert answer[0] in (b"454", b"235")
    for _ in Waiting("a new gate lets in"):
        if codes(talk(served, b"AUTH PLAIN " + RIGHT + b"\r\nQUIT\r\n")) == [b"235", b"221"]:
            break
