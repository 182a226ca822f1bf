"""qmail-tcpto and qmail-tcpok beside the recorded output of notqmail's, and in hostile folders."""

import fcntl
import json
import os
import re
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from openqmail.core.commands import tcpto

VECTORS = Path(os.environ.get("OPENQMAIL_VECTORS") or Path(__file__).parents[4] / "shared" / "vectors")
PROGRAMS = VECTORS / "notqmail" / "tools" / "programs.json"

Home = Path


@pytest.fixture(scope="module")
def recorded() -> dict[str, dict[str, object]]:
    if not PROGRAMS.exists():
        pytest.skip("the recordings are not beside the checkout")
    return {case["case"]: case for case in json.loads(PROGRAMS.read_text())}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "queue" / "lock").mkdir(parents=True)
    (tmp_path / "queue" / "lock" / "tcpto").write_bytes(bytes(1024))
    return tmp_path


def file(home: Home) -> Path:
    return home / "queue" / "lock" / "tcpto"


def record(address: str, count: int, ago: int) -> bytes:
    packed = bytes(map(int, address.split(".")))
    return struct.pack("<4sB3xL4x", packed, count, int(time.time()) - ago)


def ran(
    program: Callable[..., int], home: Home, capsys: pytest.CaptureFixture[str], told: dict[str, object]
) -> None:
    """It ends and says as recorded; the home has another name."""
    code = program(["--home", str(home)])
    out, err = capsys.readouterr()
    assert (code, out, err.replace(str(home), "/var/qmail")) == (told["exit"], told["stdout"], told["stderr"])


def test_an_empty_table(home: Home, capsys: pytest.CaptureFixture[str], recorded: dict) -> None:
    ran(tcpto.show, home, capsys, recorded["tcpto-empty"])


def test_the_line_of_an_address(home: Home, capsys: pytest.CaptureFixture[str], recorded: dict) -> None:
    file(home).write_bytes(record("127.0.0.9", 1, 0) + bytes(1008))
    assert tcpto.show(["--home", str(home)]) == 0
    line = re.sub(r"timed out \d seconds", "timed out 0 seconds", capsys.readouterr().out)
    assert line == recorded["tcpto"]["stdout"]


def test_only_addresses_that_were_silent_have_a_line(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    records = record("192.0.2.1", 0, 5) + record("192.0.2.255", 10, 1000)
    file(home).write_bytes(bytes(16) + records + bytes(976))
    assert tcpto.show(["--home", str(home)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"192\.0\.2\.255 timed out 100[01] seconds ago; # recent timeouts: 10", line)


def test_addresses_of_ipv6_have_lines_and_are_cleared(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    six = struct.pack(
        "<16sB3xL8x", socket.inet_pton(socket.AF_INET6, "2001:db8::1"), 3, int(time.time()) - 70
    )
    file(home).write_bytes((record("192.0.2.1", 2, 5).ljust(1024, b"\0") + six).ljust(3072, b"\0"))
    assert tcpto.show(["--home", str(home)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("192.0.2.1 timed out ")
    assert re.fullmatch(r"2001:db8::1 timed out 7[01] seconds ago; # recent timeouts: 3", second)
    assert tcpto.clear(["--home", str(home)]) == 0
    assert file(home).read_bytes() == bytes(3072)


def test_tcpok_clears(home: Home, capsys: pytest.CaptureFixture[str], recorded: dict) -> None:
    file(home).write_bytes(record("192.0.2.1", 2, 5) * 64)
    ran(tcpto.clear, home, capsys, recorded["tcpok"])
    assert file(home).read_bytes() == bytes(1024)
    ran(tcpto.show, home, capsys, recorded["tcpto-after-tcpok"])


def as_nobody(program: str, home: Home) -> tuple[int, str, str]:
    """In a child that is nobody, when this is root."""
    become = "os.setuid(65534); " if os.geteuid() == 0 else ""
    code = (
        f"import os, sys; from openqmail.core.commands.tcpto import {program}; {become}sys.exit({program}())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--home", home],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr.replace(str(home), "/var/qmail")


@pytest.mark.parametrize(("program", "case"), [("show", "tcpto-as-user"), ("clear", "tcpok-as-user")])
def test_a_stranger_is_told_so_as_recorded(home: Home, recorded: dict, program: str, case: str) -> None:
    for folder in (home, *home.parents):
        if (mode := folder.stat().st_mode) & 0o055 != 0o055:
            folder.chmod(mode | 0o055)
    (home / "queue").chmod(0o700 if os.geteuid() == 0 else 0o000)
    try:
        told = recorded[case]
        # Who is stopped at the queue is stopped at its second step; for qmail-tcpto the two say the same.
        assert as_nobody(program, home) == (told["exit"], told["stdout"], told["stderr"])
    finally:
        (home / "queue").chmod(0o700)


@pytest.mark.parametrize("named", ["tcpto", "lock"])
def test_no_link_leads_root_out_of_the_queue(
    home: Home, capsys: pytest.CaptureFixture[str], named: str
) -> None:
    elsewhere = home / "elsewhere"
    elsewhere.mkdir()
    precious = elsewhere / "tcpto"
    precious.write_bytes(b"precious" * 200)
    file(home).unlink()
    if named == "lock":
        (home / "queue" / "lock").rmdir()
        (home / "queue" / "lock").symlink_to(elsewhere)
    else:
        file(home).symlink_to(precious)
    assert tcpto.clear(["--home", str(home)]) == 111
    assert precious.read_bytes() == b"precious" * 200
    assert "qmail-tcpok: fatal: unable to" in capsys.readouterr().err


def test_no_second_name_of_a_file_is_cleared(home: Home) -> None:
    precious = home / "precious"
    precious.write_bytes(b"precious" * 200)
    file(home).unlink()
    os.link(precious, file(home))
    assert tcpto.clear(["--home", str(home)]) == 111
    assert precious.read_bytes() == b"precious" * 200


def test_what_is_missing_is_said(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    file(home).unlink()
    assert tcpto.show(["--home", str(home)]) == 111
    assert capsys.readouterr().out == "fatal: unable to open tcpto: file does not exist\n"
    assert tcpto.clear(["--home", str(home)]) == 111
    said = f"qmail-tcpok: fatal: unable to write {home}/queue/lock/tcpto: file does not exist\n"
    assert capsys.readouterr().err == said
    assert tcpto.show(["--home", str(home / "nowhere")]) == 111
    assert capsys.readouterr().out == "fatal: unable to chdir: file does not exist\n"


def test_misuse_is_told_from_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert tcpto.show(["-x"]) == 100
    assert tcpto.clear(["--home"]) == 100
    assert capsys.readouterr().err.count("usage: ") == 2


@pytest.mark.parametrize("program", [tcpto.show, tcpto.clear])
def test_who_keeps_the_lock_is_not_waited_for_for_ever(
    home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, program: Callable
) -> None:
    monkeypatch.setattr(tcpto, "PATIENCE", 0.0)
    with file(home).open("r+b") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert program(["--home", str(home)]) == 111
        said = "".join(capsys.readouterr())
        assert "fatal: unable to lock " in said and said.endswith(": somebody else keeps the lock\n")
    assert program(["--home", str(home)]) == 0


def test_who_lets_the_lock_go_is_waited_for(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    other = file(home).open("r+b")
    fcntl.flock(other, fcntl.LOCK_EX)
    monkeypatch.setattr(tcpto.time, "sleep", lambda seconds: other.close())
    assert tcpto.clear(["--home", str(home)]) == 0
