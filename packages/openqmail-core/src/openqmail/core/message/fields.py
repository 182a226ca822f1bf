"""A header as fields, while a message comes in pieces or out of one that is there (stored form).

A header ends at the first empty line, or before the first line that is no field (RFC 5322
section 2.2).  Nothing is unfolded or decoded: a field's value keeps its lines and blanks.
"""

import re
from collections.abc import Iterator

import msgspec

FIELD = 64 * 1024
"""Bytes of a field that are looked at; what is more of it stays in the message."""

_NAME = re.compile(rb"([!-9;-~]+)[ \t]*:")
_LINES = re.compile(rb"(?:(?:[!-9;-~]++[ \t]*+:|[ \t])[^\n]*+(?:\n|\Z))*+")
_FOLDED = re.compile(rb"[^\n]*\n(?:[ \t][^\n]*\n)*")


class Field(msgspec.Struct, frozen=True, gc=False):
    """`value` is all behind the colon but the last line end, with its first blank if there is one."""

    name: bytes
    value: bytes

    @property
    def raw(self) -> bytes:
        """As it stands in the header, nearly always: a blank before the colon is gone."""
        return b"%b:%b\n" % (self.name, self.value)


def name_of(line: bytes) -> bytes | None:
    """The name of the field that begins here; None for a line that begins none."""
    found = _NAME.match(line)
    return found.group(1) if found else None


def folded(header: bytes) -> Iterator[bytes]:
    """The fields of a whole header, each with all its lines; ends before what is no field."""
    for found in _FOLDED.finditer(header):
        if name_of(found.group()) is None:
            return
        yield found.group()


def lines_of_fields(data: bytes, size: int, begun: bool) -> int:
    """How much of the first `size` octets, which are whole lines, is fields; `begun`: a field stands before
    them, and may go on in the first."""
    if not begun and data.startswith((b" ", b"\t")):
        return 0
    found = _LINES.match(data, 0, size)
    return found.end() if found else 0


class FieldReader:
    """Takes a message in pieces; gives its fields, and what stands behind the header."""

    def __init__(self) -> None:
        self._held = b""
        self._cut = False  # the rest of a field that was longer than `FIELD` is coming
        self.in_body = False

    def feed(self, data: bytes) -> tuple[list[Field], bytes]:
        """Fields that are whole by now, and body."""
        if self.in_body:
            return [], data
        data = self._held + data
        fields: list[Field] = []
        at = 0
        while not self.in_body:
            end = _end_of_field(data, at)
            if data.startswith(b"\n", at):
                self._cut = False
                self.in_body = True
                at += 1
            elif end < 0:
                break
            else:
                at = self._take(data, at, end, fields)
        if self.in_body:
            self._held = b""
            return fields, data[at:]
        self._held = data[at:]
        if len(self._held) > FIELD:
            self._take_some(fields)
        return fields, b""

    def finish(self) -> tuple[list[Field], bytes]:
        """No more comes."""
        fields: list[Field] = []
        held, self._held = self._held, b""
        if not held or self.in_body or self._cut:
            return fields, b""
        return fields, b"" if self._take(held, 0, len(held), fields) else held

    def _take(self, data: bytes, at: int, end: int, fields: list[Field]) -> int:
        """The field that ends there, or the beginning of the body; where to go on."""
        if self._cut:
            self._cut = False
            return end
        found = _NAME.match(data, at, end)
        if found is None:
            self.in_body = True
            return at
        fields.append(Field(found.group(1), data[found.end() : end].removesuffix(b"\n")[:FIELD]))
        return end

    def _take_some(self, fields: list[Field]) -> None:
        """What is known of a field that is too long; of the rest only its end matters."""
        keep = self._held[-1:] if self._held.endswith(b"\n") else b"x"
        if not self._cut:
            found = _NAME.match(self._held)
            name, at = (found.group(1), found.end()) if found else (b"", 0)
            if found:
                fields.append(Field(name, self._held[at : at + FIELD]))
            else:
                self.in_body = True
        self._cut = not self.in_body
        self._held = keep


def _end_of_field(data: bytes, at: int) -> int:
    """Behind the last line of the field that begins at `at`; -1 while that is not known."""
    end = data.find(b"\n", at)
    while end >= 0:
        if end + 1 == len(data):
            return -1
        if data[end + 1] not in b" \t":
            return end + 1
        end = data.find(b"\n", end + 1)
    return -1
