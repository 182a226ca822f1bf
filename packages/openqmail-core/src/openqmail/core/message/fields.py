"""The one reading of a header: where it ends, and its fields, in a message that comes in pieces or is there
(stored form).  However it is cut, what comes out is the same; the work is that of its size.

A header ends at the first empty line, or before the first line that is no field (RFC 5322
section 2.2).  Nothing is unfolded or decoded: a field's value keeps its lines and blanks.
"""

import re
from collections.abc import Iterator

import msgspec

FIELD = 64 * 1024
"""Bytes of a field's value that are looked at; what is more of it stays in the message."""

_NAMED = 998 + 998 + 1
"""Bytes that tell whether a line begins a field: the longest name, as many blanks, the colon."""
_BEGINNING = rb"([!-9;-~]{1,998})[ \t]{0,998}:"
_NAME = re.compile(_BEGINNING)
_OTHER = re.compile(rb"\n(?!%b|[ \t])" % _BEGINNING)
_FOLDED = re.compile(rb"[^\n]+\n?(?:[ \t][^\n]*\n?)*")


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
    at = 0
    for found in _FOLDED.finditer(header):
        if found.start() != at or name_of(found.group()) is None:
            return
        at = found.end()
        yield found.group()


class HeaderLines:
    """Parts a message that comes in pieces into the lines of its header and what stands behind: `feed` and
    `finish` give what is known to be of each.  The empty line between them is of neither."""

    __slots__ = ("_begun", "_line", "_within", "in_body")

    def __init__(self) -> None:
        self._line = bytearray()  # the beginning of one that may be no field's
        self._begun = False  # there is a field that may go on
        self._within = False  # the end of a line that is a field's has not come
        self.in_body = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """The next piece."""
        if self.in_body:
            return b"", data
        first = b""
        if self._within:
            end = data.find(b"\n") + 1
            if not end:
                return data, b""
            self._within = False
            first, data = data[:end], data[end:]
        end = data.rfind(b"\n") + 1
        lines, rest = data[:end], data[end:]
        if end and self._line:
            lines = bytes(self._line) + lines
            self._line.clear()
        size = self._size(lines)
        if size < len(lines):
            self.in_body = True
            behind = lines[size + 1 :] if lines.startswith(b"\n", size) else lines[size:]
            return first + lines[:size], behind + rest
        self._line += rest
        if len(self._line) < _NAMED:
            return first + lines, b""
        header, body = self.finish()
        self._within = not body
        return first + lines + header, body

    def finish(self) -> tuple[bytes, bytes]:
        """No more comes."""
        rest = bytes(self._line)
        self._line.clear()
        if self._size(rest):
            return rest, b""
        self.in_body = self.in_body or bool(rest)
        return b"", rest

    def _size(self, lines: bytes) -> int:
        """How much of these lines is of the header."""
        if not lines or (not self._begun and lines.startswith((b" ", b"\t"))):
            return 0
        found = _OTHER.search(b"\n" + lines)
        size = len(lines) if found is None else found.start()
        self._begun = self._begun or size > 0
        return size


class HeaderReader:
    """Takes a message in pieces; gives its fields, and what stands behind the header."""

    __slots__ = ("_field", "_lines", "_within")

    def __init__(self) -> None:
        self._lines = HeaderLines()
        self._field = bytearray()  # one that may go on, as far as it is looked at
        self._within = False  # its last line may

    @property
    def in_body(self) -> bool:
        return self._lines.in_body

    def feed(self, data: bytes) -> tuple[list[Field], bytes]:
        """Fields that are whole by now, and body."""
        if self._lines.in_body:
            return [], data
        header, body = self._lines.feed(data)
        return self._fields(header, self._lines.in_body), body

    def finish(self) -> tuple[list[Field], bytes]:
        """No more comes."""
        header, body = self._lines.finish()
        return self._fields(header, True), body

    def _fields(self, header: bytes, over: bool) -> list[Field]:
        """What is whole with these lines; `over`: they are the last."""
        at = 0
        if self._within and header:
            at = header.find(b"\n") + 1 or len(header)
            self._add(header[:at])
        found = _FOLDED.findall(header, at)
        if header:
            self._within = not header.endswith(b"\n")
        if found and found[0].startswith((b" ", b"\t")):
            self._add(found.pop(0))
        whole = []
        if self._field and (found or over):
            whole.append(_field(bytes(self._field)))
            self._field.clear()
        if found and not over:
            self._add(found.pop())
        return [*whole, *map(_field, found)]

    def _add(self, text: bytes) -> None:
        room = _NAMED + FIELD + 1 - len(self._field)  # one more: it may be the line end
        self._field += text[:room] if room > 0 else b""


def _field(text: bytes) -> Field:
    """All its lines, or enough of them."""
    found = _NAME.match(text)
    name, at = (found.group(1), found.end()) if found else (b"", 0)  # there is one, or it is body
    end = len(text) - text.endswith(b"\n")
    return Field(name, text[at : min(end, at + FIELD)])
