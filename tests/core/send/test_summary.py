"""A message as the list of the queue shows it."""

from typing import Any

import msgspec
import pytest

from openqmail.core.queue.store import Progress, Stored
from openqmail.core.send import Routes, summarize
from openqmail.core.values import Envelope, MessageId, Origin, Outcome, Recipient

NOW = 1_700_001_000
TODO, TRIED = Progress(), Progress(None, 2, b"later\n")
DONE = Progress(Outcome.SUCCESS, 1, b"did 1+0+0\n")
FAILED = Progress(Outcome.FAILURE, 1, b"<x@far.test>:\nno such user\n\n")


def stored(*progress: Progress, **facts: Any) -> Stored:
    addresses = (b"bob@example.test", b"x@far.test", b"caf\xe9@far.test")
    recipients = tuple(map(Recipient, addresses[: len(progress)]))
    envelope = Envelope(b"s@c.example", recipients, Origin(1000, 7))
    return Stored(MessageId(17, b"\xab" * 24), NOW - 1000, 300, envelope, progress, **facts)


@pytest.mark.parametrize(
    ("progress", "facts", "state"),
    [
        ((TODO, TODO), {}, "new"),
        ((TODO,), {"due": (NOW - 1000, 0), "channels": ("local",)}, "new"),  # since it came
        ((TODO,), {"due": (NOW - 5, 0), "channels": ("local",)}, "deferred"),
        ((TODO,), {"due": (NOW + 5, 0), "channels": ("local",)}, "deferred"),
        ((TODO,), {"due": (0, NOW + 5)}, "new"),  # nobody is remote
        ((DONE, TRIED), {"due": (NOW + 50, NOW + 50)}, "deferred"),
        ((DONE, TODO), {}, "deferred"),
        ((TODO, FAILED), {"bounce": FAILED.text}, "deferred"),
        ((TRIED, FAILED), {"bounce": FAILED.text}, "deferred"),
        ((DONE, FAILED), {"bounce": FAILED.text}, "bouncing"),
        ((DONE, DONE), {"bounce": FAILED.text, "channels": ("local", "remote")}, "bouncing"),
        ((TRIED,), {"due": (NOW + 5, 0), "held": ""}, "held"),
        ((FAILED,), {"bounce": FAILED.text, "held": "odd"}, "held"),
    ],
)
def test_state(make: Any, progress: Any, facts: Any, state: str) -> None:
    assert summarize(stored(*progress, **facts), Routes(make()), NOW).state == state


def test_what_bounce_says_of_a_recipient_that_the_lists_have_done_is_a_failure(make: Any) -> None:
    """qmail's files have one letter for both."""
    done = Progress(Outcome.SUCCESS, 1)
    one = stored(done, done, TODO, bounce=FAILED.text, channels=("local", "remote", "remote"))
    found = summarize(one, Routes(make()), NOW).recipients
    assert [(each.state, each.last) for each in found] == [
        ("done", None),
        ("failed", "no such user"),
        ("todo", None),
    ]


def test_the_form_that_scripts_rely_on(make: Any) -> None:
    one = stored(TRIED, FAILED, TODO, due=(NOW + 50, NOW - 1), bounce=FAILED.text)
    assert msgspec.json.decode(msgspec.json.encode(summarize(one, Routes(make()), NOW))) == {
        "id": 17,
        "key": "ab" * 24,
        "born": NOW - 1000,
        "size": 300,
        "sender": "s@c.example",
        "uid": 1000,
        "state": "deferred",
        "recipients": [
            {
                "address": "bob@example.test",
                "channel": "local",
                "state": "todo",
                "attempts": 2,
                "next": NOW + 50,
                "last": "later\n",
            },
            {
                "address": "x@far.test",
                "channel": "remote",
                "state": "failed",
                "attempts": 1,
                "next": None,
                "last": "no such user\n",
            },
            {
                "address": "caf\\xe9@far.test",
                "channel": "remote",
                "state": "todo",
                "attempts": 0,
                "next": None,
                "last": None,
            },
        ],
    }


def test_the_reason_of_a_hold_is_told(make: Any) -> None:
    assert b'"held":"looks odd"' in msgspec.json.encode(
        summarize(stored(TODO, held="looks odd"), Routes(make()), NOW)
    )


def test_what_waits_for_a_host_that_rests_is_tried_next_when_that_is_over(make: Any) -> None:
    one = stored(TODO, TODO)
    shown = summarize(one, Routes(make()), NOW, {b"far.test": NOW + 90})
    assert [each.next for each in shown.recipients] == [None, NOW + 90]
    assert shown.state == "new"  # nobody tried it, and the queue knows of no later time: so `status` says
    later = summarize(stored(TODO, TRIED, due=(0, NOW + 400)), Routes(make()), NOW, {b"far.test": NOW + 90})
    assert [each.next for each in later.recipients] == [None, NOW + 400]
