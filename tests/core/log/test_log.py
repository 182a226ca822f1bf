"""The log: qmail-send's words, nothing of a stranger's unescaped, one write a turn."""

import os
import re
import select
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqmail.core import log
from openqmail.core.values import Outcome
from openqmail.core.world import SimulatedClock


def test_lines_are_those_of_qmail_send() -> None:
    events: list[log.Event] = [
        log.NewMessage(7),
        log.MessageInfo(7, 255, b"alice@example.test", 838, 8001),
        log.DeliveryStarted(1, 7, "local", b"bob@example.test"),
        log.Status(1, 10, 0, 20),
        log.DeliveryEnded(1, Outcome.SUCCESS, b"did 1+0+0\n", 7),
        log.DeliveryEnded(2, Outcome.DEFERRAL, b"later\n", 7),
        log.DeliveryEnded(3, Outcome.FAILURE, b"Sorry, no mailbox here by that name. (#5.1.1)\n", 7),
        log.Bounced(7, 99),
        log.TripleBounce(7),
        log.MessageEnded(7),
        log.Exiting(),
    ]
    assert [event.line() for event in events] == [
        b"new msg 7",
        b"info msg 7: bytes 255 from <alice@example.test> qp 838 uid 8001",
        b"starting delivery 1: msg 7 to local bob@example.test",
        b"status: local 1/10 remote 0/20",
        b"delivery 1: success: did_1+0+0/",
        b"delivery 2: deferral: later/",
        b"delivery 3: failure: Sorry,_no_mailbox_here_by_that_name._(#5.1.1)/",
        b"bounce msg 7 qp 99",
        b"triple bounce: discarding bounce/7",
        b"end msg 7",
        b"status: exiting",
    ]


def test_the_real_thing_escapes_as_we_do(vectors: Path) -> None:
    recorded = (vectors / "notqmail/log/bounce-8bit-addresses.log").read_bytes()
    sender = log.MessageInfo(0, 0, "café@remote.test".encode("latin-1"), 0, 0).line()
    assert re.search(rb"<[^>]+>", sender) is not None
    assert re.findall(rb"<[^>]*>", sender)[0] in recorded


@given(st.binary(max_size=60))
def test_no_address_or_report_can_break_a_line(text: bytes) -> None:
    for event in (
        log.MessageInfo(1, 1, text, 1, 1),
        log.DeliveryStarted(1, 1, "remote", text),
        log.DeliveryEnded(1, Outcome.FAILURE, text, 1),
        log.Alert(text.decode("utf-8", "backslashreplace")),
    ):
        assert all(0x20 <= code < 0x7F for code in event.line())


def test_a_pipe_gets_no_time_stamps() -> None:
    reading, writing = os.pipe()
    log.LogWriter(writing, SimulatedClock())(log.NewMessage(1))
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == b"new msg 1\n"


def test_a_file_gets_the_time_in_utc(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    log.LogWriter(descriptor, SimulatedClock(1_700_000_000.25))(log.NewMessage(1))
    os.close(descriptor)
    assert (tmp_path / "log").read_bytes() == b"2023-11-14T22:13:20.250Z new msg 1\n"


def test_lines_of_a_turn_are_written_together(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    waiting = []
    write = log.LogWriter(writing, SimulatedClock(), waiting.append)
    write(log.NewMessage(1))
    write(log.NewMessage(2))
    assert len(waiting) == 1
    waiting[0]()
    assert os.read(reading, 100) == b"new msg 1\nnew msg 2\n"
    os.close(reading)
    os.close(writing)


def test_a_logger_that_went_away_stops_no_mail() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    write = log.LogWriter(writing, SimulatedClock())
    write(log.NewMessage(1))
    write(log.NewMessage(2))
    os.close(writing)


def test_several_processes_never_tear_each_others_lines() -> None:
    reading, writing = os.pipe()
    rounds, letters = 200, (b"a", b"b")
    children = []
    for letter in letters:
        if not (pid := os.fork()):
            write = log.LogWriter(writing, SimulatedClock())
            for _ in range(rounds):
                write(log.DeliveryEnded(1, Outcome.FAILURE, letter * 9000, 7))
                write(log.DeliveryEnded(1, Outcome.FAILURE, letter * 30, 7))
            os._exit(0)
        children.append(pid)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        lines = pipe.read().splitlines()
    for pid in children:
        os.waitpid(pid, 0)
    assert len(lines) == 2 * rounds * len(letters)
    for line in lines:
        assert re.fullmatch(rb"delivery 1: failure: (a+|b+)(\.\.\.)?", line), line[:80]
        assert len(line) < 4096


@pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="needs a pipe that keeps apart what is written")
@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_of_many_lines_each_write_has_whole_ones_that_fit(kind: str) -> None:
    if kind == "pipe":
        reading, writing = os.pipe2(os.O_DIRECT)
        most = select.PIPE_BUF
    else:
        ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        reading, writing = (one.detach() for one in ends)
        most = 16 * 1024
    waiting = []
    write = log.LogWriter(writing, SimulatedClock(), waiting.append)
    lines = [b"delivery %d: failure: %s" % (number, b"x" * (number % 300)) for number in range(250)]
    for number in range(250):
        write(log.DeliveryEnded(number, Outcome.FAILURE, b"x" * (number % 300), 7))
    waiting[0]()
    os.close(writing)
    writes = list(iter(lambda: os.read(reading, 1 << 17), b""))
    os.close(reading)
    assert all(one.endswith(b"\n") and len(one) <= most for one in writes)
    assert b"".join(writes).splitlines() == lines
    assert len(writes) < 15, "they are not written one by one"


def test_a_file_has_a_long_line_whole(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    log.LogWriter(descriptor, SimulatedClock())(log.DeliveryEnded(1, Outcome.FAILURE, b"a" * 9000, 7))
    os.close(descriptor)
    assert (tmp_path / "log").read_bytes().endswith(b"a" * 9000 + b"\n")
