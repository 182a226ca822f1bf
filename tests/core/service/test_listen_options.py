"""Options of control/listen come and go with a reload and outlive an upgrade; the socket stays."""

import os
import signal
import socket
import threading
from collections.abc import Iterator

import pytest

from homes import Home, Place, Waiting
from system_homes import system_home

LINE = b"PROXY TCP4 192.0.2.9 198.51.100.1 4711 25\r\n"


@pytest.fixture
def home() -> Iterator[Home]:
    """Its first process can read the program that it runs, for the upgrade: root's own, for root."""
    if os.getuid() == 0:
        with system_home("alice") as made:
            yield made
    else:
        with Place() as place:
            yield place.home("a.example", "alice")


def first_word(home: Home, said: bytes) -> bytes:
    """Of what is answered to `said`; empty when the service hangs up."""
    with socket.create_connection(("127.0.0.1", home.port), 10) as peer:
        peer.settimeout(10)
        try:
            peer.sendall(said)
            return peer.makefile("rb").readline()[:3]
        except ConnectionError:
            return b""


def test_options_are_taken_without_losing_a_connection(home: Home) -> None:
    home.control("rules", "192.0.2.9:deny\n127.:allow")
    home.start()
    refused = threading.Event()
    over = threading.Event()

    def knock() -> None:
        while not over.is_set():
            with socket.socket() as peer:
                if peer.connect_ex(("127.0.0.1", home.port)):
                    refused.set()

    knocking = threading.Thread(target=knock)
    knocking.start()
    try:
        assert first_word(home, b"") == b"220"
        home.control("listen", f"smtp 127.0.0.1:{home.port} proxy=127.0.0.1")
        home.signal(signal.SIGHUP)
        for _ in Waiting("the header is read"):
            if first_word(home, LINE) == b"554":
                break
        assert home.run("upgrade").returncode == 0
        assert first_word(home, LINE) == b"554"
        assert first_word(home, b"QUIT\r\n") == b""
        home.control("listen", f"smtp 127.0.0.1:{home.port}")
        home.signal(signal.SIGHUP)
        for _ in Waiting("the header is no more"):
            if first_word(home, b"") == b"220":
                break
    finally:
        over.set()
        knocking.join()
    assert not refused.is_set()
    assert home.stop() == 0
