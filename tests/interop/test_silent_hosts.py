"""A home of root's whose other host is silent: the process remote, which may not reach the queue, writes
qmail's file all the same, and what qmail-tcpto and qmail-tcpok say and do holds for the running service.

Root only.
"""

import contextlib
import os
import re
import smtplib
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from homes import Waiting
from system_homes import SystemHome, system_home

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes users and runs as them")

NOT_CONNECTED = b"deferral: Sorry,_I_wasn't_able_to_establish_an_SMTP_connection._(#4.4.1)/"
DIED = b"deferral: Connected_to_127.0.0.1_but_connection_died._(#4.4.2)/"


class Silent:
    """Accepts connections and says nothing."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.came: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self.came.append(self._server.accept()[0])

    def close(self) -> None:
        self._server.close()
        for one in self.came:
            one.close()


@pytest.fixture
def silent() -> Iterator[Silent]:
    made = Silent()
    yield made
    made.close()


@pytest.fixture
def home(silent: Silent) -> Iterator[SystemHome]:
    with system_home("alice") as made:
        made.control("smtproutes", f"silent.example:[127.0.0.1]:{silent.port}")
        made.control("timeoutremote", "1")
        yield made


def program(name: str, home: SystemHome) -> str:
    function = {"qmail-tcpto": "show", "qmail-tcpok": "clear"}[name]
    code = f"import sys; from openqmail.core.commands import tcpto; sys.exit(tcpto.{function}())"
    ran = subprocess.run(
        [sys.executable, "-c", code, "--home", home.path], capture_output=True, text=True, check=True
    )
    assert ran.stderr == ""
    return ran.stdout


def logged(home: SystemHome, what: bytes, count: int) -> None:
    for _ in Waiting(f"the log says {what!r} {count} times\n{home.tail()}"):
        if home.log.read_bytes().count(what) >= count:
            return


def test_a_silent_host_is_counted_shown_left_alone_and_tried_again_after_tcpok(
    home: SystemHome, silent: Silent
) -> None:
    file = home.path / "queue" / "lock" / "tcpto"
    # It was silent once, some minutes ago.
    file.write_bytes(struct.pack("<4sB3xL4x", bytes([127, 0, 0, 1]), 1, int(time.time()) - 300) + bytes(1008))
    home.start()
    with smtplib.SMTP("127.0.0.1", home.port, "client.example", 20) as client:
        client.sendmail("someone@client.example", ["far@silent.example"], "Subject: t\r\n\r\nt\r\n")
    logged(home, DIED, 1)
    shown = r"127\.0\.0\.1 timed out \d+ seconds ago; # recent timeouts: 2\n"
    assert re.fullmatch(shown, program("qmail-tcpto", home))
    home.run("queue", "flush")
    logged(home, NOT_CONNECTED, 1)
    assert len(silent.came) == 1, "it was tried while it had to be left alone"
    assert program("qmail-tcpok", home) == ""
    assert program("qmail-tcpto", home) == ""
    home.run("queue", "flush")
    logged(home, DIED, 2)
    assert len(silent.came) == 2
    assert "recent timeouts: 1" in program("qmail-tcpto", home)
    found = file.stat()
    assert (found.st_uid, found.st_mode & 0o777) == (home.account("send").pw_uid, 0o644)
    assert home.run("check").stdout.endswith("owners and modes are as they should be\n")
