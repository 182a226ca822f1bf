"""The log of a real service, as a file, a pipe and a socket get it, in both forms."""

import json
import os
import re
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from homes import Home, Waiting
from matchup import Matchup
from openqmail.core.tls import self_signed
from smtp_talks import taken_and_refused

STAMP = rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


@contextmanager
def onto(home: Home, kind: str) -> Iterator[None]:
    """A service whose log goes to a file, a pipe, or a stream socket as journald has it; all of it is in
    the home's log when this is left."""
    if kind == "file":
        home.start()
        yield
        assert home.stop() == 0
        return
    if kind == "pipe":
        reading, writing = os.pipe()
    else:
        reading, writing = (one.detach() for one in socket.socketpair())

    def copy() -> None:
        with home.log.open("ab", buffering=0) as log:
            while data := os.read(reading, 65536):
                log.write(data)

    home.log.touch()
    reader = threading.Thread(target=copy)
    reader.start()
    home.spawn(onto=writing)
    os.close(writing)
    home.wait_serving()
    yield
    assert home.stop() == 0
    reader.join()
    os.close(reading)


def traffic(home: Home) -> int:
    """A message for alice, whose number is returned; one for nobody, who is refused; one by sendmail."""
    number = taken_and_refused(home)
    home.wait_mails("alice", 1)
    return number


@pytest.fixture(params=["file", "pipe", "socket"])
def kind(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def wait_ended(home: Home, number: int, said: Callable[[bytes], bool]) -> None:
    for _ in Waiting(f"message {number} has ended"):
        if any(said(line) for line in home.log.read_bytes().splitlines()):
            return


@pytest.fixture
def strict(home: Home) -> Home:
    home.control("rules", ":allow")
    return home


def test_qmails_form(strict: Home, kind: str) -> None:
    with onto(strict, kind):
        number = traffic(strict)
        wait_ended(strict, number, lambda line: line.endswith(b"end msg %d" % number))
    lines = strict.log.read_bytes().splitlines()
    if kind == "file":
        assert all(re.match(STAMP + rb" \S", line) for line in lines)
        lines = [line.split(b" ", 1)[1] for line in lines]
    assert not any(re.search(STAMP, line) for line in lines), "a logger adds the time"
    assert all(0x20 <= code < 0x7F for line in lines for code in line)
    found = [line for line in lines if re.search(rb"\bmsg %d\b" % number, line)]
    assert {line.split()[0] for line in found} == {b"smtpd:", b"new", b"info", b"starting", b"end"}
    [accepted] = [line for line in found if line.startswith(b"smtpd: ")]
    assert re.fullmatch(
        rb"smtpd: accepted msg %d: client 127\.0\.0\.1:\d+ helo client\.example "
        rb"from <s@c\.example> recipients 1" % number,
        accepted,
    )
    assert (
        sum(line.startswith(b"smtpd: refused rcpt <x@elsewhere.example>: code 553 ") for line in lines) == 1
    )
    [session] = [line for line in lines if line.startswith(b"smtpd: session quit: ")]
    assert b" messages 1 recipients 1 refused 1 " in session
    reader = Matchup()
    for at, line in enumerate(lines):
        reader.feed(b"%d %b" % (at, line))
    assert len(reader.results()) == 2
    assert all(b"<s@c.example>" in line for line in reader.results())


def objects(lines: list[bytes]) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in lines]
    for line, one in zip(lines, found, strict=True):
        assert line.decode().isprintable()
        assert re.fullmatch(STAMP.decode(), one["time"]) and one["event"]
    return found


def test_json(strict: Home, kind: str) -> None:
    strict.control("logformat", "json")
    with onto(strict, kind):
        number = traffic(strict)
        wait_ended(strict, number, lambda line: b'"event":"end"' in line)
    found = objects(strict.log.read_bytes().splitlines())
    assert {one["event"] for one in found if one.get("msg") == number} == {
        "smtpd_accepted", "new", "info", "starting", "delivery", "end",
    }  # fmt: skip
    [refused] = [one for one in found if one["event"] == "smtpd_refused"]
    assert (refused["command"], refused["argument"], refused["code"]) == ("rcpt", "x@elsewhere.example", 553)
    [session] = [one for one in found if one["event"] == "smtpd_session"]
    assert (session["end"], session["messages"], session["refused"]) == ("quit", 1, 1)
    assert "serving" in next(one["text"] for one in found if one["event"] == "notice")
    assert found[-1]["event"] == "exiting"


def test_hup_changes_the_form_of_every_process(strict: Home) -> None:
    strict.start()
    strict.control("logformat", "json")
    strict.signal(signal.SIGHUP)
    for _ in Waiting("the new settings are taken"):
        if b'"text":"took the new settings"' in strict.log.read_bytes():
            break
    before = strict.log.stat().st_size
    number = traffic(strict)
    wait_ended(strict, number, lambda line: b'"event":"end"' in line)
    assert strict.stop() == 0
    found = objects(strict.log.read_bytes()[before:].splitlines())
    assert {"smtpd_accepted", "smtpd_session", "delivery", "exiting"} <= {one["event"] for one in found}


def hello_that_asks_for(name: bytes) -> bytes:
    """What a TLS client says first."""
    context = ssl.create_default_context()
    outgoing, stand_in = ssl.MemoryBIO(), b"x" * len(name)
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=stand_in.decode()).do_handshake()
    said = outgoing.read()
    assert said.count(stand_in) == 1
    return said.replace(stand_in, name)


def test_a_name_that_a_tls_client_asks_for_comes_into_no_line(strict: Home) -> None:
    strict.control("logformat", "json")
    strict.control("servercert.pem", self_signed("a.example", time.time(), (), 30).decode())
    strict.start()
    for _ in range(3):
        with (
            socket.create_connection(("127.0.0.1", strict.port), 20) as client,
            client.makefile("rb") as said,
        ):
            client.sendall(b"EHLO c.example\r\nSTARTTLS\r\n")
            while not (line := said.readline()).startswith(b"220 2.0.0 "):
                assert line[:1] == b"2", line
            client.sendall(hello_that_asks_for(b"\xff\xfe\nalert: forged"))
            while said.read(100):
                pass
    assert strict.stop() == 0
    found = objects(strict.log.read_bytes().splitlines())
    assert b"forged" not in strict.log.read_bytes()
    assert sum(one["event"] == "smtpd_tls_failed" for one in found) == 3
    assert not [one for one in found if one["event"] == "alert"]


def test_a_form_that_is_none_is_refused_with_the_remedy(home: Home) -> None:
    home.control("logformat", "xml")
    refused = home.run("run", check=False)
    assert refused.returncode == 100
    assert "control/logformat, line 1: 'xml' is no form of the log; write qmail or json" in refused.stderr
