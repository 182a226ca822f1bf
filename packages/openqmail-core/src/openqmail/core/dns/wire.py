"""Questions and replies of the DNS as bytes (RFC 1035 section 4): as much as a stub resolver needs.  Pure.

A reader of its own because a reply is what any stranger puts into his zone: a general reader may
take ten seconds for 64 KiB of compressed names.  Here at most `MOST_RECORDS` are looked at, of
each but the few kinds that mail asks for only the length, and a name takes a bounded number of steps.
Names are kept as labels with their lengths, in lower case, uncompressed: a dot within a label
is not one between labels.
"""

import re
import socket
import struct

import msgspec

from openqmail.core.dns.types import MailExchanger

A, NS, CNAME, SOA, PTR, MX, TXT, AAAA, OPT = 1, 2, 5, 6, 12, 15, 16, 28, 41
KINDS = {"A": A, "PTR": PTR, "MX": MX, "TXT": TXT, "AAAA": AAAA}
IN = 1

NOERROR, SERVFAIL, NXDOMAIN, REFUSED = 0, 2, 3, 5
RCODES = {1: "FORMERR", SERVFAIL: "SERVFAIL", NXDOMAIN: "NXDOMAIN", 4: "NOTIMP", REFUSED: "REFUSED"}

MOST_RECORDS = 1000
MOST_POINTERS = 32
BUFFER = 1232
"""The EDNS buffer that fits an unfragmented datagram everywhere."""

_RECURSION_DESIRED, _AUTHENTIC, _REPLY, _TRUNCATED, _AUTHORITATIVE = 0x0100, 0x0020, 0x8000, 0x0200, 0x0400
_OPCODE = 0x7800
_EXTENDED_ERROR = 15  # RFC 8914
_PLAIN = re.compile(rb"(?!.{254})[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\Z", re.DOTALL)
_SHOWN = tuple(
    bytes((each,)) if 0x20 < each < 0x7F and each not in b".\\" else b"\\%03d" % each for each in range(256)
)


class Malformed(ValueError):
    """These bytes are no message of the DNS."""


class Question(msgspec.Struct, frozen=True):
    """`name` with lengths; `kind` as its number."""

    name: bytes
    kind: int


class RecordSet(msgspec.Struct, frozen=True):
    """The records of one name and kind; the target of an alias is a name with lengths, a TXT record's
    strings are put together (RFC 7208 section 3.3)."""

    ttl: int
    values: tuple[str | MailExchanger | bytes, ...]


class Reply(msgspec.Struct, frozen=True):
    """`sets`: what was asked for, and aliases.  `soa`: the name of the zone that denies, and for how
    many seconds that holds (RFC 2308 section 5).  `extended`: the extended error, if one was said."""

    id: bytes
    rcode: int
    truncated: bool
    authentic: bool
    question: Question | None
    sets: dict[tuple[bytes, int], RecordSet]
    soa: tuple[bytes, int] | None
    referral: bool
    extended: int | None


def is_plain(name: bytes) -> bool:
    """A host's name (RFC 1123), with the underscore that some use; without a final dot."""
    return _PLAIN.match(name) is not None


def name_of(text: bytes) -> bytes:
    """A plain name with lengths, in lower case."""
    return b"".join(bytes((len(label),)) + label for label in text.lower().split(b".")) + b"\0"


def text_of(name: bytes) -> bytes:
    """The name as people write it, without a final dot; what is not printable as `\\DDD`."""
    labels, at = [], 0
    while name[at]:
        label = name[at + 1 : at + 1 + name[at]]
        at += 1 + name[at]
        labels.append(b"".join(_SHOWN[each] for each in label))
    return b".".join(labels)


def ask(identity: bytes, question: Question, *, authentic: bool) -> bytes:
    """The question as a datagram.  `authentic`: tell whether DNSSEC proves it (RFC 6840 section 5.7)."""
    flags = _RECURSION_DESIRED | (_AUTHENTIC if authentic else 0)
    edns = struct.pack("!BHHIH", 0, OPT, BUFFER, 0, 0)
    asked = question.name + struct.pack("!HH", question.kind, IN)
    return identity + struct.pack("!5H", flags, 1, 0, 0, 1) + asked + edns


def answers(reply: bytes, query: bytes) -> bool:
    """Whether a datagram may be the reply to this query: its number is right."""
    return len(reply) >= 12 and reply[:2] == query[:2] and reply[2] >= 0x80


def read(wire: bytes, kind: int) -> Reply:
    """The reply, of its records those of `kind` and aliases.  Raises Malformed."""
    try:
        return _read(wire, kind)
    except (IndexError, struct.error) as error:
        raise Malformed("it ends too early") from error


def _read(wire: bytes, kind: int) -> Reply:
    flags, questions, *sections = struct.unpack_from("!5H", wire, 2)
    if not flags & _REPLY or flags & _OPCODE or questions > 1:
        raise Malformed("it is no reply to a question")
    at, question = 12, None
    truncated = bool(flags & _TRUNCATED)
    if questions:
        name, at = _name(wire, at)
        asked, group = struct.unpack_from("!HH", wire, at)
        at += 4
        question = Question(name, asked if group == IN else 0)
    found: dict[tuple[bytes, int], list[tuple[int, str | MailExchanger | bytes]]] = {}
    soa, delegated, rcode, extended = None, False, flags & 0xF, None
    left = 0 if truncated else MOST_RECORDS
    for section, count in enumerate(sections):
        for _ in range(min(count, left)):
            left -= 1
            start = at
            at = _after_name(wire, at)
            type_, group, ttl, size = struct.unpack_from("!HHIH", wire, at)
            at += 10 + size
            if at > len(wire):
                raise Malformed("it ends within a record")
            if type_ == OPT:
                rcode |= (ttl >> 24) << 4
                extended = _extended(wire[at - size : at])
            elif group != IN:
                continue
            elif section == 0 and type_ in (kind, CNAME):
                value = _value(wire, at - size, at, type_)
                found.setdefault((_name(wire, start)[0], type_), []).append((_seconds(ttl), value))
            elif section == 1 and type_ == NS:
                delegated = True
            elif section == 1 and type_ == SOA and soa is None:
                if size < 22:
                    raise Malformed("it has a record of a wrong length")
                (minimum,) = struct.unpack_from("!I", wire, at - 4)
                soa = (_name(wire, start)[0], min(_seconds(ttl), _seconds(minimum)))
    sets = {
        key: RecordSet(min(ttl for ttl, _ in records), tuple(dict.fromkeys(value for _, value in records)))
        for key, records in found.items()
    }
    referral = delegated and soa is None and not found and not flags & _AUTHORITATIVE
    authentic = bool(flags & _AUTHENTIC)
    return Reply(wire[:2], rcode, truncated, authentic, question, sets, soa, referral, extended)


def _seconds(ttl: int) -> int:
    """RFC 2181 section 8: one with the highest bit set is none."""
    return ttl if ttl < 1 << 31 else 0


def _value(wire: bytes, start: int, end: int, kind: int) -> str | MailExchanger | bytes:
    if kind in (A, AAAA):
        if end - start != (4 if kind == A else 16):
            raise Malformed("it has an address of a wrong length")
        return socket.inet_ntop(socket.AF_INET if kind == A else socket.AF_INET6, wire[start:end])
    if kind == TXT:
        return _strings(wire[start:end])
    name, after = _name(wire, start + 2 if kind == MX else start)
    if after != end:
        raise Malformed("it has a record of a wrong length")
    if kind != MX:
        return name if kind == CNAME else text_of(name)
    return MailExchanger(wire[start] << 8 | wire[start + 1], text_of(name))


def _name(wire: bytes, at: int) -> tuple[bytes, int]:
    """The name that begins here, and where what follows it begins."""
    name, after, start = b"", 0, at
    pointers = 0
    while size := wire[at]:
        if size >= 0xC0:
            target = (size & 0x3F) << 8 | wire[at + 1]
            pointers += 1
            # Only backwards, so never in a circle.
            if target >= start or pointers > MOST_POINTERS:
                raise Malformed("it has a compressed name that leads nowhere")
            after = after or at + 2
            at = start = target
            continue
        if size > 63 or len(name) + size > 253 or at + size >= len(wire):
            raise Malformed("it has a name that cannot be")
        name += wire[at : at + 1 + size]
        at += 1 + size
    return name.lower() + b"\0", after or at + 1


def _strings(data: bytes) -> bytes:
    """What the strings of a TXT record are together."""
    parts, at = [], 0
    while at < len(data):
        parts.append(data[at + 1 : at + 1 + data[at]])
        at += 1 + data[at]
    if at != len(data):
        raise Malformed("it has a text of a wrong length")
    return b"".join(parts)


def _after_name(wire: bytes, at: int) -> int:
    while size := wire[at]:
        if size >= 0xC0:
            return at + 2
        at += 1 + size
    return at + 1


def _extended(options: bytes) -> int | None:
    at = 0
    while at + 4 <= len(options):
        code, size = struct.unpack_from("!HH", options, at)
        if code == _EXTENDED_ERROR and size >= 2:
            return int.from_bytes(options[at + 4 : at + 6], "big")
        at += 4 + size
    return None
