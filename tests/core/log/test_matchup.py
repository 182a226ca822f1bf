"""qmailanalog's matchup gets the same results from a log, whatever lines of ours stand between."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from log_examples import EXAMPLES
from matchup import KNOWN, Matchup, matchup
from openqmail.core import log

QMAILS = (
    log.Status,
    log.NewMessage,
    log.MessageInfo,
    log.DeliveryStarted,
    log.DeliveryEnded,
    log.Bounced,
    log.TripleBounce,
    log.MessageEnded,
    log.Exiting,
)
OURS = [
    event.line()
    for _, events in EXAMPLES
    for event in events
    if not isinstance(event, (*QMAILS, log.Warn, log.Alert))
]


def recorded(vectors: Path) -> list[list[bytes]]:
    return [file.read_bytes().splitlines() for file in sorted((vectors / "notqmail/log").glob("*.log"))]


def with_ours(lines: list[bytes]) -> list[bytes]:
    """All of ours in front of each."""
    return [one for line in lines for one in (*OURS, line)]


def timed(lines: list[bytes], of: list[bytes]) -> Matchup:
    """Each line has the time that it has among `of`, where ours are not."""
    reader, at = Matchup(), 0
    for line in lines:
        if at < len(of) and line == of[at]:
            at += 1
        reader.feed(b"%d %b" % (at, line))
    return reader


def test_our_lines_change_no_result(vectors: Path) -> None:
    logs = recorded(vectors)
    assert sum(len(matchup(lines).results()) for lines in logs) > 100
    for lines in logs:
        assert timed(with_ours(lines), lines).results() == timed(lines, lines).results()


def test_what_it_says_of_a_recorded_log(vectors: Path) -> None:
    lines = (vectors / "notqmail/log/remote-deferral.log").read_bytes().splitlines()
    found = matchup(lines).results()
    assert next(line[:4] for line in found if line.startswith(b"d ")) == b"d z "
    assert all(b"<alice@example.test>" in line for line in found)


@given(st.binary(max_size=50), st.binary(max_size=50))
def test_no_client_can_make_a_line_of_ours_count(helo: bytes, address: bytes) -> None:
    for event in (
        log.SmtpdAccepted(7, "192.0.2.1", 1, helo, address, 1),
        log.SmtpdRefused("rcpt", address, 550, "192.0.2.1", 1, helo, address, helo),
        log.SmtpdSession("quit", "192.0.2.1", 1, "smtp", helo, 0.0, 0, 0, 0, 0),
        log.SmtpdTlsFailed("192.0.2.1", 1, "smtps", helo, address),
        log.SubmitAccepted(7, 1, 1, address, 1),
        log.SubmitRefused("failure", 1, 1, address, helo),
    ):
        assert event.line().split(b" ")[0] not in KNOWN
        reader = matchup([b"info msg 7: bytes 1 from <a> qp 1 uid 1", event.line(), b"end msg 7"])
        assert reader.results() == [b"m 0 2 1 0 0 0 <a> 1 1"]


def test_the_real_one_agrees(vectors: Path) -> None:
    program = shutil.which("matchup")
    if program is None:
        pytest.skip("no matchup of qmailanalog on this host")
    for lines in recorded(vectors):
        for some in (lines, with_ours(lines)):
            stamped = b"".join(b"%d %b\n" % (at, line) for at, line in enumerate(some))
            ran = subprocess.run(
                ["sh", "-c", f"{program} 5>/dev/null"], input=stamped, capture_output=True, check=True
            )
            assert [re.sub(rb"[ \t]+$", b"", one) for one in ran.stdout.splitlines()] == [
                re.sub(rb"[ \t]+$", b"", one) for one in matchup(some).out
            ]
