"""The log as JSON: the facts of every line, one object a line, nothing that a terminal obeys."""

import json
import os
import typing
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from log_examples import EXAMPLES, TIME
from openqmail.core import log
from openqmail.core.log.json import LONGEST, NAMES, encode
from openqmail.core.smtpd.record import ENDS
from openqmail.core.values import Outcome
from openqmail.core.world import SimulatedClock

PAGE = Path(__file__).resolve().parents[3] / "docs" / "log.md"
KINDS = typing.get_args(log.Event)
EVENTS = [event for _, events in EXAMPLES for event in events]


def reference() -> str:
    """What docs/log.md says of every kind, as the examples make it."""
    parts = []
    for title, events in EXAMPLES:
        parts.append(f"### {title}\n")
        for event in events:
            parts.append(f"```text\n{event.line().decode()}\n{encode(event, TIME).decode()}\n```\n")
    return "\n".join(parts)


def test_the_page_shows_every_kind_of_line_as_it_is() -> None:
    assert {type(event) for event in EVENTS} == set(KINDS) == set(NAMES)
    assert reference() in PAGE.read_text(), f"docs/log.md has other examples than these:\n{reference()}"


def test_the_page_has_every_way_in_which_a_session_ends() -> None:
    text = PAGE.read_text()
    for word in {*ENDS.values(), "quit", "eof", "lost", "refused", "violation", "aborted"}:
        assert f"| `{word}` |" in text, word


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_whatever_it_says_an_event_is_one_safe_line_in_both_forms(kind: type, data: st.DataObject) -> None:
    event = data.draw(events_of(kind))
    line = event.line()  # type: ignore[attr-defined]
    assert all(0x20 <= code < 0x7F for code in line)
    written = encode(event, TIME)
    assert written.decode().isprintable() and len(written) <= LONGEST
    facts = json.loads(written)
    assert (facts["time"], facts["event"]) == (TIME, NAMES[kind])
    if kind.__name__.startswith(("Smtpd", "Submit")):
        assert len(line) <= 1000


def events_of(kind: type) -> st.SearchStrategy[log.Event]:
    """Any event of a kind; texts of strangers are anything at all, and long."""
    stranger = st.binary(max_size=60) | st.sampled_from(
        [b"\xff" * 3000, b"\n\x1b[2J" * 700, b"\xc2\x9b" * 900]
    )
    by_type: dict[object, st.SearchStrategy[object]] = {
        bytes: stranger,
        str: st.text(st.characters(), max_size=40) | st.just("\ud800\x9b\u202e"),
    }
    if kind in (log.SmtpdAccepted, log.SmtpdRefused, log.SmtpdSession, log.SmtpdTlsFailed, log.SubmitRefused):
        by_type[str] = st.sampled_from(["192.0.2.1", "2001:db8::1", "fe80::1%eth0"])
    hints = typing.get_type_hints(kind)
    fields = {}
    for field in msgspec.structs.fields(kind):
        hint = hints[field.name]
        if hint == bytes | None:
            fields[field.name] = st.none() | stranger
        elif hint == str | None:
            fields[field.name] = st.none() | by_type[str]
        elif hint in (int, int | None):
            fields[field.name] = st.integers(0, 2**53)
        else:
            fields[field.name] = by_type[hint] if hint in by_type else st.from_type(hint)
    return st.builds(kind, **fields)


def test_bytes_beyond_utf8_are_shown_as_elsewhere() -> None:
    facts = json.loads(encode(log.MessageInfo(7, 255, "é@c.example".encode() + b"\xff", 838, 8001), TIME))
    assert facts["sender"] == "é@c.example\\xff"


def test_what_is_too_long_loses_its_end_and_nothing_else() -> None:
    facts = json.loads(encode(log.DeliveryEnded(3, Outcome.FAILURE, b"first\n" + b"\xff" * 9000, 7), TIME))
    assert (facts["msg"], facts["delivery"], facts["outcome"]) == (7, 3, "failure")
    assert facts["text"].startswith("first\n") and facts["text"].endswith("...")


def test_a_pipe_and_a_file_get_the_time_inside_and_only_there(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    file = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    for descriptor in (writing, file):
        log.LogWriter(descriptor, SimulatedClock(1_700_000_000.25), form="json")(log.NewMessage(1))
        os.close(descriptor)
    with os.fdopen(reading, "rb") as pipe:
        piped = pipe.read()
    assert piped == (tmp_path / "log").read_bytes()
    assert piped == b'{"time":"2023-11-14T22:13:20.250Z","event":"new","msg":1}\n'


def test_the_form_changes_between_two_lines(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    write = log.LogWriter(writing, SimulatedClock())
    write(log.NewMessage(1))
    write.form = "json"
    write(log.NewMessage(2))
    write.form = "qmail"
    write(log.NewMessage(3))
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        first, second, third = pipe.read().splitlines()
    assert (first, json.loads(second)["msg"], third) == (b"new msg 1", 2, b"new msg 3")
