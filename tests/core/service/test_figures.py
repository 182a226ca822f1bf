"""What a service counts: each thing once, whoever ends or comes meanwhile, and under names that stand."""

import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqmail.core.log import (
    AuthAccepted,
    AuthRefused,
    MemoryLog,
    RemoteTls,
    RemoteTlsFailed,
    SmtpdAccepted,
    SmtpdSession,
    SmtpdTlsFailed,
    SubmitRefused,
)
from openqmail.core.ports import Denial
from openqmail.core.send.tally import BOUNDS, Tally
from openqmail.core.service import figures
from openqmail.core.service.figures import FIGURES, SUPERVISED, Counts, numbers_of, sums
from openqmail.core.service.processes.receptions import Receptions
from openqmail.core.service.processes.tallies import LoginTally, TlsTally
from openqmail.core.smtpd.record import ENDS

ROLES = sorted({each.role for each in FIGURES})


def of_remote(open_: int, made: int) -> dict[str, tuple[int, ...]]:
    return {
        "remote_connections_open": (open_,),
        "remote_connections_total": (made,),
        **TlsTally(MemoryLog()).figures(),
    }


def session(end: str) -> SmtpdSession:
    return SmtpdSession(end, "192.0.2.1", 4000, "smtp", b"c.example", 1.5, 1, 1, 2, 100)


@given(st.lists(st.lists(st.integers(0, 1000), max_size=5), max_size=5))
def test_what_grows_is_counted_once_whoever_ends_meanwhile(lives: list[list[int]]) -> None:
    total: figures.Numbers = ()
    for steps in lives:
        counts, made = Counts("remote"), 0
        for step in steps:
            made += step
            told = counts.news(of_remote(step, made))
            if told is not None:
                total = sums(total, told.added)
    numbers = numbers_of("remote", total, ())
    assert numbers["remote_connections_total"] == (sum(map(sum, lives)),)


def test_what_is_not_new_is_not_told() -> None:
    counts = Counts("remote")
    told = counts.news(of_remote(1, 5))
    assert (told.added, told.present) == ((5, 0, 0, 0, 0), (1,))
    assert counts.news(of_remote(1, 5)) is None
    told = counts.news(of_remote(0, 5))
    assert (told.added, told.present) == ((0, 0, 0, 0, 0), (0,))


def test_a_process_that_lies_takes_no_number_beyond_what_can_be_told() -> None:
    assert sums((figures.MOST - 1,), (figures.MOST,)) == (figures.MOST - 1,)
    assert max(sums((figures.MOST - 1,), (5,))) < figures.MOST


def test_a_level_that_nobody_tells_is_no_zero() -> None:
    numbers = numbers_of("send", (), ())
    assert "queue_messages" not in numbers
    assert numbers["bounces_total"] == (0,)


def test_a_figure_of_too_few_numbers_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="remote_connections_total has 1 numbers, not 2"):
        Counts("remote").news(of_remote(1, 1) | {"remote_connections_total": (1, 2)})


def test_names_are_those_of_prometheus() -> None:
    names = [each.name for each in FIGURES + SUPERVISED]
    assert len(set(names)) == len(names)
    for each in FIGURES + SUPERVISED:
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", each.name)
        assert each.name.endswith("_total") == (each.kind == "counter")
        assert len({len(each.labels), *map(len, each.rows)}) == 1 or each in SUPERVISED


def test_what_each_process_tells_fits_into_a_frame() -> None:
    for role in ROLES:
        for grows in (True, False):
            assert sum(each.places for each in figures.of(role, grows=grows)) <= figures.PLACES


def test_a_session_is_counted_by_how_it_ended_and_its_line_is_written() -> None:
    log = MemoryLog()
    receptions = Receptions(log)
    for end in ("quit", "quit", "busy", "a word of somebody else's service"):
        receptions(session(end))
    receptions(SmtpdAccepted(1, "192.0.2.1", 4000, b"c.example", b"", 1))
    receptions(SubmitRefused("gone", 1, 2, b"", b""))
    found = receptions.figures()
    ends = dict(zip(figures.ENDS, found["smtp_sessions_total"], strict=True))
    assert {end: count for end, count in ends.items() if count} == {"quit": 2, "busy": 1, "other": 1}
    assert found["smtp_messages_accepted_total"] == (1,)
    assert found["smtp_commands_refused_total"] == (8,)
    assert found["smtp_received_bytes_total"] == (400,)
    assert found["submissions_total"] == (0, 0, 0, 1)
    assert len(log.events) == 6


def test_sessions_under_tls_are_counted_by_version_and_handshakes_that_failed() -> None:
    receptions = Receptions(MemoryLog())
    for version in ("TLSv1.3", "TLSv1.3", "TLSv1.2", "TLSv9", None):
        receptions(msgspec.structs.replace(session("quit"), tls=version))
    receptions(SmtpdTlsFailed("192.0.2.1", 4000, "smtp", b"", b"no shared cipher"))
    found = receptions.figures()
    assert found["smtp_tls_sessions_total"] == (2, 1, 1)
    assert found["smtp_tls_failures_total"] == (1,)


def test_tls_with_other_hosts_is_counted_and_its_lines_are_written() -> None:
    log = MemoryLog()
    tally = TlsTally(log)
    tally(RemoteTls(1, "192.0.2.1", 25, b"mx", "may", "TLSv1.2", "x"))
    tally(RemoteTlsFailed(1, "192.0.2.1", 25, b"mx", "may", "plain", b"why"))
    assert tally.figures() == {
        "remote_tls_connections_total": (0, 1, 0),
        "remote_tls_failures_total": (1,),
    }
    assert len(log.events) == 2


@pytest.mark.parametrize("why", get_args(Denial))
def test_each_login_is_counted_by_what_came_of_it(why: Denial) -> None:
    log = MemoryLog()
    tally = LoginTally(log)
    how = (b"PLAIN", "192.0.2.1", 4000, "smtp", True)
    tally(AuthAccepted(b"alice", *how))
    if why != "malformed":  # which is no attempt, and has no line
        tally(AuthRefused(why, b"alice", *how))
    counts = dict(zip(figures.ENTRIES, tally.figures()["logins_total"], strict=True))
    assert {result: count for result, count in counts.items() if count} == (
        {"accepted": 1} | ({why: 1} if why != "malformed" else {})
    )
    assert len(log.events) == sum(counts.values())


def test_the_time_in_the_queue_stands_between_its_bounds() -> None:
    tally = Tally()
    for seconds in (-5, 0, 1, 2, BOUNDS[-1], BOUNDS[-1] + 1):
        tally.waited(seconds)
    assert tally.in_queue == [3, 1, *[0] * (len(BOUNDS) - 3), 1, 1]
    assert tally.seconds == 3 + 2 * BOUNDS[-1] + 1


def test_every_way_in_which_a_session_ends_is_counted_by_its_own_word() -> None:
    page = (Path(__file__).parents[3] / "docs" / "log.md").read_text()
    table = page.partition("A session ends in one of these ways:")[2].partition("\n\n`recipients`")[0]
    words = set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
    assert set(ENDS.values()) <= words
    assert words == set(figures.ENDS) - {"other"}
