"""What a service counts: each thing once, whoever ends or comes meanwhile, and under names that stand."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqmail.core.log import MemoryLog, SmtpdAccepted, SmtpdSession, SubmitRefused
from openqmail.core.send.tally import BOUNDS, Tally
from openqmail.core.service import figures
from openqmail.core.service.figures import FIGURES, SUPERVISED, Counts, numbers_of, sums
from openqmail.core.service.processes.receptions import Receptions

ROLES = sorted({each.role for each in FIGURES})
REMOTE = ("remote_connections_open", "remote_connections_total")


def of_remote(open_: int, made: int) -> dict[str, tuple[int, ...]]:
    return {"remote_connections_open": (open_,), "remote_connections_total": (made,)}


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
    assert (told.added, told.present) == ((5,), (1,))
    assert counts.news(of_remote(1, 5)) is None
    told = counts.news(of_remote(0, 5))
    assert (told.added, told.present) == ((0,), (0,))


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


def test_the_time_in_the_queue_stands_between_its_bounds() -> None:
    tally = Tally()
    for seconds in (-5, 0, 1, 2, BOUNDS[-1], BOUNDS[-1] + 1):
        tally.waited(seconds)
    assert tally.in_queue == [3, 1, *[0] * (len(BOUNDS) - 3), 1, 1]
    assert tally.seconds == 3 + 2 * BOUNDS[-1] + 1
