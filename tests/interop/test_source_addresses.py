"""Which address and which name a receiver sees, by the sender of the mail; and hosts that do not answer.

A real service sends, over a cable between two network namespaces where the machine lets the test
make them, else on loopback, where there is IPv4 alone and nobody who keeps silent.
"""

import contextlib
import importlib.util
import smtplib
import socket
import socketserver
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import networks
from homes import Home, Place, Waiting

PORT = 2525
WHY_NOT = networks.why_not()
CABLE = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))


class Seen(NamedTuple):
    """A message, as its receiver saw it."""

    source: str
    helo: str
    sender: str


class Receiver:
    """Takes all mail at these addresses, and keeps who brought it."""

    def __init__(self, *addresses: str) -> None:
        self.seen: list[Seen] = []
        self._servers = [_Server(address, self.seen) for address in addresses]

    def wait(self, count: int) -> list[Seen]:
        for _ in Waiting(f"there are {count} messages"):
            if len(self.seen) >= count:
                return self.seen
        raise AssertionError

    def __enter__(self) -> "Receiver":
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address: str, seen: list[Seen]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.seen = seen
        super().__init__((address, PORT), _Session)


class _Session(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        helo = sender = ""
        self.wfile.write(b"220 there.example\r\n")
        for line in self.rfile:
            verb, _, rest = line.decode().strip().partition(" ")
            if verb == "EHLO":
                helo = rest
            elif verb == "MAIL":
                sender = rest.partition("<")[2].partition(">")[0]
            elif verb == "DATA":
                self.wfile.write(b"354 go on\r\n")
                for text in self.rfile:
                    if text == b".\r\n":
                        break
                self.server.seen.append(Seen(self.client_address[0], helo, sender))
            self.wfile.write(b"221 bye\r\n" if verb == "QUIT" else b"250 ok\r\n")
            if verb == "QUIT":
                return


class Scene(NamedTuple):
    home: Home
    receiver: Receiver
    here4: tuple[str, ...]
    """Addresses of this host."""
    there4: str


@pytest.fixture
def cable() -> Iterator[networks.Cable | None]:
    """The network that the test is in; None: the machine's own."""
    with networks.Cable() if WHY_NOT is None else contextlib.nullcontext() as made:
        yield made


@pytest.fixture
def scene(cable: networks.Cable | None) -> Iterator[Scene]:
    """A home that has not been started, and who takes what it sends to the port `PORT`."""
    here4, there4 = networks.HERE4, networks.THERE4
    if cable is None:
        here4, there4 = ("127.0.0.1", "127.0.0.2", "127.0.0.3"), "127.0.0.10"
    there = contextlib.nullcontext() if cable is None else cable.there()
    with there:
        receiver = Receiver(there4, *([] if cable is None else [networks.THERE6]))
    with Place() as place, receiver:
        home = place.home("here.example", "alice")
        home.control("timeoutconnect", "60")
        yield Scene(home, receiver, here4, there4)


def send(home: Home, *senders: str, to: str = "bob@there.example") -> None:
    for sender in senders:
        with smtplib.SMTP("127.0.0.1", home.port) as client:
            client.sendmail(sender, [to], b"Subject: x\r\n\r\nx\r\n")


@pytest.mark.parametrize("version", [4, pytest.param(6, marks=CABLE)])
def test_the_receiver_sees_the_address_and_the_name_of_the_senders_line(version: int, scene: Scene) -> None:
    home, receiver = scene.home, scene.receiver
    here = scene.here4 if version == 4 else networks.HERE6
    there = scene.there4 if version == 4 else networks.THERE6
    columns = "{}:-" if version == 4 else "-:[{}]"
    home.control("helohost", "usual.example")
    home.control("smtproutes", f":[{there}]:{PORT}")
    lines = (
        ("a.example", here[1], "a.example"),
        ("x@b.example", here[2], "x.b.example"),
        ("<>", here[1], ""),
    )
    home.control("bindings", "\n".join(f"{key}:{columns.format(at)}:{name}" for key, at, name in lines))
    home.start()
    send(home, "any@a.example", "x@b.example", "", "y@b.example")
    seen = {one.sender: (one.source, one.helo) for one in receiver.wait(4)}
    source, helo = seen.pop("y@b.example")  # no line is its: the system chooses
    assert source in here
    assert helo == "usual.example"
    assert seen == {
        "any@a.example": (here[1], "a.example"),
        "x@b.example": (here[2], "x.b.example"),
        "": (here[1], "usual.example"),
    }
    assert home.stop() == 0


@CABLE
def test_both_families_of_a_line_are_used(scene: Scene) -> None:
    home = scene.home
    home.control(
        "smtproutes", f"four.example:[{scene.there4}]:{PORT}\nsix.example:[{networks.THERE6}]:{PORT}"
    )
    home.control("bindings", f"*:{scene.here4[1]}:[{networks.HERE6[2]}]:mx.example")
    home.start()
    send(home, "x@a.example", to="bob@four.example")
    send(home, "x@a.example", to="bob@six.example")
    assert sorted(seen[:2] for seen in scene.receiver.wait(2)) == [
        (scene.here4[1], "mx.example"),
        (networks.HERE6[2], "mx.example"),
    ]


def test_an_address_that_is_not_this_hosts_is_told_by_check_and_its_mail_waits(scene: Scene) -> None:
    home = scene.home
    home.control("smtproutes", f":[{scene.there4}]:{PORT}")
    home.control("bindings", f"# who sends from where\na.example:192.0.2.1:*:\n*:{scene.here4[1]}:-:")
    told = home.run("check", check=False)
    assert told.returncode == 100
    assert "control/bindings, line 2" in told.stdout
    assert "192.0.2.1" in told.stdout
    assert scene.here4[1] not in told.stdout
    home.start()
    send(home, "x@a.example", "x@b.example")
    assert [seen.sender for seen in scene.receiver.wait(1)] == ["x@b.example"]
    for _ in Waiting("the log tells of it"):
        if b"deferral: Sorry,_I_can't_send_from_192.0.2.1" in home.log.read_bytes():
            break
    assert b"alert: control/bindings, line 2: 192.0.2.1 cannot be bound" in home.log.read_bytes()
    assert [one["state"] for one in home.queue()] == ["deferred"]
    assert [seen.sender for seen in scene.receiver.seen] == ["x@b.example"]


@pytest.fixture
def nameserver() -> types.ModuleType:
    """The module of the dns tests that has a name server."""
    path = Path(__file__).parents[1] / "core" / "dns" / "nameserver.py"
    spec = importlib.util.spec_from_file_location("core_dns_nameserver", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Names:
    """Says by UDP on loopback what a `Nameserver` would."""

    def __init__(self, module: types.ModuleType, records: dict[tuple[str, str], list[str]]) -> None:
        self._says = module.Nameserver(records)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]

    def __enter__(self) -> "Names":
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def _serve(self) -> None:
        while True:
            data, peer = self._socket.recvfrom(4096)
            if not data:
                return
            self._socket.sendto(self._says.answer(data, "udp"), peer)

    def __exit__(self, *_: object) -> None:
        self._socket.sendto(b"", self._socket.getsockname())


@CABLE
@pytest.mark.parametrize(
    ("addresses", "ours"),
    [
        ((networks.SILENT6, networks.THERE4), networks.HERE4),
        ((networks.SILENT4, networks.SILENT6, networks.THERE6), networks.HERE6),
        ((networks.SILENT4, networks.SILENT6, networks.THERE4), networks.HERE4),
    ],
)
def test_an_address_that_does_not_answer_makes_way_for_the_next(
    addresses: tuple[str, ...], ours: tuple[str, ...], scene: Scene, nameserver: types.ModuleType
) -> None:
    """The mail comes while a silent address would still have the better part of its minute."""
    records = {
        ("mx.there.example", "A"): [one for one in addresses if ":" not in one],
        ("mx.there.example", "AAAA"): [one for one in addresses if ":" in one],
    }
    home = scene.home
    with Names(nameserver, records) as names:
        home.control("resolvers", f"127.0.0.1:{names.port}")
        home.control("smtproutes", f":mx.there.example:{PORT}")
        home.start()
        send(home, "x@a.example")
        assert scene.receiver.wait(1)[0].source in ours
