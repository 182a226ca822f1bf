"""Strangers who want to relay, to learn addresses, or to hold a connection: against a running service."""

import asyncio
import contextlib
import importlib.util
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from homes import Home, Place, Waiting

HELLO = b"EHLO c.example\r\nMAIL FROM:<s@c.example>\r\n"
LISTED = "1.0.0.127.bl.test"


def nameserver_class() -> Any:
    file = Path(__file__).parents[1] / "core" / "dns" / "nameserver.py"
    spec = importlib.util.spec_from_file_location("hostile_nameserver", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Nameserver


class Names:
    """A name server with a thread of its own; `records` may be changed at any time."""

    def __init__(self, records: dict[tuple[str, str], Any]) -> None:
        self.records = records
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._started, self._ended = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    async def _serve(self) -> None:
        async with nameserver_class()(self.records, ttl=0) as server:
            self.port = server.port
            self._started.set()
            await self._ended.wait()

    def __enter__(self) -> "Names":
        self._thread.start()
        self._started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(10)
        self._loop.close()


@pytest.fixture(scope="module")
def names() -> Iterator[Names]:
    with Names({("far.test", "A"): ["127.0.0.9"]}) as server:
        yield server


@pytest.fixture(scope="module")
def served(names: Names) -> Iterator[Home]:
    """A service that knows nobody, asks a list and looks names up, all within the walls of smtpd."""
    with Place() as place:
        home = place.home("a.example", "alice")
        home.control("rules", ":allow")
        home.control("resolvers", f"127.0.0.1:{names.port}")
        home.control("dnsbl", "bl.test")
        home.control("lookupclients", "1")
        home.control("percenthack", "a.example")
        home.control("timeoutsmtpd", "2")
        home.control("maxbadrcpt", "6")
        home.start()
        yield home
        assert home.stop() == 0


def connect(home: Home) -> socket.socket:
    return socket.create_connection(("127.0.0.1", home.port), 10)


def talk(home: Home, data: bytes) -> list[bytes]:
    """Send it all at once; the last lines of all replies, until the service hangs up."""
    said = b""
    with connect(home) as peer:
        peer.settimeout(40)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            peer.sendall(data + b"QUIT\r\n")
        with contextlib.suppress(ConnectionResetError):
            while more := peer.recv(65536):
                said += more
    return [line for line in said.splitlines() if line[3:4] == b" "]


RELAYS = [
    b"<victim@far.test>",
    b"<victim@FAR.Test>",
    b"<victim@far.test.>",
    b"<victim%far.test@a.example>",
    b"<victim%far.test%a.example@a.example>",
    b"<victim%far.test@[127.0.0.1]>",
    b'<"victim%far.test"@a.example>',
    b"<@a.example:victim@far.test>",
    b"<@a.example,@b.example:victim@far.test>",
    b"<@a.example:victim%far.test@a.example>",
    b'<"victim@far.test">',
    b'<"victim@far.test"@a.example>',
    b"<far.test!victim@a.example>",
    b"<far.test!victim>",
    b"<a.example!victim@far.test>",
    b"<victim@far.test@a.example>",
    b"<victim@[127.0.0.9]>",
    b"<victim@2130706441>",
    b"<victim@far.test\\@a.example>",
    b"victim@far.test",
]


@pytest.mark.parametrize("recipient", RELAYS)
def test_nobody_relays_through_a_host_that_does_not_know_him(served: Home, recipient: bytes) -> None:
    said = talk(served, HELLO + b"RCPT TO:" + recipient + b"\r\nDATA\r\nx\r\n.\r\n")
    refused = [line for line in said if line[:1] == b"5"]
    assert len(refused) >= 2, said  # RCPT, and DATA without a recipient
    assert b"remote far.test" not in served.log.read_bytes()


def test_guesses_are_put_an_end_to_and_cost_nobody_else_anything(served: Home) -> None:
    with connect(served) as peer:
        peer.settimeout(60)
        guesses = b"".join(b"RCPT TO:<guess%d@a.example>\r\n" % at for at in range(500))
        peer.sendall(HELLO + guesses)
        assert talk(served, HELLO + b"RCPT TO:<alice@a.example>\r\n")[3][:3] == b"250"
        assert (
            talk(served, b"HELO c.example\r\nVRFY alice\r\nVRFY nobody\r\n")[2:4]
            == [b"252 2.5.0 cannot verify, but send some mail and see"] * 2
        )
        said = b""
        with contextlib.suppress(ConnectionResetError):  # it may not have read them all
            while said.count(b"550 ") <= 5 and (more := peer.recv(65536)):
                said += more
        answers = [line[:9] for line in said.splitlines() if line[3:4] == b" "][3:]
        assert answers == [b"550 5.1.1"] * 5 + [b"421 4.7.1"]


def test_who_guesses_on_waits_for_his_answers_and_nobody_else_does() -> None:
    """The fourth refusal comes half a minute later, after what many others have said and heard meanwhile."""
    with Place() as place:
        home = place.home("a.example", "alice")
        home.control("rules", ":allow")
        home.control("tarpit", "60")
        home.start()
        with connect(home) as peer:
            peer.sendall(HELLO + b"".join(b"RCPT TO:<guess%d@a.example>\r\n" % at for at in range(4)))
            said = b""
            while said.count(b"550 ") < 3:
                said += peer.recv(65536)
            for _ in range(5):
                assert talk(home, HELLO + b"RCPT TO:<alice@a.example>\r\n")[3][:3] == b"250"
            peer.setblocking(False)
            with pytest.raises(BlockingIOError):
                peer.recv(65536)
            assert said.count(b"550 ") == 3
        assert home.stop() == 0


def test_a_client_that_says_a_byte_at_a_time_is_told_421(served: Home) -> None:
    with connect(served) as peer:
        peer.settimeout(1)
        said = b""
        begun = time.monotonic()
        while b"421" not in said and time.monotonic() - begun < 30:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                peer.send(b"N")
            peer.settimeout(0.2)
            with contextlib.suppress(TimeoutError):
                said += peer.recv(65536)
        assert b"421 4.4.2 timeout" in said


def test_the_list_is_asked_and_the_name_known_behind_the_walls(served: Home, names: Names) -> None:
    names.records[("1.0.0.127.in-addr.arpa", "PTR")] = ["client.test."]
    names.records[("client.test", "A")] = ["127.0.0.1"]
    for _ in Waiting("the name is known"):
        before = len(served.mails("alice"))
        talk(served, HELLO + b"RCPT TO:<alice@a.example>\r\nDATA\r\nwho\r\n.\r\n")
        if b"from c.example (client.test [127.0.0.1])" in served.wait_mails("alice", before + 1)[-1]:
            break
    names.records[LISTED, "A"] = ["127.0.0.2"]
    names.records[LISTED, "TXT"] = ['"ask bl.test why"']
    for _ in Waiting("the list has the client"):
        answer = talk(served, HELLO)[2]
        if answer == b"554 5.7.1 127.0.0.1 is listed by bl.test: ask bl.test why":
            break
    del names.records[LISTED, "A"], names.records[LISTED, "TXT"]
    names.records[LISTED, "A"] = "SERVFAIL"
    for _ in Waiting("a list that fails lets mail in"):
        if talk(served, HELLO)[2][:3] == b"250":
            break
