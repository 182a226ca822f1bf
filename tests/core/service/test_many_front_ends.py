"""A limit of connections is the same whether one process serves clients or several."""

import socket
from contextlib import ExitStack
from typing import IO

from homes import Home, Waiting


def greeted(peer: socket.socket) -> tuple[bytes, IO[bytes]]:
    peer.settimeout(30)
    lines = peer.makefile("rb")
    return lines.readline()[:3], lines


def test_all_connections_of_the_limit_are_served_by_however_many_processes(home: Home) -> None:
    limit = 20
    home.control("smtpdworkers", "4")
    home.control("concurrencyincoming", str(limit))
    home.start()
    address = ("127.0.0.1", home.port)
    with ExitStack() as stack:
        peers = [stack.enter_context(socket.create_connection(address, 30)) for _ in range(limit)]
        answers = [greeted(peer) for peer in peers]
        for _, lines in answers:
            stack.enter_context(lines)
        assert [said for said, _ in answers] == [b"220"] * limit
        for _ in range(3):
            with socket.create_connection(address, 30) as peer:
                said, lines = greeted(peer)
                lines.close()
            assert said == b"421"
        peers[0].sendall(b"QUIT\r\n")
        assert answers[0][1].readline()[:3] == b"221"
        for _ in Waiting("its place is free"):
            with socket.create_connection(address, 30) as peer:
                said, lines = greeted(peer)
                lines.close()
            if said == b"220":
                break
    assert home.stop() == 0
