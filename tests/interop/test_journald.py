"""A real journald gets the log of a real service, line for line; in a mount namespace of the test's own."""

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from homes import Home, Waiting
from matchup import Matchup
from smtp_talks import taken_and_refused

JOURNALD = Path("/usr/lib/systemd/systemd-journald")
NAME = "openqmail-under-test"
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="a mount namespace takes root"),
    pytest.mark.skipif(
        not JOURNALD.exists() or shutil.which("journalctl") is None, reason="no journald on this host"
    ),
]
_START = f'mount --bind "$1" /run && exec {JOURNALD}'


class Journal:
    """`run`: what is /run for journald alone."""

    def __init__(self, run: Path) -> None:
        self.run = run

    def stream(self) -> int:
        """A descriptor for stderr, opened as systemd opens it for a unit (sd_journal_stream_fd(3))."""
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stream.connect(str(self.run / "systemd/journal/stdout"))
        stream.sendall(f"{NAME}\n\n6\n0\n0\n0\n0\n".encode())
        return stream.detach()

    def lines(self, form: str = "cat") -> list[bytes]:
        read = ["journalctl", "--directory", self.run / "log/journal", "-t", NAME, "-o", form, "--no-pager"]
        return subprocess.run(read, capture_output=True, check=False).stdout.splitlines()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    run = tmp_path / "run"
    (run / "log/journal").mkdir(parents=True)
    (run / "systemd/journal").mkdir(parents=True)
    command = ["unshare", "--mount", "sh", "-c", _START, "sh", run]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        try:
            for _ in Waiting("journald listens"):
                if server.poll() is not None:
                    pytest.skip("this host lets no journald be started")
                if (run / "systemd/journal/stdout").exists():
                    break
            yield Journal(run)
        finally:
            server.kill()


def serve(home: Home, journal: Journal) -> int:
    """A message by SMTP while the log goes to the journal; its number, once all is there."""
    home.control("rules", ":allow")
    home.log.touch()
    stream = journal.stream()
    home.spawn(onto=stream)
    os.close(stream)
    for _ in Waiting("it serves"):
        if any(b"serving" in line for line in journal.lines()):
            break
    number = taken_and_refused(home)
    for _ in Waiting(f"message {number} has ended"):
        if any(
            re.search(rb'end msg %d$|"end","msg":%d\}' % (number, number), line) for line in journal.lines()
        ):
            break
    assert home.stop() == 0
    for _ in Waiting("its last line is there"):
        if any(b"exiting" in line for line in journal.lines()):
            return number
    raise AssertionError


def test_lines_in_qmails_form_are_entries_that_matchup_reads(home: Home, journal: Journal) -> None:
    number = serve(home, journal)
    lines = journal.lines()
    assert all(0x20 <= code < 0x7F for line in lines for code in line)
    words = [line.split()[0] for line in lines if re.search(rb"\bmsg %d\b" % number, line)]
    assert sorted(set(words)) == [b"end", b"info", b"new", b"smtpd:", b"starting"]
    reader = Matchup()
    for line in journal.lines("short-unix"):  # a time, a host, the program: what matchup wants no more of
        when, _, _, text = line.split(b" ", 3)
        reader.feed(when + b" " + text)
    results = reader.results()
    assert [line[:2] for line in results] == [b"d ", b"m "]
    assert all(b"<s@c.example>" in line for line in results)


def test_json_is_an_object_an_entry(home: Home, journal: Journal) -> None:
    home.control("logformat", "json")
    number = serve(home, journal)
    found = [json.loads(line) for line in journal.lines()]
    assert {"new", "info", "starting", "delivery", "end"} <= {
        one["event"] for one in found if one.get("msg") == number
    }
    assert found[-1]["event"] == "exiting"
