"""What a report means to a program: its enhanced status code, and who said what (RFC 3463, 3464).

A report is read as qmail's programs write it: the reply of another host stands behind `Remote host
said: `, and a sentence of qmail's own may end with its code, `(#5.1.1)`.  A host's own enhanced code is
believed where it fits the reply's first digit; else one follows from the reply code.  Pure; of what
nothing can be told, the code says only success, later or never.
"""

import re
from ipaddress import ip_address
from typing import Literal

import msgspec

Action = Literal["failed", "delayed", "delivered", "relayed", "expanded"]
"""What became of a recipient (RFC 3464 section 2.3.3)."""

_USUAL: dict[Action, bytes] = {
    "failed": b"5.0.0",
    "delayed": b"4.0.0",
    "delivered": b"2.0.0",
    "relayed": b"2.1.9",
    "expanded": b"2.0.0",
}
"""The code of a report that has none; 2.1.9: the next host tells nothing of what becomes of it (RFC 3886)."""
_CLASSES: dict[Action, bytes] = {"failed": b"45", "delayed": b"4"}

_EXPIRED = b"4.4.7"
_TOO_LONG = b"this message has been in the queue too long."

_BY_REPLY = {
    b"421": b"4.3.2",
    b"450": b"4.2.0",
    b"451": b"4.3.0",
    b"452": b"4.3.1",
    b"454": b"4.7.0",
    b"455": b"4.5.4",
    b"500": b"5.5.2",
    b"501": b"5.5.4",
    b"502": b"5.5.1",
    b"503": b"5.5.1",
    b"504": b"5.5.4",
    b"521": b"5.3.2",
    b"551": b"5.1.6",
    b"552": b"5.2.2",
    b"553": b"5.1.3",
    b"555": b"5.5.4",
    b"556": b"5.1.10",
}
"""What a reply code says by itself (RFC 5321 section 4.2.2); 550 and 554 say nothing but never."""

_SAID = b"Remote host said: "
_REPLY = re.compile(rb"([2-5][0-9][0-9])(?:[ -]|$)")
_CODE = rb"([245]\.[0-9]{1,3}\.[0-9]{1,3})"
_ENHANCED = re.compile(rb"[2-5][0-9][0-9][ -]" + _CODE + rb"(?![0-9.])")
_OF_QMAIL = re.compile(rb"#" + _CODE + rb"(?![0-9.])")
_HOST = re.compile(
    rb"(?:Connected to (\S{1,255}) but |(\S{1,255}) (?:does not like recipient|failed |accepted message)"
    rb"|([0-9A-Fa-f:.]{2,45}): )"
)
_NAME = re.compile(rb"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")


class Meaning(msgspec.Struct, frozen=True, gc=False):
    """`status`: the enhanced code.  `host`: which other host it is about, as `dns` names it, or empty.
    `reply`: what that said, its lines divided by blanks, or empty."""

    status: bytes
    host: bytes
    reply: bytes


def meaning(text: bytes, action: Action) -> Meaning:
    """What a report says of a recipient of whom that became."""
    lines = _reply(text)
    return Meaning(_status(text, lines, action), _host(text), b" ".join(lines))


def _status(text: bytes, reply: list[bytes], action: Action) -> bytes:
    found = _of_reply(text, reply) if reply else _of_sentence(text)
    if not found and action == "failed" and _TOO_LONG in text:
        found = _EXPIRED
    if not found:
        return _USUAL[action]
    if action == "delayed":  # a greeting of 554 is a reason to try again, in qmail
        return b"4" + found[1:]
    return found if found[:1] in _CLASSES.get(action, b"2") else _USUAL[action]


def _of_sentence(text: bytes) -> bytes:
    codes = _OF_QMAIL.findall(text)
    return codes[-1] if codes else b""


def _of_reply(text: bytes, lines: list[bytes]) -> bytes:
    code = lines[0][:3]
    for pattern in (_ENHANCED, _OF_QMAIL):
        for line in lines:
            found = pattern.search(line)
            if found and found.group(1)[:1] == code[:1]:
                return found.group(1)
    if code == b"550" and b" does not like recipient." in text:
        return b"5.1.1"
    return _BY_REPLY.get(code, code[:1] + b".0.0")


def _reply(text: bytes) -> list[bytes]:
    """The lines of the reply that a report quotes, each with its code; none where it quotes none."""
    _, said, rest = text.partition(_SAID)
    found = _REPLY.match(rest)
    if not said or not found:
        return []
    lines = rest.split(b"\n")
    count = 1
    while count < len(lines) and lines[count - 1][3:4] == b"-" and lines[count][:3] == found.group(1):
        count += 1
    return lines[:count]


def _host(text: bytes) -> bytes:
    found = _HOST.match(text)
    if found is None:
        return b""
    host = (found.group(1) or found.group(2) or found.group(3)).decode("latin-1").strip("[]")
    try:
        address = ip_address(host.removeprefix("IPv6:"))
    except ValueError:
        name = host.encode("latin-1")
        return name if _NAME.fullmatch(name) else b""
    return f"[IPv6:{address}]".encode() if address.version == 6 else f"[{address}]".encode()
