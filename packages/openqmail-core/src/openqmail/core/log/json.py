"""An event as one object of JSON, with the facts of its line: for `control/logformat` = `json`.

Every object has `time` (ISO 8601 UTC) and `event`; the other names are the event's fields, with the
exceptions in `_FIELDS`.  Nothing that is empty of meaning is written: a field that is None is left out.
Bytes beyond UTF-8 are shown as \\xNN, and whatever cannot be printed is escaped as JSON has it, so an
object is one line that no terminal obeys.  An object has `LONGEST` bytes at most.
"""

import msgspec

from openqmail.core.log import events, receiving, sending
from openqmail.core.log.escaping import readable
from openqmail.core.values import Outcome

LONGEST = 4_000
"""Bytes of an object, so that others who write to the same pipe never tear it; its longest text is cut."""

NAMES: dict[type, str] = {
    events.Status: "status",
    events.NewMessage: "new",
    events.MessageInfo: "info",
    events.DeliveryStarted: "starting",
    events.DeliveryEnded: "delivery",
    events.Bounced: "bounce",
    events.TripleBounce: "triple_bounce",
    events.DestinationRests: "destination_rests",
    events.DestinationAnswers: "destination_answers",
    events.MessageEnded: "end",
    events.Warn: "warning",
    events.Alert: "alert",
    events.Notice: "notice",
    events.Exiting: "exiting",
    receiving.SmtpdAccepted: "smtpd_accepted",
    receiving.SmtpdRefused: "smtpd_refused",
    receiving.SmtpdSession: "smtpd_session",
    receiving.SmtpdTlsFailed: "smtpd_tls_failed",
    receiving.AuthAccepted: "auth_accepted",
    receiving.AuthRefused: "auth_refused",
    receiving.SubmitAccepted: "submit_accepted",
    receiving.SubmitRefused: "submit_refused",
    sending.RemoteTls: "remote_tls",
    sending.RemoteTlsFailed: "remote_tls_failed",
    sending.RemoteLogin: "remote_login",
}
"""What an event is called."""

_FIELDS = {"number": "msg", "size": "bytes"}
"""What a field is called where it is not by its own name: as in the line."""

OUTCOMES = {Outcome.SUCCESS: "success", Outcome.DEFERRAL: "deferral", Outcome.FAILURE: "failure"}


def encode(event: "events.Event", time: str) -> bytes:
    """One line, without its newline; `time`: when, in ISO 8601."""
    facts: dict[str, object] = {"time": time, "event": NAMES[type(event)]}
    for field in sorted(event.__struct_fields__, key="number".__ne__):  # the message's number first
        value = getattr(event, field)
        if value is not None:
            facts[_FIELDS.get(field, field)] = _plain(value)
    line = printable(msgspec.json.encode(facts))
    while len(line) > LONGEST:
        name, text = max(
            ((name, value) for name, value in facts.items() if isinstance(value, str)),
            key=lambda one: len(one[1]),
        )
        facts[name] = text[: len(text) * 3 // 4] + "..."
        line = printable(msgspec.json.encode(facts))
    return line


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return readable(value)
    if isinstance(value, Outcome):
        return OUTCOMES[value]
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, str):  # one half of a pair is no text that can be written
        return value.encode("utf-8", "backslashreplace").decode()
    return value


def printable(encoded: bytes) -> bytes:
    """JSON leaves DEL, the controls beyond ASCII, and marks that turn the direction of writing as they
    are."""
    text = encoded.decode()
    if text.isprintable():
        return encoded
    return "".join(one if one.isprintable() else _escaped(one) for one in text).encode()


def _escaped(one: str) -> str:
    """As RFC 8259 section 7 writes it, without a codec: by now that may be out of reach."""
    point = ord(one)
    if point < 0x10000:
        return f"\\u{point:04x}"
    high, low = divmod(point - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
