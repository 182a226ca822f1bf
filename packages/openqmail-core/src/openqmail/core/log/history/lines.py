"""What is kept of an event: one JSON object a line, the message's number first.

An object begins with `{"msg":N,`, which nothing that a stranger wrote can look like, because quotes
in texts are escaped; so the lines of a message are found without reading the others.  `time` is seconds
UTC.  Bytes beyond UTF-8 are shown as \\xNN, and no line is obeyed by a terminal.  Of a long text
the beginning is kept, so a stranger who says much does not push out what is older.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import structs

from openqmail.core.log import events
from openqmail.core.log.escaping import readable
from openqmail.core.log.json import OUTCOMES, printable

TEXT = 1000
"""Bytes of a text, or of an address, as it is written."""


class Made(msgspec.Struct, frozen=True, gc=False):
    """Out of message `number` the message `child` was made; `what`: bounce, notice, forward."""

    number: int
    child: int
    what: str


class Accepted(msgspec.Struct, omit_defaults=True, gc=False):
    """The begin of a life.  `parent`: the message that it was made out of, as `made` says."""

    msg: int
    time: float
    event: str
    bytes: int
    sender: str
    uid: int
    pid: int
    made: str = ""
    parent: int | None = None


class Started(msgspec.Struct, gc=False):
    msg: int
    time: float
    event: str
    delivery: int
    channel: str
    recipient: str


class Ended(msgspec.Struct, gc=False):
    msg: int
    time: float
    event: str
    delivery: int
    outcome: str
    text: str


class Child(msgspec.Struct, gc=False):
    msg: int
    time: float
    event: str
    made: str
    child: int


class Said(msgspec.Struct, omit_defaults=True, gc=False):
    msg: int
    time: float
    event: str
    text: str = ""


def encode(lines: Sequence[Any]) -> bytes:
    """One line each."""
    data = _encoder.encode_lines(lines)
    if data.isascii() and b"\x7f" not in data:
        return data
    return b"".join([printable(line) + b"\n" for line in data.split(b"\n")[:-1]])


def beginning(number: int) -> bytes:
    """How each line of this message begins, and nothing else."""
    return b'{"msg":%d,' % number


def cut(event: Any) -> Any:
    """The event with not much more of its text than is kept."""
    text = getattr(event, "text", "")
    return structs.replace(event, text=text[: TEXT + 1]) if len(text) > TEXT else event


def _text(raw: bytes) -> str:
    return _bounded(readable(raw[: TEXT + 1]))


def _bounded(text: str) -> str:
    short = text[:TEXT]
    while len(short) > TEXT // 12 and len(printable(_encoder.encode(short))) > TEXT + 2:  # with escapes
        short = short[: len(short) * 3 // 4]
    return text if len(short) == len(text) else short + "..."


def _sentence(event: Any, when: float) -> Said | None:
    if event.number is None:
        return None
    text = _bounded(event.text[: TEXT + 1].encode("utf-8", "backslashreplace").decode())
    return Said(event.number, when, _WORDS[type(event)], text)


_encoder = msgspec.json.Encoder()

_WORDS: dict[type, str] = {events.Warn: "warning", events.Alert: "alert", events.Notice: "notice"}

LINES: dict[type, Callable[[Any, float], Any]] = {
    events.MessageInfo: lambda event, when: Accepted(
        event.number, when, "accepted", event.size, _text(event.sender), event.uid, event.pid
    ),
    events.DeliveryStarted: lambda event, when: Started(
        event.number, when, "starting", event.delivery, event.channel, _text(event.recipient)
    ),
    events.DeliveryEnded: lambda event, when: Ended(
        event.number, when, "delivery", event.delivery, OUTCOMES[event.outcome], _text(event.text)
    ),
    events.TripleBounce: lambda event, when: Said(event.number, when, "triple_bounce"),
    events.MessageEnded: lambda event, when: Said(event.number, when, "end"),
    events.Warn: _sentence,
    events.Alert: _sentence,
    events.Notice: _sentence,
    Made: lambda event, when: Child(event.number, when, "made", event.what, event.child),
}
"""By the type of the event; None: nothing is kept of this one."""
